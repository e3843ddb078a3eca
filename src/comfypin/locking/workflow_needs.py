"""Collects what workflows need, as far as they say it themselves: node packs, node classes, models (pure).

A workflow in UI format names its packs (`cnr_id`, `aux_id`, `ver`) and often its models with their addresses; one in
API format has only class names and file names. Nothing is guessed here: what is not said stays a name.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from comfypin.digest import Digest

CORE_PACK = "comfy-core"
# Nodes of the web page alone: they are gone before anything is executed.
_PAGE_ONLY = frozenset({"Note", "MarkdownNote", "Reroute", "PrimitiveNode"})
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
# In API format a model is only a text that looks like one.
_MODEL_FILE = re.compile(r"(?i)\.(safetensors|sft|ckpt|pth?|bin|gguf|onnx)$")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedPack:
    """A node pack that workflows name: by the registry's id or a GitHub `owner/repo`, in one or several versions."""

    cnr_id: str | None
    aux_id: str | None
    versions: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def label(self) -> str:
        return self.cnr_id or self.aux_id or "a pack without a name"


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededModel:
    """A model file: its name, and its folder, URL and digest if the workflow names them."""

    name: str
    directory: str | None = None
    url: str | None = None
    sha256: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowNeeds:
    """What one or more workflows need; `classes` are those whose pack no workflow names."""

    core_versions: tuple[str, ...] = ()
    packs: tuple[WantedPack, ...] = ()
    classes: tuple[str, ...] = ()
    models: tuple[NeededModel, ...] = ()


@dataclass(slots=True)
class _CollectedNeeds:
    core: set[str] = field(default_factory=set)
    core_classes: set[str] = field(default_factory=set)
    packs: dict[tuple[str | None, str | None], tuple[set[str], set[str]]] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)
    models: dict[tuple[str, str | None], NeededModel] = field(default_factory=dict)


def collect_needs(workflows: Iterable[tuple[str, Mapping[str, object]]]) -> WorkflowNeeds:
    """Return what these workflows need: pairs of a format (`ui`, `api`) and the content."""
    collected_needs = _CollectedNeeds()
    for form, content in workflows:
        for node in _list_ui_nodes(content) if form == "ui" else _list_api_nodes(content):
            _collect_node(node, collected_needs)
        _collect_models(content.get("models"), collected_needs)
    # A class that one workflow assigns to a pack is known for all of them.
    claimed = collected_needs.core_classes.union(*(classes for _, classes in collected_needs.packs.values()))
    # A file named twice, once with its address, is one model.
    models_with_url = {model.name for model in collected_needs.models.values() if model.url}
    return WorkflowNeeds(
        core_versions=tuple(sorted(collected_needs.core)),
        packs=tuple(
            WantedPack(cnr_id=cnr, aux_id=aux, versions=tuple(sorted(versions)), classes=tuple(sorted(classes)))
            for (cnr, aux), (versions, classes) in sorted(collected_needs.packs.items(), key=str)
        ),
        classes=tuple(sorted(collected_needs.classes - claimed)),
        models=tuple(
            model
            for _, model in sorted(collected_needs.models.items(), key=str)
            if model.url or model.name.replace("\\", "/").rpartition("/")[2] not in models_with_url
        ),
    )


def _list_ui_nodes(content: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield every node of a workflow and of its subgraphs; subgraph instances (named by UUIDs) need nothing
    themselves.
    """
    definitions = content.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    graphs = [content, *(raw_entry for raw_entry in _as_list(subgraphs) if isinstance(raw_entry, Mapping))]
    for graph in graphs:
        nodes = graph.get("nodes")
        listed = list(nodes.values()) if isinstance(nodes, Mapping) else _as_list(nodes)
        for workflow_node in listed:
            if isinstance(workflow_node, Mapping):
                yield workflow_node


def _list_api_nodes(content: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    for workflow_node in content.values():
        if isinstance(workflow_node, Mapping) and isinstance(workflow_node.get("class_type"), str):
            inputs = workflow_node.get("inputs")
            values = list(inputs.values()) if isinstance(inputs, Mapping) else []
            yield {"type": workflow_node["class_type"], "widgets_values": values}


def _as_list(raw_value: object) -> list[object]:
    return raw_value if isinstance(raw_value, list) else []


def _collect_node(workflow_node: Mapping[str, object], collected_needs: _CollectedNeeds) -> None:
    class_name = workflow_node.get("type")
    # "workflow>" marks group nodes, which are made of other nodes.
    if (
        not isinstance(class_name, str)
        or class_name in _PAGE_ONLY
        or _UUID.fullmatch(class_name)
        or class_name.startswith("workflow>")
    ):
        return
    properties = workflow_node.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    registry_id, github_id, version = (_text_or_none(properties.get(key)) for key in ("cnr_id", "aux_id", "ver"))
    if registry_id == CORE_PACK:
        collected_needs.core |= {version} if version else set()
        collected_needs.core_classes.add(class_name)
    elif registry_id or github_id:
        versions, classes = collected_needs.packs.setdefault((registry_id, github_id), (set(), set()))
        versions |= {version} if version else set()
        classes.add(class_name)
    else:
        collected_needs.classes.add(class_name)
    _collect_models(properties.get("models"), collected_needs)
    values = workflow_node.get("widgets_values")
    for raw_value in _list_texts(values):
        if _MODEL_FILE.search(raw_value) and "\n" not in raw_value:
            collected_needs.models.setdefault((raw_value, None), NeededModel(name=raw_value))


def _list_texts(values: object) -> Iterator[str]:
    """Yield every text among a node's values, also in rows that a pack's own page script keeps (`{"lora": ...}`)."""
    waiting = [values]
    while waiting:
        raw_value = waiting.pop()
        if isinstance(raw_value, str):
            yield raw_value
        elif isinstance(raw_value, Mapping | list):
            waiting.extend(raw_value.values() if isinstance(raw_value, Mapping) else raw_value)


def _collect_models(value: object, collected_needs: _CollectedNeeds) -> None:
    """Read `properties.models`: name, url, directory, sometimes a hash."""
    for raw_entry in _as_list(value):
        if not isinstance(raw_entry, Mapping) or not isinstance(model_name := raw_entry.get("name"), str):
            continue
        directory, url = _text_or_none(raw_entry.get("directory")), _text_or_none(raw_entry.get("url"))
        sha256 = None
        if str(raw_entry.get("hash_type", "")).upper() == "SHA256":
            try:
                sha256 = Digest.parse(str(raw_entry.get("hash")))
            except ValueError:
                sha256 = None
        model = NeededModel(name=model_name, directory=directory, url=url, sha256=sha256)
        known_model = collected_needs.models.get((model_name, directory))
        # The first entry with an address wins; one without it learns from a later one.
        if known_model is None or not known_model.url:
            collected_needs.models[model_name, directory] = model


def _text_or_none(raw_value: object) -> str | None:
    return raw_value if isinstance(raw_value, str) and raw_value.strip() else None


def is_commit_version(version: str) -> bool:
    """Return whether a pack's `ver` is a commit, not a version of the registry."""
    return _COMMIT.fullmatch(version) is not None
