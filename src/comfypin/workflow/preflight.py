"""Check a graph against an engine's node list before anything is queued, and report all errors at once."""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace

from comfypin.digest import JsonValue
from comfypin.workflow.errors import WorkflowInvalid
from comfypin.workflow.findings import (
    MISSING_CLASS,
    WorkflowFinding,
    closest_names,
    did_you_mean,
    explain_unknown_class,
)
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode, NodeId
from comfypin.workflow.graph_walk import GraphWalk
from comfypin.workflow.input_checks import ClassValidation, InputRefusal, check_link, check_option, check_value
from comfypin.workflow.input_files import split_annotation
from comfypin.workflow.missing_pins import LockLike, SuspectPins, find_model_pin, find_pack_pin, find_suspects
from comfypin.workflow.node_inputs import OpenedInputs, open_inputs
from comfypin.workflow.object_info import Catalogue, InputSpec, is_core, is_output, names_file, output_types
from comfypin.workflow.without_models import gather_unknown_classes, spoken_findings

# Looking for similar names is the slowest check; after this many wrong names in a graph, none are suggested.
_NAMED_CLOSELY = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """The findings in the graph's order, and the outputs that ComfyUI would leave out while it runs others.

    Leaving some out is refused like any other error, unless the caller wants the valid outputs (`left_out`).
    """

    findings: tuple[WorkflowFinding, ...]
    dropped: tuple[NodeId, ...] = ()

    @property
    def errors(self) -> tuple[WorkflowFinding, ...]:
        """Return the findings for which the engine would refuse the prompt."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def left_out(self) -> tuple[str, ...]:
        """Return one sentence for each error of the outputs that ComfyUI would leave out; none if it runs no output."""
        if not self.dropped:
            return ()
        subject = f"The outputs of node {', '.join(self.dropped)} were left out: "
        return tuple(f"{subject}{str(finding).removesuffix(_dropped_hint(self.dropped))}" for finding in self.errors)

    def raise_if_refused(self, source: str) -> None:
        """Raise `WorkflowInvalid` if the engine would refuse the graph; the message holds the warnings too."""
        if self.errors:
            raise WorkflowInvalid(
                source=source,
                problems=[str(finding) for finding in spoken_findings(self.findings)],
                findings=[finding.to_json() for finding in self.findings],
            )


def run_preflight(
    graph: ApiGraph,
    catalogue: Catalogue,
    lock: LockLike | None = None,
    *,
    brought: Set[tuple[NodeId, str]] = frozenset(),
    packs: Mapping[NodeId, str] | None = None,
) -> Preflight:
    """Check a graph. `brought` are the inputs, as (node id, input name), whose files or models the job brings.
    `packs` names the node pack of each node, if the workflow says it.

    An error is what ComfyUI itself refuses, for all outputs or for some, or an option that ComfyUI lets pass although
    the node then fails. A warning is what a third-party class may still accept by its own validation.
    """
    return _GraphCheck(graph, catalogue, lock, brought, packs or {}).make_report()


class _GraphCheck:
    def __init__(
        self,
        graph: ApiGraph,
        catalogue: Catalogue,
        lock: LockLike | None,
        brought: Set[tuple[NodeId, str]],
        packs: Mapping[NodeId, str],
    ) -> None:
        self.packs = packs
        self.graph = graph
        self.catalogue = catalogue
        self.lock = lock
        self.brought = brought
        self.named = 0
        self.suspects: SuspectPins | None = None
        self.opened: dict[NodeId, OpenedInputs] = {}

    def make_report(self) -> Preflight:
        unknown_classes = tuple(
            self._unknown_class_finding(node)
            for node in self.graph.nodes.values()
            if self._find_definition(node) is None
        )
        outputs = [node.id for node in self.graph.nodes.values() if is_output(self._find_definition(node) or {})]
        unknown_classes = gather_unknown_classes(unknown_classes, self.catalogue)
        if not outputs:
            if unknown_classes:
                return Preflight(findings=unknown_classes)
            return Preflight(findings=(self._no_outputs_finding(),))
        # ComfyUI validates only what the outputs need, so nothing else is checked.
        graph_walk = GraphWalk.from_outputs(self.graph, outputs, self._checked_links)
        findings_by_node: dict[NodeId, list[WorkflowFinding]] = {}
        for node_id in graph_walk.reached:
            if (definition := self._find_definition(self.graph.nodes[node_id])) is not None:
                findings_by_node[node_id] = [*self._check_node(self.graph.nodes[node_id], definition)]
        for cycle in graph_walk.cycles:
            findings_by_node[cycle[0]].append(self._cycle_finding(cycle))
        wrong_nodes = {
            node_id
            for node_id, node_findings in findings_by_node.items()
            if any(node_finding.severity == "error" for node_finding in node_findings)
        }
        affected_nodes = graph_walk.depending_on(wrong_nodes)
        dropped = tuple(node_id for node_id in outputs if node_id in affected_nodes)
        ordered_findings = [finding for node_id in self.graph.nodes for finding in findings_by_node.get(node_id, ())]
        # ComfyUI drops single outputs for wrong inputs only; an unknown class makes it refuse the whole prompt.
        if len(dropped) < len(outputs) and not unknown_classes:
            return Preflight(findings=tuple(self._mention_dropped(ordered_findings, dropped)), dropped=dropped)
        return Preflight(findings=(*unknown_classes, *ordered_findings))

    def _find_definition(self, node: ApiNode) -> Mapping[str, JsonValue] | None:
        return self.catalogue.get(node.class_type)

    def _open_inputs(self, node: ApiNode) -> OpenedInputs:
        if node.id not in self.opened:
            self.opened[node.id] = open_inputs(self.catalogue.get(node.class_type, {}), node.inputs)
        return self.opened[node.id]

    def _checked_links(self, node: ApiNode) -> Iterator[NodeId]:
        opened_specs = self._open_inputs(node).specs
        # For a dynamic input of an unknown kind, whatever is below its name counts.
        unopened_names = {input_name for input_name, input_spec in opened_specs.items() if input_spec.is_dynamic}
        return (
            node_link.node_id
            for input_name, node_link in node.linked_inputs()
            if input_name in opened_specs or input_name.split(".")[0] in unopened_names
        )

    def _check_node(self, node: ApiNode, definition: Mapping[str, JsonValue]) -> Iterator[WorkflowFinding]:
        validation = ClassValidation.for_class(node.class_type, definition)
        opened_inputs = self._open_inputs(node)
        yield from self._check_unexpected(node, opened_inputs)
        for problem in opened_inputs.problems:
            refusal = check_option(problem, node.class_type)
            if refusal is not None:
                yield self._refusal_finding(node, problem.spec, problem.value, refusal)
        unopened = {problem.spec.name for problem in opened_inputs.problems}
        for input_spec in opened_inputs.specs.values():
            if input_spec.is_dynamic or input_spec.opens or input_spec.name in unopened:
                continue
            if input_spec.name not in node.inputs:
                if input_spec.category == "required":
                    message = f"it needs {input_spec.type}, and has neither a value nor a link"
                    yield self._make_finding(node, code="input_missing", message=message, input_name=input_spec.name)
                continue
            input_value = node.inputs[input_spec.name]
            refusal = (
                self._check_link(input_value, input_spec, is_core_class=validation.core)
                if isinstance(input_value, ApiLink)
                else self._check_value(node, input_value, input_spec, validation)
            )
            if refusal is not None:
                yield self._refusal_finding(node, input_spec, input_value, refusal)

    def _check_unexpected(self, node: ApiNode, opened_inputs: OpenedInputs) -> Iterator[WorkflowFinding]:
        """Check inputs that the class does not have; ComfyUI's validation ignores them."""
        for input_name, input_value in node.inputs.items():
            if input_name in opened_inputs.specs:
                continue
            if isinstance(input_value, ApiLink) and input_value.node_id not in self.graph.nodes:
                # The executor waits for ever for a node that is not there.
                message = _explain_missing_node(input_value)
                yield self._make_finding(node, code="bad_link", message=message, input_name=input_name)
            elif input_name in opened_inputs.unexpected:
                message = "its class has no such input with the chosen options, so the node ignores it"
                finding = self._make_finding(node, code="input_unexpected", message=message, input_name=input_name)
                if isinstance(input_value, ApiLink):
                    message = "its class has no such input with the chosen options, and the node fails because of it"
                    yield replace(finding, message=message)
                else:
                    yield replace(finding, severity="warning")

    def _check_link(self, node_link: ApiLink, input_spec: InputSpec, *, is_core_class: bool) -> InputRefusal | None:
        source = self.graph.nodes.get(node_link.node_id)
        if source is None:
            message = _explain_missing_node(node_link)
            return InputRefusal(code="bad_link", message=message, certain=True)
        definition = self._find_definition(source)
        if definition is None:
            return None
        return check_link(
            node_link, output_types(definition), input_spec, is_core_class=is_core_class and is_core(definition)
        )

    def _check_value(
        self, node: ApiNode, input_value: JsonValue, input_spec: InputSpec, validation: ClassValidation
    ) -> InputRefusal | None:
        # A model that a job brought: the engine's list may be older than the file.
        if (node.id, input_spec.name) in self.brought and isinstance(input_value, str):
            return None
        if names_file(node.class_type, input_spec) and isinstance(input_value, str):
            input_name, folder = split_annotation(input_value)
            if folder != "input" or "/" in input_name:
                return None
            if input_spec.choices is None or input_name in input_spec.choices:
                return None
            message = f"the file {input_name!r} is not among the job's files and not in the engine's input folder"
            # An empty name is the folder itself, which some load nodes let pass until they run.
            return InputRefusal(code="not_in_list", message=message, certain=validation.core and input_name != "")
        return check_value(input_value, input_spec, validation)

    def _refusal_finding(
        self, node: ApiNode, input_spec: InputSpec, input_value: object, refusal: InputRefusal
    ) -> WorkflowFinding:
        finding = self._make_finding(node, code=refusal.code, message=refusal.message, input_name=input_spec.name)
        if not refusal.certain:
            doubt_hint = " (the engine has the last word: the node may check this by itself)"
            finding = replace(finding, severity="warning", message=finding.message + doubt_hint)
        if refusal.code not in ("not_in_list", "option_unknown") or not isinstance(input_value, str):
            return finding
        if not input_spec.opens and not names_file(node.class_type, input_spec):
            finding = self._with_model_pin(finding, input_value)
        return self._with_closest(
            finding, input_value, [choice for choice in input_spec.choices or () if isinstance(choice, str)]
        )

    def _with_model_pin(self, finding: WorkflowFinding, input_value: str) -> WorkflowFinding:
        if self.lock is None or "." not in input_value:
            return finding
        lock_pin = find_model_pin(input_value, self.lock)
        if lock_pin is None:
            message = f"{finding.message}; no model pin of the release {self.lock.version_name} brings it"
            return replace(finding, message=message)
        missing_file = f"the model pin {lock_pin.name} ({lock_pin.target_path}) brings it, and its file is missing here"
        message = f"{finding.message}; {missing_file}"
        return replace(finding, pin=lock_pin.name, message=message)

    def _unknown_class_finding(self, node: ApiNode) -> WorkflowFinding:
        finding = self._make_finding(node, code="class_unknown", message=explain_unknown_class(node.class_type))
        node_pack = self.packs.get(node.id)
        if self.lock is not None:
            if node_pack is not None:
                finding = replace(finding, message=f"{finding.message}; its pack is {node_pack}")
            lock_pin, sentence = self._explain_missing_class(node_pack, self.lock)
            finding = replace(finding, pin=lock_pin, message=f"{finding.message}; {sentence}")
        elif finding.message == MISSING_CLASS:
            # Without a lock nobody knows a pin, and the engine is somebody's own ComfyUI.
            pack_name = "its node pack" if node_pack is None else f"the node pack {node_pack}"
            finding = replace(
                finding, message=f"ComfyUI here does not have the node {node.class_type}; install {pack_name}"
            )
        return self._with_closest(finding, node.class_type, self.catalogue)

    def _explain_missing_class(self, node_pack: str | None, release_lock: LockLike) -> tuple[str | None, str]:
        """Return the pin that should have brought a class, if it is known, and a sentence for people."""
        if node_pack is not None:
            lock_pin = find_pack_pin(node_pack, release_lock)
            if lock_pin is None:
                return None, f"no node pin of the release {release_lock.version_name} brings it"
            return (
                lock_pin.name,
                f"the pin {lock_pin.name} of the release {release_lock.version_name} brings it, and did not load",
            )
        # The same for every missing class, and it costs a look at each class of the engine: once is enough.
        if self.suspects is None:
            self.suspects = find_suspects(self.catalogue, release_lock)
        return self.suspects.explain_missing(release_lock.version_name)

    def _with_closest(
        self, finding: WorkflowFinding, unknown_name: str, existing_names: Iterable[str]
    ) -> WorkflowFinding:
        close_names = self._find_closest(unknown_name, existing_names)
        return replace(finding, closest=close_names, message=f"{finding.message}{did_you_mean(close_names)}")

    def _no_outputs_finding(self) -> WorkflowFinding:
        message = "it has no output node (such as SaveImage or PreviewImage), so there is nothing to run"
        return WorkflowFinding(code="no_outputs", message=message)

    def _cycle_finding(self, cycle: tuple[NodeId, ...]) -> WorkflowFinding:
        cycle_path = " -> ".join([*cycle[:12], *(["..."] if len(cycle) > 12 else []), cycle[0]])
        message = f"its inputs lead back to itself, so it can never run: {cycle_path}"
        return self._make_finding(self.graph.nodes[cycle[0]], code="cycle", message=message)

    def _mention_dropped(
        self, findings: list[WorkflowFinding], dropped: tuple[NodeId, ...]
    ) -> Iterator[WorkflowFinding]:
        hint = _dropped_hint(dropped)
        for finding in findings:
            yield replace(finding, message=finding.message + hint) if finding.severity == "error" else finding

    def _find_closest(self, unknown_name: str, existing_names: Iterable[str]) -> tuple[str, ...]:
        self.named += 1
        return closest_names(unknown_name, existing_names) if self.named <= _NAMED_CLOSELY else ()

    def _make_finding(
        self, node: ApiNode, *, code: str, message: str, input_name: str | None = None
    ) -> WorkflowFinding:
        return WorkflowFinding(
            code=code,
            message=message,
            node_id=node.id,
            title=node.title if node.title != node.class_type else None,
            class_type=node.class_type,
            input_name=input_name,
        )


def _dropped_hint(dropped: tuple[NodeId, ...]) -> str:
    return f" (ComfyUI would leave out the outputs of node {', '.join(dropped)}, and run the others)"


def _explain_missing_node(node_link: ApiLink) -> str:
    return f"it is linked to output {node_link.slot} of node {node_link.node_id}, and there is no such node"
