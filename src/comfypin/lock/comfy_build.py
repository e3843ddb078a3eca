"""Writes a lock as a comfy-build.yaml (comfy-build/1) for comfy-cli's `comfy build`, and says what it cannot hold
(pure).

The rules of the format are those that `comfy build validate` checks; `comfypin.locking.release_files.comfy_build` reads
it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from comfypin.lock.model import Lock, ModelPin, NodePin, PackagePin
from comfypin.lock.torch import find_torch_build

if TYPE_CHECKING:
    import yaml

SCHEMA = "comfy-build/1"
_GITHUB = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+?(?:\.git)?/?")
# The builder clones ComfyUI itself, from one of its two addresses.
_COMFYUI = re.compile(r"https://github\.com/(?:comfyanonymous|comfy-org)/comfyui(?:\.git)?/?", re.I)
_SAFE_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}(?<!\.)")
# Folders below models that the builder keeps for itself.
_RESERVED = frozenset({"configs", "custom_nodes"})
_HUB = re.compile(r"hf://(?P<repo>(?:datasets/|spaces/)?[^/]+/[^/@]+)@(?P<revision>[^/]+)/(?P<path>.+)")
# The builder reads at most this many.
MAX_ENTRIES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ComfyBuild:
    """The file's text, and a line for each thing of the lock that is not in it."""

    text: str
    left_out: tuple[str, ...]


def write_comfy_build(lock: Lock, packages: Iterable[PackagePin]) -> ComfyBuild:
    """Return the lock as a comfy-build.yaml, with the packages of one target."""
    package_pins = tuple(packages)
    left_out: list[str] = []
    nodes = list(_node_entries(lock.custom_nodes, left_out))
    models = list(_model_entries(lock.models, left_out))
    left_out += _unsaid_facts(lock)
    definition: dict[str, object] = {
        "schema": "distribution-definition/0",
        **({"baseComfyVersion": lock.comfyui.commit} if lock.comfyui and lock.comfyui.commit else {}),
        "models": sorted(models, key=lambda entry: (entry["type"], entry["filename"])),
        "customNodes": sorted(nodes, key=lambda entry: entry["name"]),
        "pipDependencies": "".join(f"{line}\n" for line in _package_lines(package_pins)),
        "environment": _environment(lock, package_pins),
    }
    document = {
        "schema": SCHEMA,
        "id": None,
        "name": lock.version_name,
        "description": "",
        "syncedRevision": None,
        "definition": definition,
    }
    return ComfyBuild(text=_dump(document), left_out=tuple(left_out))


def _node_entries(node_pins: Iterable[NodePin], left_out: list[str]) -> Iterator[dict[str, str]]:
    for node_pin in node_pins:
        if node_pin.archive is not None and node_pin.ref:
            yield {"name": node_pin.folder, "id": node_pin.name, "registryVersion": node_pin.ref}
        elif node_pin.repo and node_pin.commit and _GITHUB.fullmatch(node_pin.repo):
            repository = node_pin.repo.rstrip("/").removesuffix(".git")
            yield {"name": node_pin.folder, "repository": repository, "gitRef": node_pin.commit}
        else:
            left_out.append(
                f"the node {node_pin.folder}: the builder takes repositories of GitHub and registry packs only"
            )
            continue
        if node_pin.patch:
            left_out.append(f"the changes of the node {node_pin.folder}, which the lock holds as a diff")


def _model_entries(model_pins: Iterable[ModelPin], left_out: list[str]) -> Iterator[dict[str, str]]:
    for model_pin in model_pins:
        root, _, inner = model_pin.target_path.partition("/")
        folder, _, filename = inner.rpartition("/")
        address = next(filter(None, map(_https_address, model_pin.sources)), None)
        if address is None:
            left_out.append(f"the model {model_pin.target_path}: it has no source at an https:// address")
        elif root != "$MODELS_DIR" or not _is_safe(folder) or not _SAFE_SEGMENT.fullmatch(filename):
            left_out.append(f"the model {model_pin.target_path}: the builder takes no such path")
        else:
            digest = {"sha256": model_pin.sha256.hex} if model_pin.sha256 else {}
            yield {"type": folder, "filename": filename, "sourceUri": address, **digest}


def _is_safe(folder: str) -> bool:
    parts = PurePosixPath(folder).parts
    return bool(parts) and parts[0].lower() not in _RESERVED and all(map(_SAFE_SEGMENT.fullmatch, parts))


def _https_address(source: str) -> str | None:
    if match := _HUB.fullmatch(source):
        path = quote(unquote(match["path"]))
        return f"https://huggingface.co/{match['repo']}/resolve/{quote(match['revision'], safe='')}/{path}"
    return source if source.startswith("https://") else None


def _unsaid_facts(lock: Lock) -> Iterator[str]:
    comfyui = lock.comfyui
    if comfyui is not None and not _COMFYUI.fullmatch(comfyui.repo or ""):
        yield f"ComfyUI's repository {comfyui.repo}: the builder takes the commit from ComfyUI's own"
    if comfyui is not None and comfyui.patch:
        yield "the changes of ComfyUI, which the lock holds as a diff"
    if lock.system_packages:
        yield f"the Debian packages {', '.join(lock.system_packages)}"
    if lock.engine.args:
        yield f"the engine's arguments {' '.join(lock.engine.args)}"
    yield "the packages' files and their sha256: the file names versions"


def _package_lines(package_pins: tuple[PackagePin, ...]) -> Iterator[str]:
    hosts = Counter(urlsplit(pin.url).netloc for pin in package_pins if pin.url and not pin.url.startswith("git+"))
    index_host = hosts.most_common(1)[0][0] if hosts else ""
    for pin in sorted(package_pins, key=lambda pin: pin.name.lower()):
        marker = f" ; {pin.marker}" if pin.marker else ""
        # Most come from one index. What does not is named by its address, or the builder would not find it.
        from_index = pin.url is None or urlsplit(pin.url).netloc == index_host
        yield f"{pin.name}=={pin.version}{marker}" if from_index else f"{pin.name} @ {pin.url}{marker}"


def _environment(lock: Lock, package_pins: tuple[PackagePin, ...]) -> Mapping[str, str | None]:
    """Return where the packages were resolved for; the builder ignores it, people do not."""
    target = next(iter(lock.python.targets), "linux-x86_64")
    system, machine = target.split("-")[:2]
    torch = next((pin.version for pin in package_pins if pin.name == "torch"), None)
    build = find_torch_build(package_pins)
    return {
        "os": system.capitalize(),
        "arch": machine,
        "pythonVersion": lock.python.version,
        "torch": f"{torch}+{build}" if torch and build and "+" not in torch else torch,
    }


def _dump(document: object) -> str:
    import yaml

    class BlockDumper(yaml.SafeDumper):
        """Writes texts of several lines as a block, as comfy-cli does."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    def represent_text(dumper: "yaml.SafeDumper", text: str) -> "yaml.ScalarNode":
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    BlockDumper.add_representer(str, represent_text)
    return yaml.dump(document, Dumper=BlockDumper, sort_keys=False, allow_unicode=True, width=4096)
