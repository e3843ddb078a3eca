"""Overrides whose node the workflow lacks, judged before a job is sent."""

import pytest

from comfypin.workflow.document import Document, to_document
from comfypin.workflow.errors import OverrideInvalid
from comfypin.workflow.override_nodes import require_override_nodes
from comfypin.workflow.overrides import parse_override

API = to_document(
    {
        "3": {"class_type": "KSampler", "inputs": {"seed": 1}, "_meta": {"title": "v1.5 sampler"}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ""}},
    },
    source="api.json",
)
UI = to_document(
    {
        "nodes": [{"id": 3, "type": "KSampler", "title": "4"}, {"id": 9, "type": "b2c5"}],
        "links": [],
        "definitions": {"subgraphs": [{"id": "b2c5", "nodes": [{"id": 12, "type": "CLIPTextEncode"}]}]},
    },
    source="ui.json",
)


@pytest.mark.parametrize(
    ("document", "assignment"),
    [
        (API, "7.text=cat"),
        (API, "7.not_judged_here=cat"),
        (API, "KSampler.seed=random"),
        (API, "v1.5 sampler.seed=2"),
        (API, "no dot=2"),
        (UI, "3.seed=2"),
        (UI, "4.seed=2"),
        (UI, "12.text=cat"),
        (UI, "9:12.text=cat"),
        (UI, "Any title.text=cat"),
    ],
)
def test_a_node_that_may_be_there_is_accepted(document: Document, assignment: str) -> None:
    require_override_nodes(document, [parse_override(assignment)])


@pytest.mark.parametrize(
    ("document", "assignment", "reason"),
    [
        (API, "6.text=cat", "no node with the id, title or class '6'; it has 3 (v1.5 sampler), 7 (CLIPTextEncode)"),
        (API, "KSamler.seed=2", "did you mean 'KSampler'"),
        (UI, "6.text=cat", "the workflow has no node 6"),
    ],
)
def test_a_node_that_the_workflow_lacks_is_refused(document: Document, assignment: str, reason: str) -> None:
    with pytest.raises(OverrideInvalid) as caught:
        require_override_nodes(document, [parse_override(assignment)])
    assert reason in caught.value.message
