"""`--warmup`: which workflow a lock keeps for the start of its workers."""

import argparse
import json
from pathlib import Path

import pytest

from comfypin.cli.lock.common import add_warmup_flags, read_warmup
from comfypin.lock.model import EngineSpec
from comfypin.workflow.errors import WorkflowNotFound
from tests.support.graphs import picture


def read(*flags: str, default: Path | None = None) -> EngineSpec:
    parser = argparse.ArgumentParser()
    add_warmup_flags(parser)
    return read_warmup(parser.parse_args(flags), EngineSpec(args=("--fast",)), default=default)


def a_workflow(tmp_path: Path) -> Path:
    """A whole request, whose other parts may hold keys."""
    path = tmp_path / "w.json"
    path.write_text(json.dumps({"prompt": picture().to_api(), "extra_data": {"api_key_comfy_org": "hunter2"}}))
    return path


def test_the_lock_keeps_the_graph_and_nothing_else_of_the_file(tmp_path: Path) -> None:
    spec = read("--warmup", str(a_workflow(tmp_path)))
    assert spec == EngineSpec(args=("--fast",), warmup=picture().to_api())


def test_a_default_is_taken_unless_another_one_is_named(tmp_path: Path) -> None:
    assert read(default=a_workflow(tmp_path)).warmup == picture().to_api()


def test_without_any_the_lock_has_none() -> None:
    assert read().warmup is None


def test_the_size_goes_into_the_lock(tmp_path: Path) -> None:
    assert read("--warmup", str(a_workflow(tmp_path)), "--warmup-size", "full").warmup_size == "full"


def test_a_workflow_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkflowNotFound, match=r"none\.json"):
        read("--warmup", str(tmp_path / "none.json"))
