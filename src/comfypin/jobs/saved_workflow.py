"""The workflow that ComfyUI writes into what a job saves: the user's own file, with the values that the job had."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from comfypin.digest import JsonValue
from comfypin.workflow.convert.build_prompt import ConvertedWorkflow, convert_workflow
from comfypin.workflow.convert.write_back import write_back
from comfypin.workflow.document import Document
from comfypin.workflow.errors import WorkflowInvalid
from comfypin.workflow.graph import ApiGraph
from comfypin.workflow.load import Workflow, choose_at_random
from comfypin.workflow.object_info import Catalogue

PNGINFO, WORKFLOW = "extra_pnginfo", "workflow"
_LEFT_OUT = (
    "The saved workflow cannot hold this job's values, so its files hold only the prompt: ComfyUI's page opens "
    "that, with the values that ran, and lays its nodes out anew."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraData:
    """A prompt's extra data, and a warning if the saved workflow was left out of it."""

    values: Mapping[str, JsonValue]
    warnings: tuple[str, ...] = ()


def with_values_of_job(
    extra_data: Mapping[str, JsonValue],
    workflow: Workflow,
    document: Document,
    catalogue: Catalogue,
    *,
    changed: ApiGraph,
    sent: ApiGraph,
    now: datetime,
) -> ExtraData:
    """Write a job's values into the workflow that goes into what it saves; leave out one that cannot hold them.

    `changed` is the workflow's graph with the job's values, before `fill_texts`; `sent` is the graph in the end.
    """
    pnginfo = extra_data.get(PNGINFO)
    saved = pnginfo.get(WORKFLOW) if isinstance(pnginfo, Mapping) else None
    # What has no nodes is no file of the page's, and nothing that a job changes is in it.
    if not isinstance(pnginfo, Mapping) or not isinstance(saved, Mapping) or "nodes" not in saved:
        return ExtraData(values=extra_data)
    # A caller who sends both formats, and changes nothing here, knows what belongs together.
    if document.format != "ui" and sent == workflow.fill_texts(workflow.graph, now):
        return ExtraData(values=extra_data)
    conversion = _convert_saved(saved, workflow, document, catalogue)
    written = (
        write_back(saved, conversion, catalogue, changed=changed, sent=sent, local_time=now) if conversion else None
    )
    if written is not None:
        return ExtraData(values={**extra_data, PNGINFO: {**pnginfo, WORKFLOW: written}})
    others = {name: value for name, value in pnginfo.items() if name != WORKFLOW}
    without = {name: value for name, value in extra_data.items() if name != PNGINFO}
    return ExtraData(values={**without, PNGINFO: others} if others else without, warnings=(_LEFT_OUT,))


def _convert_saved(
    saved: Mapping[str, JsonValue], workflow: Workflow, document: Document, catalogue: Catalogue
) -> ConvertedWorkflow | None:
    if workflow.conversion is not None and saved == document.content:
        return workflow.conversion
    try:
        return convert_workflow(saved, catalogue, choose=choose_at_random)
    except WorkflowInvalid:
        return None
