"""Schemas 1 and 2 as they exist in the field: read as they are written, with every loss said.

Machine-specific keys (`path`, `interpreter`, cache paths) are dropped: they never meant anything elsewhere. What a
schema cannot pin stays unpinned in the Lock, and `comfypin.lock.check` says so.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field, StrictBool
from pydantic_core import PydanticCustomError

from comfypin.digest import Digest
from comfypin.digest import JsonValue as Json
from comfypin.lock import field_kinds as f
from comfypin.lock import schema3
from comfypin.lock.document import describe, json_path
from comfypin.lock.errors import Finding
from comfypin.lock.model import EngineSpec, Lock, ModelPin, NodePin, PackagePin, PythonPins, RepoPin
from comfypin.lock.schema3 import JsonObject, Wire, WireLock, plain

_REPO = BeforeValidator(lambda value: f"file://{value}" if isinstance(value, str) and value[:1] == "/" else value)
_EMPTY = BeforeValidator(lambda value: None if value == "" else value)
Repo: TypeAlias = Annotated[f.RepoUrl | None, _REPO, _EMPTY]
Checksum: TypeAlias = Annotated[
    str,
    f.Kind(
        r"(?:[sS][hH][aA]256:)?[0-9a-fA-F]{64}|[mM][dD]5:[0-9a-fA-F]{32}",
        "a checksum is sha256:<64 hex digits> or md5:<32 hex digits>",
        str.lower,
    ),
]
Anything: TypeAlias = object


class Repository(Wire):
    """`comfyui` of schema 1 and `comfy` of schema 2."""

    successor = schema3.ComfyUI
    repo: Repo = None
    ref: Annotated[f.Ref | None, _EMPTY] = None
    commit: Annotated[f.Ref | None, _EMPTY] = None
    path: Anything = None

    def pin(self) -> RepoPin:
        return RepoPin(repo=self.repo, ref=self.ref, commit=self.commit, extra=self.extras())


class Comfy2(Repository):
    """`comfy` of schema 2, which must name its repository."""

    repo: Annotated[f.RepoUrl, _REPO]


def _node_folder(value: object) -> object:
    """`$COMFY_HOME/custom_nodes/NAME` (or a bare NAME) is the folder NAME; anything else is not a node's place."""
    if value is None or value == "":
        return None
    match = re.fullmatch(r"(?:(?:\$COMFY_HOME|\$\{COMFY_HOME\})/)?(?:custom_nodes/)?([^/\\]{1,255})/?", str(value))
    if not isinstance(value, str) or match is None or match[1] in (".", ".."):
        raise PydanticCustomError("lock", "a node's folder is $COMFY_HOME/custom_nodes/NAME")
    return match[1]


class LegacyNode(Wire):
    """A custom node of schema 1 or 2."""

    successor = schema3.CustomNode
    name: Annotated[f.NodeFolder | None, _EMPTY] = None
    repo: Repo = None
    ref: Annotated[f.Ref | None, _EMPTY] = None
    commit: Annotated[f.Ref | None, _EMPTY] = None
    path: Anything = None
    target_dir: Annotated[str | None, BeforeValidator(_node_folder)] = None
    install_requirements: StrictBool | None = None

    def pin(self) -> NodePin:
        name = self.name or self.target_dir or repo_name(self.repo) or "unnamed"
        return NodePin(
            name=name,
            repo=self.repo,
            ref=self.ref,
            commit=self.commit,
            directory=self.target_dir if self.target_dir != name else None,
            extra=self.extras(),
        )


def repo_name(repo: str | None) -> str | None:
    """The folder that `git clone` would make for a repository's URL."""
    if not repo:
        return None
    last = re.split(r"[/:]", repo.rstrip("/"))[-1].removesuffix(".git")
    return last if last not in ("", ".", "..") else None


class RequiredNode(LegacyNode):
    """A custom node of schema 2, which must name its repository."""

    repo: Annotated[f.RepoUrl, _REPO]


class LegacyModel(Wire):
    """A model of schema 1 or 2: one source, a place, sometimes a checksum."""

    successor = schema3.Model
    name: Annotated[f.Line | None, _EMPTY] = None
    source: Annotated[f.Source | None, _EMPTY] = None
    source_spec: Anything = None
    target_path: Annotated[f.TargetPath | None, _EMPTY] = None
    path: Annotated[f.TargetPath | None, _EMPTY] = None
    target_subdir: Annotated[f.TargetFolder | None, _EMPTY] = None
    checksum: Annotated[Checksum | None, _EMPTY] = None

    def pin(self) -> ModelPin:
        target = self._target()
        checksum = self.checksum or ""
        extra: dict[str, Json] = {**self.extras(), **({"checksum": checksum} if checksum.startswith("md5:") else {})}
        return ModelPin(
            name=self.name or PurePosixPath(target).name,
            target_path=target,
            sha256=Digest.parse(checksum) if checksum and not checksum.startswith("md5:") else None,
            sources=(self.source,) if self.source else (),
            extra=extra,
        )

    def _target(self) -> str:
        """target_path (or its alias path), else target_subdir and the name, under the models folder."""
        if target := self.target_path or self.path:
            return target
        name = self.name or PurePosixPath(unquote(urlsplit(self.source or "").path)).name
        folder = self.target_subdir or "$MODELS_DIR"
        return f"{folder}/{PurePosixPath(name).name or 'unnamed'}"


class RequiredModel(LegacyModel):
    """A model of schema 2, which must name its source."""

    source: f.Source


class Package1(Wire):
    """A package of schema 1: `name==version`, or `name @ url`."""

    successor = schema3.Package
    name: f.PackageName
    version: Annotated[f.PackageVersion | None, _EMPTY] = None
    url: Annotated[f.Url | None, _EMPTY] = None

    def pin(self) -> PackagePin | None:
        version = self.version or _version_in(self.url)
        return PackagePin(name=self.name, version=version, url=self.url, extra=self.extras()) if version else None


def _version_in(url: str | None) -> str | None:
    """The version in a wheel's file name (PEP 427), where a URL has one."""
    match = re.fullmatch(r"[^-/]+-([0-9][^-/]*)(?:-[^/]*)?\.whl", unquote(urlsplit(url or "").path).rsplit("/", 1)[-1])
    return match[1] if match else None


class Python1(Wire):
    """The interpreter and the packages that schema 1 found on the machine it was made on."""

    successor = schema3.Python
    version: Annotated[f.PythonVersion | None, _EMPTY] = None
    interpreter: Anything = None
    packages: Annotated[list[Package1], f.or_default(list), Field(default_factory=list)]

    def pins(self) -> PythonPins:
        pins = [package.pin() for package in self.packages]
        loose = [package for package, pin in zip(self.packages, pins, strict=True) if pin is None]
        return PythonPins(
            version=self.version,
            requirements=tuple(f"{item.name} @ {item.url}" if item.url else item.name for item in loose),
            packages=tuple(pin for pin in pins if pin is not None),
            extra=self.extras(),
        )


class Lock1(WireLock):
    """A lock of schema 1; the models-only ones have neither a version nor a name."""

    successor = schema3.Lock3
    schema_version: Literal[1] = 1
    version_name: f.VersionName
    comfyui: Repository | None = None
    custom_nodes: Annotated[list[LegacyNode], f.or_default(list), Field(default_factory=list)]
    python: Python1 | None = None
    models: Annotated[list[LegacyModel], f.or_default(list), Field(default_factory=list)]

    def lock(self) -> Lock:
        return Lock(
            version_name=self.version_name,
            comfyui=self.comfyui.pin() if self.comfyui else None,
            custom_nodes=tuple(node.pin() for node in self.custom_nodes),
            python=self.python.pins() if self.python else PythonPins(),
            models=tuple(model.pin() for model in self.models),
            extra=self.extras(),
            read_from_schema=1,
        )


class Lock2(WireLock):
    """A version spec of schema 2, resolved or not. `python_packages` are arguments of pip, so they pin nothing."""

    successor = schema3.Lock3
    schema_version: Literal[2]
    version_id: f.VersionName
    comfy: Comfy2
    custom_nodes: Annotated[list[RequiredNode], f.or_default(list), Field(default_factory=list)]
    models: Annotated[list[RequiredModel], f.or_default(list), Field(default_factory=list)]
    python_packages: Annotated[list[f.Line], f.or_default(list), Field(default_factory=list)]
    env: Annotated[dict[f.VariableName, f.VariableValue], f.or_default(dict), Field(default_factory=dict)]
    options: Annotated[JsonObject, f.or_default(dict), Field(default_factory=dict)]

    def lock(self) -> Lock:
        version = re.fullmatch(r"(?:.*/)?python(3\.\d{1,2})", self.env.get("COMFY_PYTHON", ""))
        return Lock(
            version_name=self.version_id,
            comfyui=self.comfy.pin(),
            custom_nodes=tuple(node.pin() for node in self.custom_nodes),
            python=PythonPins(
                version=version[1] if version else None,
                requirements=tuple(line for line in self.python_packages if not line.startswith("-")),
            ),
            models=tuple(model.pin() for model in self.models),
            engine=EngineSpec(
                env={name: value for name, value in self.env.items() if name != "COMFY_PYTHON" or version is None}
            ),
            extra={**self.extras(), **({"options": options} if (options := self._unknown_options()) else {})},
            read_from_schema=2,
        )

    def _unknown_options(self) -> dict[str, Json]:
        return {name: plain(value) for name, value in self.options.items() if name not in ("offline", "skip_models")}

    def losses(self) -> Iterator[Finding]:
        """What schema 2 said and no lock can: arguments of pip, and choices that belong to one run."""
        for index, line in enumerate(self.python_packages):
            if line.startswith("-"):
                path, found = f"$.python_packages[{index}]", describe(line)
                yield _dropped(path, found, "a lock holds packages, not arguments of pip; this one is left out")
        for name, value in self.options.items():
            if name in ("offline", "skip_models") and value:
                allowed = "this is said for each run (realize --offline), not in a lock; it is left out"
                yield _dropped(f"$.options.{name}", describe(value), allowed)
            elif name not in ("offline", "skip_models"):
                yield _dropped(json_path(("options", name)), describe(value), "no option has this name; it is kept")
        for index, node in enumerate(self.custom_nodes):
            if node.install_requirements is False:
                allowed = "every node's requirements are part of one resolve; this is left out"
                yield _dropped(f"$.custom_nodes[{index}].install_requirements", "false", allowed)


def _dropped(path: str, found: str, allowed: str) -> Finding:
    return Finding(rule="not-carried-over", path=path, found=found, allowed=allowed, severity="warning")
