"""What pydantic found wrong reaches users in our words: whatever is sent, for every field of every file and body."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from comfypin.errors import ComfypinError
from comfypin.jobs.errors import JobInvalid
from comfypin.jobs.job_input import job_input_schema, parse_job_input, parse_model_wish
from comfypin.lock.codec import parse_lock
from comfypin.lock.schema3 import Lock3
from comfypin.runpod.deployment_file import deployment_schema, read_deployment
from comfypin.runpod.errors import HubInvalid
from comfypin.runpod.hub_files import check_hub_file
from comfypin.server.request_bodies import describe_mismatch

# And patterns, which are for machines.
FOREIGN_WORDS = re.compile(
    r"ield required|should (be|have|match)|nput should|nable to|valid (string|number)|must match"
)
WRONG: tuple[Any, ...] = (None, True, -1, 10**30, 0.5, 1e300, "", "\0", "x" * 5000, [], [[]], [5], {}, {"a": {"b": 1}})


def wrong_values(schema: dict[str, Any], node: dict[str, Any], depth: int = 0) -> Iterator[Any]:
    """Yield values for a place of a schema: wrong ones, and objects of which one field is wrong."""
    yield from WRONG
    node = next((option for option in node.get("anyOf", ()) if option.get("type") != "null"), node)
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    if depth == 4:
        return
    for name, field in node.get("properties", {}).items():
        yield from ({name: value} for value in wrong_values(schema, field, depth + 1))
    if isinstance(items := node.get("items"), dict):
        yield from ([value] for value in wrong_values(schema, items, depth + 1))


def refusals(read: Callable[[Any], object], values: Iterable[Any]) -> list[str]:
    messages = []
    for value in values:
        try:
            read(value)
        except ComfypinError as exc:
            messages.append(exc.message)
    return messages


def foreign(messages: list[str]) -> list[str]:
    assert len(messages) > 50
    return [message for message in messages if FOREIGN_WORDS.search(message)]


def test_a_field_that_is_missing_is_named_with_what_to_do() -> None:
    with pytest.raises(JobInvalid) as caught:
        parse_job_input({"workflow": {}, "images": [{"name": "cat.png"}]})
    assert caught.value.findings == ["images.0.image: it is missing; add it"]


def test_a_text_that_does_not_match_is_told_what_it_must_be() -> None:
    with pytest.raises(JobInvalid) as caught:
        parse_job_input({"workflow": {}, "inputs": [{"name": "a\\b", "asset": "sha256:00"}]})
    assert caught.value.findings == [
        "inputs.0.name: it must be a file name of 1 to 200 characters without backslashes or control characters",
        "inputs.0.asset: it must be the hash of an asset: blake3: and 64 hex digits",
    ]


def test_parameters_of_a_request_are_named_where_they_stand() -> None:
    errors: list[dict[str, Any]] = [
        {"type": "int_parsing", "loc": ("query", "wait"), "msg": "Input should be a valid integer"},
        {"type": "less_than_equal", "loc": ("query", "limit"), "msg": "...", "ctx": {"le": 200}},
    ]
    assert describe_mismatch(errors) == (
        "`wait` in the query: it must be a whole number; `limit` in the query: it must be 200 or less"
    )


def test_jobs_and_models_are_answered_in_our_words() -> None:
    schema = job_input_schema()
    assert foreign(refusals(parse_job_input, wrong_values(schema, schema))) == []
    assert foreign(refusals(parse_model_wish, wrong_values(schema, schema["$defs"]["ModelWish"]))) == []


def test_locks_are_answered_in_our_words() -> None:
    schema = Lock3.model_json_schema()
    named = {"schema_version": 3, "version_name": "x"}
    locks = ({**named, **value} for value in wrong_values(schema, schema) if isinstance(value, dict))
    read = partial(parse_lock, where="x.lock.json")
    assert foreign(refusals(read, (json.dumps(lock).encode() for lock in locks))) == []


def test_runpod_toml_is_answered_in_our_words(tmp_path: Path) -> None:
    schema, path = deployment_schema(), tmp_path / "runpod.toml"
    documents = (value for value in wrong_values(schema, schema) if isinstance(value, dict) and value)

    def read(document: dict[str, Any]) -> None:
        path.write_text("\n".join(f"{name} = {to_toml(value)}" for name, value in document.items()))
        read_deployment(path)

    assert foreign(refusals(read, documents)) == []


def to_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {to_toml(inner)}" for name, inner in value.items()) + "}"
    return "[" + ", ".join(map(to_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("hub.json", '{"title": ""}', "title: it must not be empty"),
        ("hub.json", '{"type": "toys"}', "type: it must be 'serverless'"),
        ("tests.json", '{"tests": [], "config": {}}', "tests: it must not be empty"),
        ("tests.json", "[]", "it must be an object"),
    ],
)
def test_the_hub_s_files_are_told_of_in_our_words(name: str, content: str, sentence: str) -> None:
    with pytest.raises(HubInvalid) as caught:
        check_hub_file(Path(name), content.encode())
    assert sentence in caught.value.findings
    assert not FOREIGN_WORDS.search(caught.value.message)
