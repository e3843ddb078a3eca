"""Where page 1.58.1 differs from 1.49.6 on the same engine: which of the two is followed, and where neither."""

import json
from pathlib import Path
from typing import Any

import pytest

from comfypin.workflow.convert.build_prompt import convert_workflow
from comfypin.workflow.errors import WorkflowInvalid
from tests.conftest import SHARED
from tests.support.conversions import RECORDED_AT, catalogue_beside, differences

FOLDER = SHARED / "captures" / "comfyui-0.33" / "probes"
OLDER, NEWER = "1496", "1581"

# Probes for which the two pages differ; in all others both must be met.
FOLLOWED: dict[str, str | None] = {
    # A row of `links` connects an open input; the first of several counts.
    "p_ag_same_slot": NEWER,
    "p_link_two_rows_no_ref": NEWER,
    "p_sg_two_links_out_b": NEWER,
    # An input that names a row is believed, whatever the row says.
    "p_link_same_row_slot": OLDER,
    # Lists within an option keep all their wires.
    "p_dc_ag_5": OLDER,
    # A curve goes out as it is saved.
    "p_curve_null": OLDER,
    "p_wrapped_values": OLDER,
    # A null in an old promoted value is a hole.
    "p_sg_null_seed": OLDER,
    # What is no text in a field of several lines becomes one.
    "p_str_number": NEWER,
    # List links need the version that has them; the newer page loses them in silence.
    "p_links_null_version": OLDER,
    # A node of a missing class has no title of its own.
    "p_meta_ids": OLDER,
    # Values saved as an object are read by name, by no page.
    "p_dict_full_ksampler": NEWER,
    "p_dict_dyncombo": None,
    "p_dict_null": None,
    "p_dict_partial": None,
    "p_sg_dict": None,
    "p_sg_proxy_dict": None,
}
NAMES = sorted(path.stem for path in FOLDER.glob("*.json")) or ["none"]


def ours(ui: dict[str, Any]) -> Any:
    try:
        return convert_workflow(ui, catalogue_beside("0.33.0"), choose=lambda options: options[0]).to_api(RECORDED_AT)
    except WorkflowInvalid:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_the_better_of_two_pages_is_followed(name: str, captures: Path) -> None:
    probe = json.loads((captures / "comfyui-0.33" / "probes" / f"{name}.json").read_text())
    sent = ours(probe["ui"])
    followed = FOLLOWED.get(name, "both")
    for page in (OLDER, NEWER):
        expected = probe[f"api_page_{page}"]
        same = sent is expected if None in (sent, expected) else not differences(sent, expected)
        assert same == (followed in (page, "both"))
