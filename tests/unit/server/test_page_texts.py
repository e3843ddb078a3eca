"""The page's texts: each in both languages, and the description of the API in Russian, too."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comfypin.server.page_files import load_page_files
from comfypin.workflow.without_models import ENGINE_WITHOUT_MODELS
from tests.conftest import ROOT
from tests.support.comfy_api import local_api

_PLURALS = {"zero", "one", "two", "few", "many", "other"}
_KEY = re.compile(r'[{,]\s*(?:"([^"]+)"|([A-Za-z_]\w*)): ?["{]')
# What is said to users by the server in English; pages of other languages say it themselves.
_OF_SERVER = ("remedy ", "error ", "http ", "finding ", "cause ", "family failed ")


def keys_of(file: str) -> set[str]:
    text = load_page_files()[file].body.decode()
    return {quoted or plain for quoted, plain in _KEY.findall(text)}


def test_each_text_is_there_in_both_languages() -> None:
    english, russian = keys_of("lang-en.js"), keys_of("lang-ru.js")
    assert len(english) > 150
    assert {key for key in russian - english if not key.startswith(_OF_SERVER)} - _PLURALS == set()
    assert english - russian - _PLURALS == set()


def test_each_text_that_a_view_asks_for_is_there() -> None:
    english = keys_of("lang-en.js")
    asked = {
        key
        for name, file in load_page_files().items()
        if name.endswith(".js") and "/" not in name and not name.startswith("lang-")
        for key in re.findall(r'\bt\("([^"]+)"', file.body.decode())
    }
    assert len(asked) > 100
    assert asked - english == set()


def test_each_text_of_the_api_is_there_in_russian(tmp_path: Path) -> None:
    described = load_page_files()["docs-ru.js"].body.decode()
    with local_api(tmp_path) as local:
        document = local.client.get("/openapi.json").json()
    # What its author wrote of a workflow stays as it is, and so does what frameworks say of responses.
    own = {path: item for path, item in document["paths"].items() if not path.startswith("/workflows/")}
    told = set(_texts_of([document["tags"], own, document["components"]]))
    assert len(told) > 80
    assert {text for text in told if json.dumps(text) not in described and f"'{text}'" not in described} == set()


def _texts_of(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for item in part:
            yield from _texts_of(item)
    elif isinstance(part, dict):
        yield from (part[key] for key in ("summary", "description") if isinstance(part.get(key), str))
        for key, item in part.items():
            if key != "responses":
                yield from _texts_of(item)


def test_each_finding_about_a_workflow_is_said_in_russian() -> None:
    russian = {key for key in keys_of("lang-ru.js") if key.startswith("finding ")}
    codes = {ENGINE_WITHOUT_MODELS, *_finding_codes()}
    assert len(codes) > 30
    assert {f"finding {code}" for code in codes} - russian == set()


def _finding_codes() -> Iterator[str]:
    """Yield each code that stands in the sources, as `code=` or where a function takes one."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "src/comfypin/workflow").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    places = {
        node.name: place
        for node in nodes
        if isinstance(node, ast.FunctionDef)
        for place, argument in enumerate(node.args.args)
        if argument.arg in ("code", "finding_code")
    }
    for call in nodes:
        if isinstance(call, ast.Call):
            place = places.get(call.func.id) if isinstance(call.func, ast.Name) else None
            values = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
            values += [] if place is None else call.args[place : place + 1]
            for value in (inner for outer in values for inner in ast.walk(outer)):
                if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
                    yield value.value


def test_the_first_view_asks_for_all_its_modules_at_once() -> None:
    files = {name: file.body.decode() for name, file in load_page_files().items() if name.endswith((".js", ".html"))}
    needed: set[str] = set()
    unread = ["app.js"]
    while unread:
        for module in re.findall(r'^import [^(]*?from "\./([^"]+)"', files[unread.pop()], re.MULTILINE):
            if module not in needed:
                needed.add(module)
                unread.append(module)
    assert needed == set(re.findall(r'"modulepreload" href="page/([^"]+)"', files["index.html"]))
