"""Reading and writing locks: schemas, canonical bytes, digests, findings."""

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comfypin.digest import Digest, JsonValue
from comfypin.errors import LockError
from comfypin.lock.codec import env_digest, lock_digest, parse_lock, read_lock, render_lock
from comfypin.lock.errors import LockInvalid, LockUnreadable
from comfypin.lock.model import Lock
from comfypin.lock.schema3 import lock_json_schema

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA = "ab" * 32


def a_document(**changes: object) -> dict[str, object]:
    return {
        "schema_version": 3,
        "version_name": "wan22",
        "comfyui": {"repo": "https://example.org/ComfyUI", "ref": "v0.3.64", "commit": COMMIT},
        "custom_nodes": [
            {"name": "b-node", "repo": "https://example.org/b", "commit": COMMIT, "install_script": "run"},
            {"name": "a-node", "repo": "https://example.org/a.git", "commit": COMMIT, "directory": "A"},
        ],
        "python": {
            "version": "3.12",
            "targets": {"linux-x86_64-cu128": {}},
            "packages": [
                {"name": "torch", "version": "2.8.0", "url": "https://example.org/torch.whl", "sha256": [SHA]},
                {"name": "aiohttp", "version": "3.12", "sha256": [SHA], "index": None, "marker": None, "target": None},
            ],
        },
        "models": [
            {
                "name": "vae",
                "target_path": "$MODELS_DIR/vae/x.safetensors",
                "sha256": SHA,
                "size_bytes": 1,
                "sources": ["hf://org/repo@main/x.safetensors", "s3://bucket/x"],
            }
        ],
        "system_packages": ["ffmpeg"],
        "engine": {"kind": "comfyui", "args": ["--fast"], "env": {"A": "1"}, "warmup": None},
        **changes,
    }


def parse(document: object) -> Lock:
    return parse_lock(json.dumps(document).encode(), where="a lock").lock


def findings(document: object) -> dict[str, tuple[str, str]]:
    with pytest.raises(LockInvalid) as caught:
        parse(document)
    return {finding.path: (finding.found, finding.allowed) for finding in caught.value.findings}


def test_schema_3_is_read() -> None:
    lock = parse(a_document())
    assert lock.comfyui is not None
    assert lock.comfyui.commit == COMMIT
    assert [node.folder for node in lock.custom_nodes] == ["b-node", "A"]
    assert lock.models[0].sha256 == Digest(SHA)
    assert lock.engine.args == ("--fast",)


def test_what_is_rendered_is_read_back_as_the_same_bytes() -> None:
    data = render_lock(parse(a_document()))
    assert render_lock(parse_lock(data, where="a lock").lock) == data


def test_the_order_of_pins_and_keys_does_not_change_the_bytes() -> None:
    document = a_document()
    turned = {key: list(reversed(value)) if isinstance(value, list) else value for key, value in document.items()}
    assert render_lock(parse(dict(reversed(turned.items())))) == render_lock(parse(document))


def test_the_order_of_a_models_sources_is_kept() -> None:
    assert parse(a_document()).models[0].sources[0].startswith("hf://")


def test_the_lock_digest_is_that_of_the_canonical_bytes() -> None:
    lock = parse(a_document())
    assert lock_digest(lock) == Digest.of(render_lock(lock))


@pytest.mark.parametrize(
    "changes",
    [
        {"models": []},
        {"version_name": "other"},
        {"engine": {"kind": "embedded"}},
        {"comfyui": {"repo": "https://example.org/ComfyUI", "ref": "master", "commit": COMMIT}},
    ],
)
def test_the_env_digest_ignores_what_the_env_is_not_made_of(changes: dict[str, object]) -> None:
    assert env_digest(parse(a_document(**changes))) == env_digest(parse(a_document()))


@pytest.mark.parametrize(
    "changes",
    [
        {"comfyui": {"repo": "https://example.org/ComfyUI", "commit": "f" * 40}},
        {"custom_nodes": []},
        {"python": {"version": "3.11", "packages": []}},
    ],
)
def test_the_env_digest_covers_comfyui_nodes_and_packages(changes: dict[str, object]) -> None:
    assert env_digest(parse(a_document(**changes))) != env_digest(parse(a_document()))


def test_unknown_keys_are_warned_of_and_survive_a_rewrite() -> None:
    document = a_document(
        comfyui={"repo": "https://example.org/c", "comit": "x", "note": {"a": [1, None]}}, colour="red"
    )
    reading = parse_lock(json.dumps(document).encode(), where="a lock")
    assert {(warning.path, warning.severity) for warning in reading.warnings} == {
        ("$.colour", "warning"),
        ("$.comfyui.comit", "warning"),
        ("$.comfyui.note", "warning"),
    }
    assert "did you mean commit?" in str(reading.warnings[1])
    rewritten = json.loads(render_lock(reading.lock))
    assert rewritten["colour"] == "red"
    assert rewritten["comfyui"]["note"] == {"a": [1, None]}


def test_every_finding_is_said_at_once_with_path_value_and_what_is_allowed() -> None:
    found = findings(
        a_document(
            version_name="../x",
            custom_nodes=[
                {"name": "..", "repo": "ext::sh -c id", "commit": "--upload-pack=id", "install_script": "maybe"}
            ],
            python={
                "version": "2.7",
                "packages": [{"name": "-r", "version": "1; x", "url": "ftp://x", "sha256": "00"}],
            },
            models=[{"name": "", "target_path": "../../etc/passwd", "sha256": "xyz", "size_bytes": -1, "sources": [1]}],
            system_packages=["ffmpeg; rm -rf /"],
            engine={"kind": "magic", "args": "--cpu", "env": {"1A": "x", "B=": "y", "C": 1}},
        )
    )
    assert set(found) == {
        "$.version_name",
        "$.custom_nodes[0].name",
        "$.custom_nodes[0].repo",
        "$.custom_nodes[0].commit",
        "$.custom_nodes[0].install_script",
        "$.python.version",
        "$.python.packages[0].name",
        "$.python.packages[0].version",
        "$.python.packages[0].url",
        "$.python.packages[0].sha256",
        "$.models[0].name",
        "$.models[0].target_path",
        "$.models[0].sha256",
        "$.models[0].size_bytes",
        "$.models[0].sources[0]",
        "$.system_packages[0]",
        "$.engine.kind",
        "$.engine.args",
        '$.engine.env["1A"]',
        '$.engine.env["B="]',
        "$.engine.env.C",
    }
    assert found["$.engine.kind"] == ('"magic"', "allowed: 'comfyui', 'remote' or 'embedded'")
    assert found["$.python.version"] == ('"2.7"', "a Python version, such as 3.12 or 3.12.4")


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "$MODELS_DIR/../x",
        "$MODELS_DIR/a/../../x",
        "$MODELS_DIR/vae/",
        "$COMFY_HOME/..",
        "$HOME/x",
        "$MODELS_DIR",
        "$MODELS_DIR/",
        "$MODELS_DIR//etc/x",
        "a\\..\\x",
        "a\x00b",
        "a\nb",
        "a\u202eb",
        "",
        "${HOME}/x",
        "$MODELS_DIRx/y",
    ],
)
def test_a_target_path_that_leaves_its_folder_is_refused(path: str) -> None:
    assert list(findings(a_document(models=[{"name": "m", "target_path": path}]))) == ["$.models[0].target_path"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("vae/x.safetensors", "$MODELS_DIR/vae/x.safetensors"),
        ("${MODELS_DIR}/vae/x", "$MODELS_DIR/vae/x"),
        ("$COMFY_HOME/custom_nodes/a//b", "$COMFY_HOME/custom_nodes/a/b"),
        (
            "$MODELS_DIR/./a b/\u043c\u043e\u0434\u0435\u043b\u044c.bin",
            "$MODELS_DIR/a b/\u043c\u043e\u0434\u0435\u043b\u044c.bin",
        ),
    ],
)
def test_a_target_path_is_normalized(written: str, meant: str) -> None:
    assert parse(a_document(models=[{"name": "m", "target_path": written}])).models[0].target_path == meant


@pytest.mark.parametrize("folder", ["..", ".", "a/b", "a\\b", "", "a\x00", " a", "\x1b[2J"])
def test_a_node_folder_that_is_not_one_plain_name_is_refused(folder: str) -> None:
    document = a_document(custom_nodes=[{"name": "n", "repo": "https://x.org/n", "directory": folder}])
    assert list(findings(document)) == ["$.custom_nodes[0].directory"]


def test_two_pins_of_schema_3_cannot_claim_one_place() -> None:
    model = {"name": "m", "target_path": "vae/x"}
    node = {"name": "n", "repo": "https://x.org/n"}
    found = findings(a_document(models=[model, model], custom_nodes=[node, {**node, "name": "o", "directory": "n"}]))
    assert list(found) == ["$.custom_nodes[1].directory", "$.models[1].target_path"]


def test_a_package_for_a_target_that_is_not_declared_is_refused() -> None:
    package = {"name": "a", "version": "1", "target": "linux-x86_64-cpu"}
    assert list(findings(a_document(python={"packages": [package]}))) == ["$.python.packages[0].target"]


@pytest.mark.parametrize("version", [0, 4, "3", None, True, 3.0, [], {}, 10**30])
def test_an_unknown_schema_is_refused_by_its_path(version: object) -> None:
    assert list(findings(a_document(schema_version=version))) == ["$.schema_version"]


@pytest.mark.parametrize("document", [[], None, 1, "x", {}, {"3": {"class_type": "KSampler"}}])
def test_a_file_that_is_no_lock_is_refused(document: object) -> None:
    assert next(iter(findings(document))).startswith("$")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b'{"a": "\xc3\x28"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"schema_version": ' + b"9" * 10_000 + b"}",
        b"\x00" * 100,
        b"PK\x03\x04",
    ],
    ids=str,
)
def test_bytes_that_are_not_json_are_refused_in_one_sentence(data: bytes) -> None:
    with pytest.raises(LockUnreadable) as caught:
        parse_lock(data, where="a lock")
    assert "a lock cannot be read" in caught.value.message


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"schema_version": 3, "schema_version": 1}', "$.schema_version"),
        ('{"schema_version": 3, "models": [{"name": "a", "name": "b"}]}', "$.models[0].name"),
        ('{"schema_version": 3, "x": NaN}', "$.x"),
        ('{"schema_version": 3, "x": [1e999]}', "$.x[0]"),
        ('{"schema_version": 3, "x": "\\ud800"}', "$.x"),
        ('{"schema_version": 3, "x": ' + "[" * 150 + "]" * 150 + "}", "$.x[0][0][0][0]..."),
    ],
)
def test_what_readers_of_json_disagree_about_is_refused(text: str, path: str) -> None:
    with pytest.raises(LockInvalid) as caught:
        parse_lock(text.encode(), where="a lock")
    assert [finding.path for finding in caught.value.findings] == [path]


def test_a_byte_order_mark_is_read_over() -> None:
    assert parse_lock(b"\xef\xbb\xbf" + json.dumps(a_document()).encode(), where="a lock").lock.version_name == "wan22"


def test_what_was_there_is_printed_safely_and_shortly() -> None:
    found = findings(a_document(version_name="\x1b[31m" + "x" * 500))
    assert "\x1b" not in found["$.version_name"][0]
    assert len(found["$.version_name"][0]) < 120


@pytest.mark.parametrize("kind", ["folder", "absent", "device"])
def test_a_path_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = {"folder": tmp_path, "absent": tmp_path / "x.json", "device": Path("/dev/zero")}[kind]
    with pytest.raises(LockUnreadable):
        read_lock(path)


JSON_VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*sorted(a_document()), "comfy", "version_id", "id", "env", "options", "python_packages"])
PARTS = st.sampled_from([a_document()["python"], a_document()["models"], a_document()["custom_nodes"]]) | JSON_VALUES


@given(
    schema=st.sampled_from([1, 2, 3]), changes=st.dictionaries(KEYS, PARTS, max_size=4), drop=st.lists(KEYS, max_size=3)
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_in_a_file_it_is_read_or_refused(schema: int, changes: dict[str, object], drop: list[str]) -> None:
    document = {
        "version_id": "x",
        "comfy": {"repo": "https://x.org/c"},
        **a_document(**changes),
        "schema_version": schema,
    }
    kept = {key: value for key, value in document.items() if key not in drop}
    try:
        lock = parse_lock(json.dumps(kept).encode("utf-8", "replace"), where="a lock", default_name="x").lock
    except LockError:
        return
    assert parse_lock(render_lock(lock), where="rewritten").lock.version_name == lock.version_name


def test_the_json_schema_in_docs_is_the_one_of_the_code() -> None:
    docs = Path(__file__).parents[3] / "docs" / "lock.schema.json"
    assert json.loads(docs.read_text()) == lock_json_schema(), (
        "write it again: comfypin lock schema > docs/lock.schema.json"
    )


def test_the_json_schema_takes_what_is_rendered_and_refuses_what_the_reader_refuses() -> None:
    validator = jsonschema.Draft202012Validator(lock_json_schema())
    validator.validate(json.loads(render_lock(parse(a_document()))))
    bad = a_document(
        version_name="a b",
        models=[{"name": "m", "target_path": "$MODELS_DIR/../x", "size_bytes": -1}],
        engine={"kind": "magic", "env": {"1": "x"}},
    )
    assert {"/".join(map(str, error.path)) for error in validator.iter_errors(bad)} >= {
        "version_name",
        "models/0/target_path",
        "models/0/size_bytes",
        "engine/kind",
    }


def test_what_was_chosen_and_learned_about_packages_survives_and_is_no_part_of_the_env() -> None:
    choice = {"name": "cv-headless", "imports": ["cv2"], "replaces": ["cv"], "platforms": ["linux-x86_64"]}
    python = {**a_document()["python"], "variants": [choice], "libraries": {"libGL.so.1": ["cv"]}}  # type: ignore[dict-item]
    lock = parse(a_document(python=python))
    written = json.loads(render_lock(lock))["python"]
    assert (written["variants"], written["libraries"]) == ([choice], {"libGL.so.1": ["cv"]})
    assert env_digest(lock) == env_digest(parse(a_document()))
    assert lock_digest(lock) != lock_digest(parse(a_document()))


def test_whose_file_it_is_is_part_of_the_env() -> None:
    python = {**a_document()["python"], "variants": [{"name": "a", "overwrites": ["b"]}]}  # type: ignore[dict-item]
    assert env_digest(parse(a_document(python=python))) != env_digest(parse(a_document()))


def test_the_size_of_the_warm_up_is_written_only_if_it_is_not_the_usual_one() -> None:
    engine = {"kind": "comfyui", "args": [], "env": {}, "warmup": {"1": {"class_type": "A", "inputs": {}}}}
    usual = parse(a_document(engine=engine))
    assert usual.engine.warmup_size == "smallest"
    assert "warmup_size" not in render_lock(usual).decode()
    full = parse(a_document(engine={**engine, "warmup_size": "full"}))
    assert parse_lock(render_lock(full), where="a lock").lock.engine == full.engine
