"""Failures of a workflow, or of what a job asks of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comfypin.errors import WorkflowError, declare

# A hostile graph may have a finding a node; a person reads the first ones, a machine gets the count.
_SHOWN = 40
# A list of a thousand models hides the sentence; the closest come first.
_ALLOWED_SHOWN = 12


@declare
class WorkflowNotFound(WorkflowError):
    """The workflow file does not exist or cannot be read."""

    template = "The workflow {path} cannot be read: {reason}; {advice}"
    path: str
    reason: str
    near: tuple[str, ...] = ()
    _instead: str = "give a JSON file that ComfyUI saved or exported."

    @property
    def advice(self) -> str:
        """Return the names that are near, else what to give."""
        return f"did you mean {' or '.join(self.near)}?" if self.near else self._instead


@declare
class WorkflowUnreadable(WorkflowError):
    """The bytes are not a workflow."""

    template = "The workflow {source} cannot be read: {reason}. {_advice}."
    command_hint = "{_hint}"
    source: str
    reason: str
    _hint: str = ""
    _advice: str = "Save it in ComfyUI with Workflow > Save, or export it with Workflow > Export (API)"


class WorkflowInvalid(WorkflowError):
    """The workflow has errors; the message names all of them at once."""

    def __init__(self, *, source: str, problems: Sequence[str], findings: Sequence[Mapping[str, object]]) -> None:
        things = "1 thing is" if len(problems) == 1 else f"{len(problems)} things are"
        super().__init__(
            f"The workflow {source} cannot run as it stands; {things} wrong:{_list_problems(problems)}",
            source=source,
            findings=list(findings[:_SHOWN]),
            count=len(findings),
        )
        if any(finding.get("code") == "not_in_list" and finding.get("pin") for finding in findings):
            self.command_hint = "comfypin models pull fetches the missing models."
        if any(finding.get("code") == "engine_without_models" for finding in findings):
            self.command_hint = (
                "\nRun it on a ComfyUI of your own: --comfy-home ~/ComfyUI starts one, "
                "--engine-url http://127.0.0.1:8188 takes one that runs."
            )
        self.findings = tuple(findings)
        self.problems = tuple(problems)


@declare
class OverrideInvalid(WorkflowError):
    """A `--set` or `--input` does not say what it changes, or changes something that does not exist."""

    template = "{override}: {reason}"
    override: str
    reason: str


@declare
class InputFileInvalid(WorkflowError):
    """The file that a load node names cannot be used."""

    template = "The input file {name!r} cannot be used: {reason}"
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProblem:
    """One problem that the engine has with a node: its code, the input, what it got and what it allows.

    `allowed` is a list of names, or `(minimum, maximum)` if `problem` is about a range; None if unknown.
    """

    node_id: str
    class_type: str
    problem: str
    message: str
    input_name: str | None = None
    received: object = None
    allowed: tuple[object, ...] | None = None

    def __str__(self) -> str:
        location = f"node {self.node_id} ({self.class_type})"
        location += f", input {self.input_name}" if self.input_name else ""
        return f"{location}: {self.message}{self._received_text()}{self._allowed_text()}"

    def to_json(self) -> dict[str, object]:
        """Return the problem as JSON; unknown facts are left out."""
        facts = {
            "node": self.node_id,
            "class_type": self.class_type,
            "code": self.problem,
            "message": self.message,
            "input": self.input_name,
            "received": self.received,
            "allowed": None if self.allowed is None else list(self.allowed),
        }
        return {field_name: value for field_name, value in facts.items() if value is not None}

    def _received_text(self) -> str:
        return "" if self.received is None else f"; it got {str(self.received)[:80]!r}"

    def _allowed_text(self) -> str:
        if not self.allowed:
            return ""
        if self.problem in ("value_bigger_than_max", "value_smaller_than_min"):
            return f"; allowed: {' to '.join(str(bound) for bound in self.allowed)}"
        names = ", ".join(str(value) for value in self.allowed[:_ALLOWED_SHOWN])
        more = len(self.allowed) - _ALLOWED_SHOWN
        return f"; allowed: {names}" + (f" and {more} more" if more > 0 else "")


class WorkflowRejected(WorkflowError):
    """The engine refused the workflow, so nothing of it runs. `problems` holds all that the engine named.

    `dropped` are the output nodes that it refused, if it would have run the others.
    """

    def __init__(self, *, reason: str, problems: Sequence[NodeProblem] = (), dropped: Sequence[str] = ()) -> None:
        super().__init__(
            f"The engine refused the workflow: {reason.rstrip('.')}.{_list_problems(problems)}",
            reason=reason,
            findings=[problem.to_json() for problem in problems[:_SHOWN]],
            count=len(problems),
        )
        self.reason = reason
        self.problems = tuple(problems)
        self.dropped = tuple(dropped)

    @property
    def node_errors(self) -> dict[str, str]:
        """Return what is wrong with each node, in one sentence a node."""
        sentences: dict[str, list[str]] = {}
        for problem in self.problems:
            sentences.setdefault(problem.node_id, []).append(problem.message)
        return {node_id: "; ".join(messages) for node_id, messages in sentences.items()}


@declare
class InputsFileInvalid(WorkflowError):
    """The file that names a workflow's inputs is wrong; the message names all mistakes at once."""

    template = "The inputs file {source} cannot be used:{listed_problems}"
    source: str
    problems: Sequence[str]

    @property
    def listed_problems(self) -> str:
        """Return the first problems as lines of the message."""
        return _list_problems(self.problems)


def _list_problems(problems: Sequence[object]) -> str:
    lines = "".join(f"\n  - {problem}" for problem in problems[:_SHOWN])
    return f"{lines}\n  - and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else lines
