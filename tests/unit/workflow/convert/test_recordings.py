"""Every recorded conversion of ComfyUI's own page, and what we say where the page itself failed."""

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from comfypin.errors.workflow import WorkflowInvalid
from comfypin.workflow.convert.graph import convert
from comfypin.workflow.load import pack_of
from tests.conftest import SHARED

RECORDED_AT = datetime(2025, 3, 4, 5, 6, 7)
FOLDER = SHARED / "captures" / "convert"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "object_info") or ["none"]


@cache
def object_info() -> dict[str, Any]:
    return json.loads((FOLDER / "object_info.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NAMES)
def test_a_conversion_is_the_pages(name: str, captures: Path) -> None:
    recorded = json.loads((captures / "convert" / f"{name}.json").read_text())
    if recorded["api"] is None:
        with pytest.raises(WorkflowInvalid) as caught:
            convert(recorded["ui"], object_info(), choose=lambda options: options[0])
        assert caught.value.findings
        return
    conversion = convert(recorded["ui"], object_info(), choose=lambda options: options[0])
    assert conversion.to_api(RECORDED_AT) == recorded["api"]
    missing = {finding.class_type for finding in conversion.unknown}
    assert missing <= set(recorded["missing_node_types"])


def test_a_saved_node_names_its_pack() -> None:
    assert pack_of({"cnr_id": "comfyui-kjnodes"}) == "comfyui-kjnodes"
    assert pack_of({"aux_id": "owner/repo"}) == "owner/repo"
    assert pack_of({"cnr_id": "comfy-core"}) is None
