"""What workflows need, as far as they say it themselves: node packs, node classes, models (pure).

A workflow in UI format names its packs (`cnr_id`, `aux_id`, `ver`) and often its models with their addresses; one in
API format has only class names and file names. Nothing is guessed here: what is not said stays a name.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from comfypin.digest import Digest

CORE = "comfy-core"
# Nodes of the web page alone: they are gone before anything is executed.
_PAGE_ONLY = frozenset({"Note", "MarkdownNote", "Reroute", "PrimitiveNode"})
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.I)
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
class WantedModel:
    """A model file: its name, and its folder, address and digest where the workflow tells them."""

    name: str
    directory: str | None = None
    url: str | None = None
    sha256: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one or more workflows need; `classes` are those whose pack no workflow names."""

    core_versions: tuple[str, ...] = ()
    packs: tuple[WantedPack, ...] = ()
    classes: tuple[str, ...] = ()
    models: tuple[WantedModel, ...] = ()


@dataclass(slots=True)
class _Gathered:
    core: set[str] = field(default_factory=set)
    core_classes: set[str] = field(default_factory=set)
    packs: dict[tuple[str | None, str | None], tuple[set[str], set[str]]] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)
    models: dict[tuple[str, str | None], WantedModel] = field(default_factory=dict)


def gather(workflows: Iterable[tuple[str, Mapping[str, object]]]) -> Wanted:
    """What these workflows need: pairs of a format (`ui`, `api`) and the content."""
    gathered = _Gathered()
    for form, content in workflows:
        for node in _ui_nodes(content) if form == "ui" else _api_nodes(content):
            _gather_node(node, gathered)
        _gather_models(content.get("models"), gathered)
    claimed = gathered.core_classes.union(*(classes for _, classes in gathered.packs.values()))
    told = {model.name for model in gathered.models.values() if model.url}
    return Wanted(
        core_versions=tuple(sorted(gathered.core)),
        packs=tuple(
            WantedPack(cnr_id=cnr, aux_id=aux, versions=tuple(sorted(versions)), classes=tuple(sorted(classes)))
            for (cnr, aux), (versions, classes) in sorted(gathered.packs.items(), key=str)
        ),
        classes=tuple(sorted(gathered.classes - claimed)),
        models=tuple(
            model
            for _, model in sorted(gathered.models.items(), key=str)
            if model.url or model.name.replace("\\", "/").rpartition("/")[2] not in told
        ),
    )


def _ui_nodes(content: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Every node of a workflow and of its subgraphs; their instances are named by UUIDs and need nothing themselves."""
    definitions = content.get("definitions")
    subgraphs = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
    graphs = [content, *(item for item in _list(subgraphs) if isinstance(item, Mapping))]
    for graph in graphs:
        nodes = graph.get("nodes")
        listed = list(nodes.values()) if isinstance(nodes, Mapping) else _list(nodes)
        for node in listed:
            if isinstance(node, Mapping):
                yield node


def _api_nodes(content: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    for node in content.values():
        if isinstance(node, Mapping) and isinstance(node.get("class_type"), str):
            inputs = node.get("inputs")
            values = list(inputs.values()) if isinstance(inputs, Mapping) else []
            yield {"type": node["class_type"], "widgets_values": values}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _gather_node(node: Mapping[str, object], gathered: _Gathered) -> None:
    name = node.get("type")
    if not isinstance(name, str) or name in _PAGE_ONLY or _UUID.fullmatch(name) or name.startswith("workflow>"):
        return
    properties = node.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    cnr, aux, version = (_text(properties.get(key)) for key in ("cnr_id", "aux_id", "ver"))
    if cnr == CORE:
        gathered.core |= {version} if version else set()
        gathered.core_classes.add(name)
    elif cnr or aux:
        versions, classes = gathered.packs.setdefault((cnr, aux), (set(), set()))
        versions |= {version} if version else set()
        classes.add(name)
    else:
        gathered.classes.add(name)
    _gather_models(properties.get("models"), gathered)
    values = node.get("widgets_values")
    for value in _texts(values):
        if _MODEL_FILE.search(value) and "\n" not in value:
            gathered.models.setdefault((value, None), WantedModel(name=value))


def _texts(values: object) -> Iterator[str]:
    """Every text among a node's values, also in rows that a pack's own page script keeps (`{"lora": ...}`)."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping | list):
            waiting.extend(value.values() if isinstance(value, Mapping) else value)


def _gather_models(value: object, gathered: _Gathered) -> None:
    """`properties.models`: name, url, directory, sometimes a hash."""
    for item in _list(value):
        if not isinstance(item, Mapping) or not isinstance(name := item.get("name"), str):
            continue
        directory, url = _text(item.get("directory")), _text(item.get("url"))
        sha256 = None
        if str(item.get("hash_type", "")).upper() == "SHA256":
            try:
                sha256 = Digest.parse(str(item.get("hash")))
            except ValueError:
                sha256 = None
        model = WantedModel(name=name, directory=directory, url=url, sha256=sha256)
        known = gathered.models.get((name, directory))
        if known is None or not known.url:
            gathered.models[name, directory] = model


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def is_commit(version: str) -> bool:
    """Whether a pack's `ver` is a commit, and not a version of the registry."""
    return _COMMIT.fullmatch(version) is not None
