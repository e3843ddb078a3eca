"""`comfypin workflow convert|check|inputs` as a user calls them."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from comfypin.cli.main import main
from tests.support.node_list import CATALOGUE
from tests.support.ui_graphs import node, ui

CONTENT = ui(
    [
        node(1, "EmptyImage", [8, 8, 1, 0], title="Canvas"),
        node(2, "SaveImage", ["cat"], wires={"images": 1}),
    ],
    [[1, 1, 0, 2, 0, "IMAGE"]],
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "info.json").write_text(json.dumps(CATALOGUE))
    (tmp_path / "cat.json").write_text(json.dumps(CONTENT))
    return tmp_path


def call(folder: Path, verb: str, *more: str, workflow: str = "cat.json") -> int:
    info = ["--object-info", str(folder / "info.json")]
    return main(["workflow", verb, str(folder / workflow), *info, *more])


def test_convert_prints_the_api_format(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "convert") == 0
    graph = json.loads(capsys.readouterr().out)
    assert graph["2"]["inputs"] == {"filename_prefix": "cat", "images": ["1", 0]}


def test_convert_writes_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "convert", "-o", str(folder / "api.json")) == 0
    assert capsys.readouterr().out == ""
    assert call(folder, "check", workflow="api.json") == 0


def test_convert_refuses_unknown_classes_and_prints_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nope = node(1, "Nope", title="Mine", outputs=[{"name": "IMAGE", "type": "IMAGE", "links": [1]}])
    save = node(2, "PreviewImage", wires={"images": 1})
    (folder / "cat.json").write_text(json.dumps(ui([nope, save], [[1, 1, 0, 2, 0, "IMAGE"]])))
    assert call(folder, "convert") == 11
    captured = capsys.readouterr()
    assert captured.out == ""
    assert 'node 1 (Nope, "Mine")' in captured.err


def test_check_says_what_is_wrong_and_which_pin_brings_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = ui(
        [
            node(1, "CheckpointLoaderSimple", ["flux.safetensors"]),
            node(2, "KSampler", [1, "fixed", 8.0, "euler", True, ""], wires={"model": 1}),
            node(3, "VAEDecode", wires={"samples": 2, "vae": 3}),
            node(4, "PreviewImage", wires={"images": 4}),
        ],
        [[1, 1, 0, 2, 0, "MODEL"], [2, 2, 0, 3, 0, "LATENT"], [3, 1, 2, 3, 1, "VAE"], [4, 3, 0, 4, 0, "IMAGE"]],
    )
    (folder / "cat.json").write_text(json.dumps(content))
    lock = {
        "schema_version": 3,
        "version_name": "r",
        "comfyui": {"repo": "https://x.org/c", "commit": "a" * 40},
        "models": [{"name": "flux", "target_path": "$MODELS_DIR/checkpoints/flux.safetensors", "sources": []}],
    }
    (folder / "r.lock.json").write_text(json.dumps(lock))
    assert call(folder, "check", "--lock", str(folder / "r.lock.json"), "--json") == 11
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["runs"] is False
    assert report["findings"][0]["pin"] == "flux"
    assert report["models"] == [
        {
            "node": "1",
            "input": "ckpt_name",
            "file": "flux.safetensors",
            "present": False,
            "pin": "flux",
            "target_path": "$MODELS_DIR/checkpoints/flux.safetensors",
        }
    ]


def test_inputs_are_listed_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(folder, "inputs") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["Canvas.width", "Canvas.height", "Canvas.batch_size"]


def test_an_inputs_file_names_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "cat.inputs.toml").write_text('[inputs.size]\ntarget = "Canvas.width"\nmaximum = 64\n')
    assert call(folder, "inputs", "--schema") == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["size"]["maximum"] == 64


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["workflow"], 64, "comfypin workflow --help"),
        (["workflow", "convert", "none.json", "--object-info", "x"], 11, "none.json cannot be read"),
        (["workflow", "check", "{folder}/cat.json", "--object-info", "{folder}/cat.json"], 64, "/object_info"),
        (["workflow", "check", "{folder}/cat.json", "--object-info", "{folder}/none"], 64, "cannot be read"),
        (["workflow", "check", "{folder}/cat.json", "--object-info", "{folder}/info.json", "--engine", "x"], 64, "one"),
        (["workflow", "check", "{folder}/cat.json", "--engine", "http://127.0.0.1:1"], 20, "127.0.0.1:1"),
    ],
)
def test_what_cannot_be_done_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert main([argument.replace("{folder}", str(folder)) for argument in arguments]) == code
    assert words in capsys.readouterr().err


def test_inputs_are_those_of_app_mode_in_its_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = {"linearData": {"inputs": [["2", "filename_prefix"], ["root:1:width", "Wide"]], "outputs": ["2"]}}
    (folder / "cat.json").write_text(json.dumps({**CONTENT, "extra": chosen}))
    assert call(folder, "inputs", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["inputs"]
    assert [(one["name"], one["target"]) for one in listed] == [
        ("filename_prefix", "2.filename_prefix"),
        ("Wide", "1.width"),
    ]
    assert call(folder, "inputs", "--schema") == 0
    assert list(json.loads(capsys.readouterr().out)["properties"]) == ["filename_prefix", "Wide"]
    assert call(folder, "inputs", "--all", "--json") == 0
    everything = [one["target"] for one in json.loads(capsys.readouterr().out)["inputs"]]
    assert everything[:2] == ["2.filename_prefix", "1.width"]
    assert "1.height" in everything
    assert len(set(everything)) == len(everything)
