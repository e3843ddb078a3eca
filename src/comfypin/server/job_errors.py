"""Why a job failed, as one job shows it: the family of the failure, what to do about it, where, and the log. Pure."""

from collections.abc import Mapping

from comfypin.digest import JsonValue
from comfypin.workflow.errors import WorkflowInvalid
from comfypin.workflow.without_models import ENGINE_WITHOUT_MODELS

_REMEDIES: Mapping[str, str] = {
    "workflow": "Correct what is named and send the job again. The page and POST /workflow-check say what fits here.",
    "engine": "The engine is started again by itself: retry the job. If it ends again, the log says with what.",
    "prompt": "Look at the inputs of the node that is named, and at the log. The same job fails the same way.",
    "output": "The outputs were made and not brought to their place. Correct what is named, then retry the job.",
    "storage": "The bucket refused or was out of reach: check its address and keys (`comfypin doctor`), then retry.",
    "model": "Check the model's address, its sha256, and that the server has room for it, then retry the job.",
    "http": "The address could not be fetched: check that this server may reach it, then retry the job.",
    "time": "Give the job more time (`policy.executionTimeout`, `policy.ttl`, `timeout_s`) or less to do, and retry.",
    "interrupted": "Somebody stopped the engine's prompt; retry the job.",
    "lost": "The engine forgot the prompt, as it does when it starts again; retry the job.",
    "mistake": "This is a mistake of comfypin. Its log has the cause; please report it.",
    "memory": "The memory was too small: take a smaller picture, fewer frames or a smaller batch, then retry.",
    "other": "Retry the job; if it fails again, the server's log has more.",
}
_REMEDIES_BY_NAME: Mapping[str, str] = {
    "DeadlineExceeded": "time",
    "JobTimedOut": "time",
    "PromptInterrupted": "interrupted",
    "PromptLost": "lost",
    "JobBroken": "mistake",
}
_MEMORY_SIGNS = ("out of memory", "outofmemory", "cannot allocate memory", "can't allocate memory")
# The end of an engine's log says what happened; the beginning is its start.
_MOST_LINES = 200


def error_details(output: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return what a failed job's result says beside the name and the message of the error."""
    facts = output.get("error_facts")
    facts = facts if isinstance(facts, Mapping) else {}
    family = output.get("error_family")
    return {
        "family": family if isinstance(family, str) else "internal",
        "remedy": _REMEDIES[(remedy_name := _remedy_name(output))],
        "remedy_name": remedy_name,
        "node_id": _text(facts.get("node_id")),
        "class_type": _text(facts.get("class_type")),
        "findings": _findings(output, facts),
        "log": _log_lines(output, facts),
    }


def _findings(output: Mapping[str, JsonValue], facts: Mapping[str, JsonValue]) -> list[JsonValue]:
    """Return what is wrong with a workflow as `/workflow-check` does, else the sentences of a longer list."""
    found, sentences = facts.get("findings"), output.get("details")
    if output.get("error_type") == WorkflowInvalid.__name__ and isinstance(found, list):
        findings = [finding for finding in found if isinstance(finding, Mapping)]
        is_without_models = any(finding.get("code") == ENGINE_WITHOUT_MODELS for finding in findings)
        # One finding about the engine says all of its unknown classes.
        return [one for one in findings if not (is_without_models and one.get("code") == "class_unknown")]
    return sentences if isinstance(sentences, list) and len(sentences) > 1 else []


def _remedy_name(output: Mapping[str, JsonValue]) -> str:
    """Return which remedy it is: pages say it in their own language."""
    error_text = f"{output.get('error')} {output.get('error_traceback') or ''}".lower()
    if any(sign in error_text for sign in _MEMORY_SIGNS):
        return "memory"
    by_name = _REMEDIES_BY_NAME.get(str(output.get("error_type")))
    family = str(output.get("error_family"))
    return by_name or (family if family in _REMEDIES else "other")


def _log_lines(output: Mapping[str, JsonValue], facts: Mapping[str, JsonValue]) -> list[JsonValue]:
    """Return the end of the engine's log, or else the frames of the node that failed."""
    tail, traceback = facts.get("log_tail"), output.get("error_traceback")
    if isinstance(tail, list) and tail:
        return tail[-_MOST_LINES:]
    lines: list[JsonValue] = [*traceback.splitlines()] if isinstance(traceback, str) else []
    return lines[-_MOST_LINES:]


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None
