"""What can be wrong with a workflow, as values: all findings of a step go into one report."""

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from comfypin.digest import JsonValue
from comfypin.workflow.errors import WorkflowInvalid
from comfypin.workflow.graph import NodeId

Severity = Literal["error", "warning"]

_SUBGRAPH_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# A name longer than this is not misspelt, and comparing it would only cost time.
_COMPARED_CHARACTERS = 120
# Bounds the time of one sentence: a folder may hold any number of files.
_COMPARED_NAMES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFinding:
    """One thing that is wrong: a stable `code`, one sentence, and the node and input that it is about.

    `closest` are existing names near to the one that was used; `pin` is the lock's pin that should have brought it.
    An `error` stops the workflow; a `warning` is what an engine may still accept.
    """

    code: str
    message: str
    node_id: NodeId | None = None
    title: str | None = None
    class_type: str | None = None
    input_name: str | None = None
    closest: tuple[str, ...] = ()
    pin: str | None = None
    severity: Severity = "error"

    def to_json(self) -> dict[str, JsonValue]:
        """Return the finding as JSON; keys without a value are left out."""
        facts: dict[str, JsonValue] = {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "node": self.node_id,
            "title": self.title,
            "class_type": self.class_type,
            "input": self.input_name,
            "closest": list(self.closest) or None,
            "pin": self.pin,
        }
        return {field_name: value for field_name, value in facts.items() if value is not None}

    def __str__(self) -> str:
        return f"{self.location_prefix}{self.message}"

    @property
    def location_prefix(self) -> str:
        """Return `node 6 (KSampler, "Main"), input seed: `, or nothing if the finding is about the whole workflow."""
        if self.node_id is None:
            return ""
        location_names = ", ".join(
            part for part in (self.class_type, f'"{self.title}"' if self.title is not None else None) if part
        )
        node = f"node {self.node_id}" + (f" ({location_names})" if location_names else "")
        return f"{node}, input {self.input_name}: " if self.input_name is not None else f"{node}: "


def closest_names(word: str, names: Iterable[str], *, count: int = 3) -> tuple[str, ...]:
    """Return the existing names nearest to a word, best first, whatever their case and slashes."""
    if len(word) > _COMPARED_CHARACTERS:
        return ()
    by_key: dict[str, str] = {}
    for number, candidate in enumerate(names):
        if number >= _COMPARED_NAMES:
            break
        if len(candidate) <= _COMPARED_CHARACTERS:
            by_key.setdefault(_comparison_key(candidate), candidate)
    # 0.6 is difflib's own cutoff.
    close_keys = difflib.get_close_matches(_comparison_key(word), by_key, n=count, cutoff=0.6)
    # The right file in another folder is more likely meant than a similar name in the same one.
    same_file = [
        comparison_key
        for comparison_key in by_key
        if comparison_key.rsplit("/", 1)[-1] == _comparison_key(word).rsplit("/", 1)[-1]
    ]
    return tuple(by_key[comparison_key] for comparison_key in dict.fromkeys([*same_file, *close_keys]))[:count]


def did_you_mean(names: tuple[str, ...]) -> str:
    """Return `; did you mean "a" or "b"?`, or nothing if there is no name to suggest."""
    return f"; did you mean {' or '.join(repr(candidate) for candidate in names)}?" if names else ""


MISSING_CLASS = "the engine has no such node class"


def explain_unknown_class(class_type: str) -> str:
    """Explain that the engine does not have a node's class, and what to do about it."""
    if class_type.startswith(("workflow/", "workflow>")):
        return "it is a group node of older ComfyUI: convert it to nodes or to a subgraph there, and save again"
    if _SUBGRAPH_ID.fullmatch(class_type):
        return "it is a subgraph that the file does not define: save the workflow again where it works"
    return MISSING_CLASS


def raise_if_errors(source: str, findings: Iterable[WorkflowFinding]) -> None:
    """Raise one `WorkflowInvalid` with every error among the findings; warnings alone pass."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise WorkflowInvalid(
            source=source,
            problems=[str(finding) for finding in errors],
            findings=[finding.to_json() for finding in errors],
        )


def show_value(value: object, *, width: int = 80) -> str:
    """Show a value in a sentence: on one line, and cut if it is long."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    shown_text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else repr(value)
    return shown_text if len(shown_text) <= width else f"{shown_text[: width - 1]}…"


def _comparison_key(candidate: str) -> str:
    return candidate.replace("\\", "/").casefold()
