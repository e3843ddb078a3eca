"""Describes schema 3 as it stands in a file: pydantic models that check it, and that docs/lock.schema.json is generated
from.
"""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool
from pydantic.json_schema import GenerateJsonSchema

from comfypin.digest import Digest
from comfypin.digest import JsonValue as Json
from comfypin.lock import field_kinds as kinds
from comfypin.lock.errors import LockFinding
from comfypin.lock.model import EngineSpec, Lock, ModelPin, NodePin, PackagePin, PythonPins, RepoPin, VariantChoice

JsonObject = dict[str, JsonValue]


class SchemaObject(BaseModel):
    """One JSON object of the file. Unknown keys are kept, and the codec warns of them."""

    # Errors must not repeat input: a lock may hold a secret by mistake. Strict: "1" is no number.
    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True, protected_namespaces=())
    # Set on old schemas: a key that only their successor knows is an error there.
    successor: ClassVar[type["SchemaObject"] | None] = None

    def unknown_keys(self) -> dict[str, Json]:
        """Return the keys that this schema does not know, as plain values."""
        return {key_name: plain_json(value) for key_name, value in (self.model_extra or {}).items()}


class SchemaLock(SchemaObject):
    """A whole file of any schema."""

    def to_lock(self) -> Lock:
        """Return the frozen lock."""
        raise NotImplementedError

    def find_losses(self) -> Iterable[LockFinding]:
        """Report what the file says and the lock does not hold."""
        return ()


def plain_json(raw_value: object) -> Json:
    """Return a JSON value made of plain dicts, lists and scalars."""
    if isinstance(raw_value, dict):
        return {str(key_name): plain_json(inner_value) for key_name, inner_value in raw_value.items()}
    if isinstance(raw_value, list):
        return [plain_json(inner_value) for inner_value in raw_value]
    return cast("Json", raw_value)


class ComfyUI(SchemaObject):
    """ComfyUI itself: a git repository at one commit."""

    repo: kinds.RepoUrl | None = None
    ref: kinds.Ref | None = None
    commit: kinds.Ref | None = None
    patch: kinds.Text | None = None

    def to_pin(self) -> RepoPin:
        return RepoPin(repo=self.repo, ref=self.ref, commit=self.commit, patch=self.patch, extra=self.unknown_keys())


class CustomNode(SchemaObject):
    """A custom node pack: a git repository at one commit, or an archive of the node registry."""

    name: kinds.NodeFolder
    repo: kinds.RepoUrl | None = None
    ref: kinds.Ref | None = None
    commit: kinds.Ref | None = None
    directory: kinds.NodeFolder | None = None
    install_script: Literal["run", "skip"] = "skip"
    install_script_sha256: kinds.Sha256 | None = None
    archive: kinds.HttpUrl | None = None
    sha256: kinds.Sha256 | None = None
    patch: kinds.Text | None = None

    def to_pin(self) -> NodePin:
        return NodePin(
            name=self.name,
            repo=self.repo,
            ref=self.ref,
            commit=self.commit,
            directory=self.directory,
            install_script=self.install_script,
            install_script_sha256=_optional_digest(self.install_script_sha256),
            archive=self.archive,
            sha256=_optional_digest(self.sha256),
            patch=self.patch,
            extra=self.unknown_keys(),
        )


class Package(SchemaObject):
    """A Python distribution at one version, with the digests that its file may have."""

    name: kinds.PackageName
    version: kinds.PackageVersion
    url: kinds.Url | None = None
    sha256: Annotated[list[kinds.Sha256], Field(default_factory=list)]
    index: kinds.HttpUrl | None = None
    marker: kinds.Line | None = None
    target: kinds.TargetName | None = None

    def to_pin(self) -> PackagePin:
        return PackagePin(
            name=self.name,
            version=self.version,
            url=self.url,
            # The field's kind has checked and lowered it, so this cannot fail.
            sha256=tuple(Digest(hex_text) for hex_text in self.sha256),
            index=self.index,
            marker=self.marker,
            target=self.target,
            extra=self.unknown_keys(),
        )


class Variant(SchemaObject):
    """Which of several distributions that bring the same import packages is installed."""

    name: kinds.PackageName
    imports: Annotated[list[kinds.Line], Field(default_factory=list)]
    replaces: Annotated[list[kinds.PackageName], Field(default_factory=list)]
    overwrites: Annotated[list[kinds.PackageName], Field(default_factory=list)]
    platforms: Annotated[list[kinds.TargetName], Field(default_factory=list)]

    def to_choice(self) -> VariantChoice:
        return VariantChoice(
            name=self.name,
            imports=tuple(self.imports),
            replaces=tuple(self.replaces),
            overwrites=tuple(self.overwrites),
            platforms=tuple(self.platforms),
            extra=self.unknown_keys(),
        )


class Python(SchemaObject):
    """The interpreter, the targets that packages were resolved for, and the packages."""

    version: kinds.PythonVersion | None = None
    targets: Annotated[dict[kinds.TargetName, JsonObject], Field(default_factory=dict)]
    requirements: Annotated[list[kinds.Line], Field(default_factory=list)]
    overrides: Annotated[list[kinds.Line], Field(default_factory=list)]
    dropped: Annotated[list[kinds.Line], Field(default_factory=list)]
    indexes: Annotated[list[kinds.Url], Field(default_factory=list)]
    variants: Annotated[list[Variant], Field(default_factory=list)]
    libraries: Annotated[dict[kinds.Line, list[kinds.PackageName]], Field(default_factory=dict)]
    packages: Annotated[list[Package], Field(default_factory=list)]

    def to_pins(self) -> PythonPins:
        return PythonPins(
            version=self.version,
            targets={target: cast("dict[str, Json]", plain_json(facts)) for target, facts in self.targets.items()},
            requirements=tuple(self.requirements),
            overrides=tuple(self.overrides),
            dropped=tuple(self.dropped),
            indexes=tuple(self.indexes),
            variants=tuple(variant.to_choice() for variant in self.variants),
            libraries={library: tuple(packages) for library, packages in self.libraries.items()},
            packages=tuple(package_entry.to_pin() for package_entry in self.packages),
            extra=self.unknown_keys(),
        )


class Model(SchemaObject):
    """A model file: where it goes, its sha256 and size, and where its bytes may come from."""

    name: kinds.Line
    target_path: kinds.TargetPath
    sha256: kinds.Sha256 | None = None
    size_bytes: kinds.SizeBytes | None = None
    sources: Annotated[list[kinds.Source], Field(default_factory=list)]
    allow_pickle: StrictBool = False

    def to_pin(self) -> ModelPin:
        return ModelPin(
            name=self.name,
            target_path=self.target_path,
            sha256=_optional_digest(self.sha256),
            size_bytes=self.size_bytes,
            sources=tuple(self.sources),
            allow_pickle=self.allow_pickle,
            extra=self.unknown_keys(),
        )


class EngineEntry(SchemaObject):
    """What runs prompts."""

    kind: Literal["comfyui", "remote", "embedded"] = "comfyui"
    args: Annotated[list[kinds.Argument], Field(default_factory=list)]
    env: Annotated[dict[kinds.VariableName, kinds.VariableValue], Field(default_factory=dict)]
    warmup: JsonObject | None = None
    warmup_size: Literal["smallest", "full"] = "smallest"
    url: kinds.HttpUrl | None = None

    def to_spec(self) -> EngineSpec:
        return EngineSpec(
            kind=self.kind,
            args=tuple(self.args),
            env=dict(self.env),
            warmup=None if self.warmup is None else cast("dict[str, Json]", plain_json(self.warmup)),
            warmup_size=self.warmup_size,
            url=self.url,
            extra=self.unknown_keys(),
        )


class Lock3(SchemaLock):
    """A comfypin lock, schema 3: every byte of a ComfyUI release that can change a picture."""

    schema_version: Literal[3]
    version_name: kinds.VersionName
    comfyui: ComfyUI | None = None
    custom_nodes: Annotated[list[CustomNode], Field(default_factory=list)]
    python: Annotated[Python, Field(default_factory=lambda: Python.model_validate({}))]
    models: Annotated[list[Model], Field(default_factory=list)]
    system_packages: Annotated[list[kinds.SystemPackage], Field(default_factory=list)]
    engine: Annotated[EngineEntry, Field(default_factory=lambda: EngineEntry.model_validate({}))]

    def to_lock(self) -> Lock:
        return Lock(
            version_name=self.version_name,
            comfyui=self.comfyui.to_pin() if self.comfyui else None,
            custom_nodes=tuple(node_entry.to_pin() for node_entry in self.custom_nodes),
            python=self.python.to_pins(),
            models=tuple(model_entry.to_pin() for model_entry in self.models),
            system_packages=tuple(self.system_packages),
            engine=self.engine.to_spec(),
            extra=self.unknown_keys(),
        )


class _LockSchema(GenerateJsonSchema):
    schema_dialect = "https://json-schema.org/draft/2020-12/schema"


def lock_json_schema() -> dict[str, Json]:
    """Return the JSON Schema of version 3, as docs/lock.schema.json holds it."""
    schema = Lock3.model_json_schema(mode="validation", schema_generator=_LockSchema)
    return {
        "$schema": _LockSchema.schema_dialect,
        "title": "comfypin lock, schema 3",
        **cast("dict[str, Json]", schema),
    }


def _optional_digest(hex_text: str | None) -> Digest | None:
    return None if hex_text is None else Digest(hex_text)
