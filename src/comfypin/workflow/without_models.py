"""Recognise an engine that has none of ComfyUI's nodes that need a model, and say so once instead of node by node."""

from collections.abc import Iterable, Sequence

from comfypin.workflow.findings import WorkflowFinding
from comfypin.workflow.object_info import Catalogue

ENGINE_WITHOUT_MODELS = "engine_without_models"
# Every ComfyUI has these in its nodes.py, whatever is installed: an engine without them is the embedded one.
_IN_EVERY_COMFYUI = frozenset(
    {
        *("KSampler", "KSamplerAdvanced", "CheckpointLoaderSimple", "CLIPTextEncode", "VAEDecode", "VAEEncode"),
        *("VAELoader", "CLIPLoader", "UNETLoader", "LoraLoader", "ControlNetLoader", "EmptyLatentImage"),
    }
)
# Enough to see what kind of workflow it is.
_SHOWN_CLASSES = 6


def gather_unknown_classes(findings: Sequence[WorkflowFinding], catalogue: Catalogue) -> tuple[WorkflowFinding, ...]:
    """Return the findings, led by one that says that the engine runs no models, if that is what is wrong.

    The findings of single nodes stay, for machines; `spoken_findings` leaves them out of what people read.
    """
    unknown = list(dict.fromkeys(finding.class_type or "" for finding in findings if finding.code == "class_unknown"))
    # One of them must be wanted, too: a misspelt name is no reason to look for another engine.
    if _IN_EVERY_COMFYUI.isdisjoint(unknown) or any(class_name in catalogue for class_name in _IN_EVERY_COMFYUI):
        return tuple(findings)
    class_list = ", ".join(unknown[:_SHOWN_CLASSES])
    more = f" and {len(unknown) - _SHOWN_CLASSES} more" if len(unknown) > _SHOWN_CLASSES else ""
    message = (
        "this is the embedded engine, which tries things out with nodes that need no model; it does not have "
        f"{class_list}{more}: this workflow needs a real ComfyUI"
    )
    return (WorkflowFinding(code=ENGINE_WITHOUT_MODELS, message=message), *findings)


def spoken_findings(findings: Iterable[WorkflowFinding]) -> list[WorkflowFinding]:
    """Return the findings that people read: one about the engine says all of its unknown classes."""
    spoken = list(findings)
    if all(finding.code != ENGINE_WITHOUT_MODELS for finding in spoken):
        return spoken
    return [finding for finding in spoken if finding.code != "class_unknown"]
