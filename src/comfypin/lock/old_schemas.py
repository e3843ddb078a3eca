"""Reads schemas 1 and 2 as they exist in the field, and reports every loss.

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
from comfypin.lock import field_kinds as kinds
from comfypin.lock import schema3
from comfypin.lock.document import describe_value, json_path
from comfypin.lock.errors import LockFinding
from comfypin.lock.model import EngineSpec, Lock, ModelPin, NodePin, PackagePin, PythonPins, RepoPin
from comfypin.lock.schema3 import JsonObject, SchemaLock, SchemaObject, plain_json

# Old tools wrote local clones as bare paths.
_PATH_IS_FILE_URL = BeforeValidator(
    lambda value: f"file://{value}" if isinstance(value, str) and value[:1] == "/" else value
)
# They also wrote "" for what they did not know.
_EMPTY_IS_NONE = BeforeValidator(lambda value: None if value == "" else value)
Repo: TypeAlias = Annotated[kinds.RepoUrl | None, _PATH_IS_FILE_URL, _EMPTY_IS_NONE]
Checksum: TypeAlias = Annotated[
    str,
    kinds.TextKind(
        r"(?:[sS][hH][aA]256:)?[0-9a-fA-F]{64}|[mM][dD]5:[0-9a-fA-F]{32}",
        "a checksum is sha256:<64 hex digits> or md5:<32 hex digits>",
        str.lower,
    ),
]
# Keys that meant something only on the machine that wrote them: read, never used.
Anything: TypeAlias = object


class LegacyRepository(SchemaObject):
    """`comfyui` of schema 1 and `comfy` of schema 2."""

    successor = schema3.ComfyUI
    repo: Repo = None
    ref: Annotated[kinds.Ref | None, _EMPTY_IS_NONE] = None
    commit: Annotated[kinds.Ref | None, _EMPTY_IS_NONE] = None
    path: Anything = None

    def to_pin(self) -> RepoPin:
        return RepoPin(repo=self.repo, ref=self.ref, commit=self.commit, extra=self.unknown_keys())


class Comfy2(LegacyRepository):
    """`comfy` of schema 2, which must name its repository."""

    repo: Annotated[kinds.RepoUrl, _PATH_IS_FILE_URL]


def _parse_node_folder(raw_value: object) -> object:
    """Return the folder that `$COMFY_HOME/custom_nodes/NAME` or a bare NAME means; anything else is not a node's
    folder.
    """
    if raw_value is None or raw_value == "":
        return None
    # Other folders cannot be realized: ComfyUI looks for nodes nowhere else.
    folder_match = re.fullmatch(
        r"(?:(?:\$COMFY_HOME|\$\{COMFY_HOME\})/)?(?:custom_nodes/)?([^/\\]{1,255})/?", str(raw_value)
    )
    if not isinstance(raw_value, str) or folder_match is None or folder_match[1] in (".", ".."):
        raise PydanticCustomError("lock", "a node's folder is $COMFY_HOME/custom_nodes/NAME")
    return folder_match[1]


class LegacyNode(SchemaObject):
    """A custom node of schema 1 or 2."""

    successor = schema3.CustomNode
    name: Annotated[kinds.NodeFolder | None, _EMPTY_IS_NONE] = None
    repo: Repo = None
    ref: Annotated[kinds.Ref | None, _EMPTY_IS_NONE] = None
    commit: Annotated[kinds.Ref | None, _EMPTY_IS_NONE] = None
    path: Anything = None
    target_dir: Annotated[str | None, BeforeValidator(_parse_node_folder)] = None
    install_requirements: StrictBool | None = None

    def to_pin(self) -> NodePin:
        # Schema 1 allowed nodes without a name; the folder or the repository gives one.
        option_name = self.name or self.target_dir or clone_folder_name(self.repo) or "unnamed"
        return NodePin(
            name=option_name,
            repo=self.repo,
            ref=self.ref,
            commit=self.commit,
            directory=self.target_dir if self.target_dir != option_name else None,
            extra=self.unknown_keys(),
        )


def clone_folder_name(repo: str | None) -> str | None:
    """Return the folder that `git clone` would make for a repository's URL."""
    if not repo:
        return None
    last_part = re.split(r"[/:]", repo.rstrip("/"))[-1].removesuffix(".git")
    return last_part if last_part not in ("", ".", "..") else None


class RequiredNode(LegacyNode):
    """A custom node of schema 2, which must name its repository."""

    repo: Annotated[kinds.RepoUrl, _PATH_IS_FILE_URL]


class LegacyModel(SchemaObject):
    """A model of schema 1 or 2: one source, a place, sometimes a checksum."""

    successor = schema3.Model
    name: Annotated[kinds.Line | None, _EMPTY_IS_NONE] = None
    source: Annotated[kinds.Source | None, _EMPTY_IS_NONE] = None
    source_spec: Anything = None
    target_path: Annotated[kinds.TargetPath | None, _EMPTY_IS_NONE] = None
    path: Annotated[kinds.TargetPath | None, _EMPTY_IS_NONE] = None
    target_subdir: Annotated[kinds.TargetFolder | None, _EMPTY_IS_NONE] = None
    checksum: Annotated[Checksum | None, _EMPTY_IS_NONE] = None

    def to_pin(self) -> ModelPin:
        target = self._target_path()
        checksum = self.checksum or ""
        # An md5 proves nothing against intent, so it is kept for people and never verified.
        extra: dict[str, Json] = {
            **self.unknown_keys(),
            **({"checksum": checksum} if checksum.startswith("md5:") else {}),
        }
        return ModelPin(
            name=self.name or PurePosixPath(target).name,
            target_path=target,
            sha256=Digest.parse(checksum) if checksum and not checksum.startswith("md5:") else None,
            sources=(self.source,) if self.source else (),
            extra=extra,
        )

    def _target_path(self) -> str:
        """Return target_path (or its alias path), else target_subdir and the name, under the models folder."""
        if target := self.target_path or self.path:
            return target
        option_name = self.name or PurePosixPath(unquote(urlsplit(self.source or "").path)).name
        folder = self.target_subdir or "$MODELS_DIR"
        return f"{folder}/{PurePosixPath(option_name).name or 'unnamed'}"


class RequiredModel(LegacyModel):
    """A model of schema 2, which must name its source."""

    source: kinds.Source


class Package1(SchemaObject):
    """A package of schema 1: `name==version`, or `name @ url`."""

    successor = schema3.Package
    name: kinds.PackageName
    version: Annotated[kinds.PackageVersion | None, _EMPTY_IS_NONE] = None
    url: Annotated[kinds.Url | None, _EMPTY_IS_NONE] = None

    def to_pin(self) -> PackagePin | None:
        version = self.version or _wheel_version(self.url)
        return PackagePin(name=self.name, version=version, url=self.url, extra=self.unknown_keys()) if version else None


def _wheel_version(url: str | None) -> str | None:
    """Return the version in a wheel's file name (PEP 427), or None if the URL has none."""
    folder_match = re.fullmatch(
        r"[^-/]+-([0-9][^-/]*)(?:-[^/]*)?\.whl", unquote(urlsplit(url or "").path).rsplit("/", 1)[-1]
    )
    return folder_match[1] if folder_match else None


class Python1(SchemaObject):
    """The interpreter and the packages that schema 1 found on the machine it was made on."""

    successor = schema3.Python
    version: Annotated[kinds.PythonVersion | None, _EMPTY_IS_NONE] = None
    interpreter: Anything = None
    packages: Annotated[list[Package1], kinds.or_default(list), Field(default_factory=list)]

    def to_pins(self) -> PythonPins:
        pins = [package.to_pin() for package in self.packages]
        # Without a version there is nothing to pin; it stays as a requirement to resolve.
        unpinned_packages = [package for package, pin in zip(self.packages, pins, strict=True) if pin is None]
        return PythonPins(
            version=self.version,
            requirements=tuple(
                f"{unpinned.name} @ {unpinned.url}" if unpinned.url else unpinned.name for unpinned in unpinned_packages
            ),
            packages=tuple(pin for pin in pins if pin is not None),
            extra=self.unknown_keys(),
        )


class Lock1(SchemaLock):
    """A lock of schema 1; the models-only ones have neither a version nor a name."""

    successor = schema3.Lock3
    schema_version: Literal[1] = 1
    version_name: kinds.VersionName
    comfyui: LegacyRepository | None = None
    custom_nodes: Annotated[list[LegacyNode], kinds.or_default(list), Field(default_factory=list)]
    python: Python1 | None = None
    models: Annotated[list[LegacyModel], kinds.or_default(list), Field(default_factory=list)]

    def to_lock(self) -> Lock:
        return Lock(
            version_name=self.version_name,
            comfyui=self.comfyui.to_pin() if self.comfyui else None,
            custom_nodes=tuple(node_entry.to_pin() for node_entry in self.custom_nodes),
            python=self.python.to_pins() if self.python else PythonPins(),
            models=tuple(model_entry.to_pin() for model_entry in self.models),
            extra=self.unknown_keys(),
            read_from_schema=1,
        )


class Lock2(SchemaLock):
    """A version spec of schema 2, resolved or not. `python_packages` are arguments of pip, so they pin nothing."""

    successor = schema3.Lock3
    schema_version: Literal[2]
    version_id: kinds.VersionName
    comfy: Comfy2
    custom_nodes: Annotated[list[RequiredNode], kinds.or_default(list), Field(default_factory=list)]
    models: Annotated[list[RequiredModel], kinds.or_default(list), Field(default_factory=list)]
    python_packages: Annotated[list[kinds.Line], kinds.or_default(list), Field(default_factory=list)]
    env: Annotated[dict[kinds.VariableName, kinds.VariableValue], kinds.or_default(dict), Field(default_factory=dict)]
    options: Annotated[JsonObject, kinds.or_default(dict), Field(default_factory=dict)]

    def to_lock(self) -> Lock:
        # The only place where schema 2 could say which Python was meant.
        version = re.fullmatch(r"(?:.*/)?python(3\.\d{1,2})", self.env.get("COMFY_PYTHON", ""))
        return Lock(
            version_name=self.version_id,
            comfyui=self.comfy.to_pin(),
            custom_nodes=tuple(node_entry.to_pin() for node_entry in self.custom_nodes),
            python=PythonPins(
                version=version[1] if version else None,
                requirements=tuple(
                    requirement for requirement in self.python_packages if not requirement.startswith("-")
                ),
            ),
            models=tuple(model_entry.to_pin() for model_entry in self.models),
            engine=EngineSpec(
                env={
                    option_name: option_value
                    for option_name, option_value in self.env.items()
                    if option_name != "COMFY_PYTHON" or version is None
                }
            ),
            extra={**self.unknown_keys(), **({"options": options} if (options := self._unknown_options()) else {})},
            read_from_schema=2,
        )

    def _unknown_options(self) -> dict[str, Json]:
        return {
            option_name: plain_json(option_value)
            for option_name, option_value in self.options.items()
            if option_name not in ("offline", "skip_models")
        }

    def find_losses(self) -> Iterator[LockFinding]:
        """Report what schema 2 said and no lock can: arguments of pip, and choices that belong to one run."""
        for entry_index, requirement in enumerate(self.python_packages):
            if requirement.startswith("-"):
                found_at, found_text = f"$.python_packages[{entry_index}]", describe_value(requirement)
                yield _not_carried_over(
                    found_at, found_text, "a lock holds packages, not arguments of pip; this one is left out"
                )
        for option_name, raw_value in self.options.items():
            if option_name in ("offline", "skip_models") and raw_value:
                allowed = "choose this for each run (realize --offline); a lock does not hold it, so it is left out"
                yield _not_carried_over(f"$.options.{option_name}", describe_value(raw_value), allowed)
            elif option_name not in ("offline", "skip_models"):
                yield _not_carried_over(
                    json_path(("options", option_name)),
                    describe_value(raw_value),
                    "no option has this name; it is kept",
                )
        for entry_index, node_entry in enumerate(self.custom_nodes):
            if node_entry.install_requirements is False:
                allowed = "every node's requirements are part of one resolve; this is left out"
                yield _not_carried_over(f"$.custom_nodes[{entry_index}].install_requirements", "false", allowed)


def _not_carried_over(path: str, found: str, allowed: str) -> LockFinding:
    return LockFinding(rule="not-carried-over", path=path, found=found, allowed=allowed, severity="warning")
