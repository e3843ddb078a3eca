"""Schema 3 as it stands in a file: pydantic models that check it, and that docs/lock.schema.json is generated from."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool
from pydantic.json_schema import GenerateJsonSchema

from comfypin.digest import Digest
from comfypin.digest import JsonValue as Json
from comfypin.lock import field_kinds as f
from comfypin.lock.errors import Finding
from comfypin.lock.model import EngineSpec, Lock, ModelPin, NodePin, PackagePin, PythonPins, RepoPin

JsonObject = dict[str, JsonValue]


class Wire(BaseModel):
    """An object of the file. Unknown keys are kept, and warned of by the codec."""

    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True, protected_namespaces=())
    successor: ClassVar[type["Wire"] | None] = None

    def extras(self) -> dict[str, Json]:
        """The keys that this schema does not know, as plain values."""
        return {key: plain(value) for key, value in (self.model_extra or {}).items()}


class WireLock(Wire):
    """A whole file of any schema."""

    def lock(self) -> Lock:
        """The frozen lock."""
        raise NotImplementedError

    def losses(self) -> Iterable[Finding]:
        """What the file says and the lock does not hold."""
        return ()


def plain(value: object) -> Json:
    """A JSON value of plain dicts, lists and scalars."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return cast("Json", value)


class ComfyUI(Wire):
    """ComfyUI itself: a git repository at one commit."""

    repo: f.RepoUrl | None = None
    ref: f.Ref | None = None
    commit: f.Ref | None = None
    patch: f.Text | None = None

    def pin(self) -> RepoPin:
        return RepoPin(repo=self.repo, ref=self.ref, commit=self.commit, patch=self.patch, extra=self.extras())


class CustomNode(Wire):
    """A custom node pack: a git repository at one commit, or an archive of the node registry."""

    name: f.NodeFolder
    repo: f.RepoUrl | None = None
    ref: f.Ref | None = None
    commit: f.Ref | None = None
    directory: f.NodeFolder | None = None
    install_script: Literal["run", "skip"] = "skip"
    install_script_sha256: f.Sha256 | None = None
    archive: f.HttpUrl | None = None
    sha256: f.Sha256 | None = None
    patch: f.Text | None = None

    def pin(self) -> NodePin:
        return NodePin(
            name=self.name,
            repo=self.repo,
            ref=self.ref,
            commit=self.commit,
            directory=self.directory,
            install_script=self.install_script,
            install_script_sha256=_digest(self.install_script_sha256),
            archive=self.archive,
            sha256=_digest(self.sha256),
            patch=self.patch,
            extra=self.extras(),
        )


class Package(Wire):
    """A Python distribution at one version, with the digests that its file may have."""

    name: f.PackageName
    version: f.PackageVersion
    url: f.Url | None = None
    sha256: Annotated[list[f.Sha256], Field(default_factory=list)]
    index: f.HttpUrl | None = None
    marker: f.Line | None = None
    target: f.TargetName | None = None

    def pin(self) -> PackagePin:
        return PackagePin(
            name=self.name,
            version=self.version,
            url=self.url,
            sha256=tuple(Digest(text) for text in self.sha256),
            index=self.index,
            marker=self.marker,
            target=self.target,
            extra=self.extras(),
        )


class Python(Wire):
    """The interpreter, the targets that packages were resolved for, and the packages."""

    version: f.PythonVersion | None = None
    targets: Annotated[dict[f.TargetName, JsonObject], Field(default_factory=dict)]
    requirements: Annotated[list[f.Line], Field(default_factory=list)]
    overrides: Annotated[list[f.Line], Field(default_factory=list)]
    dropped: Annotated[list[f.Line], Field(default_factory=list)]
    indexes: Annotated[list[f.Url], Field(default_factory=list)]
    packages: Annotated[list[Package], Field(default_factory=list)]

    def pins(self) -> PythonPins:
        return PythonPins(
            version=self.version,
            targets={name: cast("dict[str, Json]", plain(facts)) for name, facts in self.targets.items()},
            requirements=tuple(self.requirements),
            overrides=tuple(self.overrides),
            dropped=tuple(self.dropped),
            indexes=tuple(self.indexes),
            packages=tuple(package.pin() for package in self.packages),
            extra=self.extras(),
        )


class Model(Wire):
    """A model file: where it goes, its sha256 and size, and where its bytes may come from."""

    name: f.Line
    target_path: f.TargetPath
    sha256: f.Sha256 | None = None
    size_bytes: f.SizeBytes | None = None
    sources: Annotated[list[f.Source], Field(default_factory=list)]
    allow_pickle: StrictBool = False

    def pin(self) -> ModelPin:
        return ModelPin(
            name=self.name,
            target_path=self.target_path,
            sha256=_digest(self.sha256),
            size_bytes=self.size_bytes,
            sources=tuple(self.sources),
            allow_pickle=self.allow_pickle,
            extra=self.extras(),
        )


class Engine(Wire):
    """What runs prompts."""

    kind: Literal["comfyui", "remote", "embedded"] = "comfyui"
    args: Annotated[list[f.Argument], Field(default_factory=list)]
    env: Annotated[dict[f.VariableName, f.VariableValue], Field(default_factory=dict)]
    warmup: JsonObject | None = None
    url: f.HttpUrl | None = None

    def spec(self) -> EngineSpec:
        return EngineSpec(
            kind=self.kind,
            args=tuple(self.args),
            env=dict(self.env),
            warmup=None if self.warmup is None else cast("dict[str, Json]", plain(self.warmup)),
            url=self.url,
            extra=self.extras(),
        )


class Lock3(WireLock):
    """A comfypin lock, schema 3: every byte of a ComfyUI release that can change a picture."""

    schema_version: Literal[3]
    version_name: f.VersionName
    comfyui: ComfyUI | None = None
    custom_nodes: Annotated[list[CustomNode], Field(default_factory=list)]
    python: Annotated[Python, Field(default_factory=lambda: Python.model_validate({}))]
    models: Annotated[list[Model], Field(default_factory=list)]
    system_packages: Annotated[list[f.SystemPackage], Field(default_factory=list)]
    engine: Annotated[Engine, Field(default_factory=lambda: Engine.model_validate({}))]

    def lock(self) -> Lock:
        return Lock(
            version_name=self.version_name,
            comfyui=self.comfyui.pin() if self.comfyui else None,
            custom_nodes=tuple(node.pin() for node in self.custom_nodes),
            python=self.python.pins(),
            models=tuple(model.pin() for model in self.models),
            system_packages=tuple(self.system_packages),
            engine=self.engine.spec(),
            extra=self.extras(),
        )


class _Generate(GenerateJsonSchema):
    schema_dialect = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Json]:
    """The JSON Schema of version 3, as docs/lock.schema.json holds it."""
    schema = Lock3.model_json_schema(mode="validation", schema_generator=_Generate)
    return {"$schema": _Generate.schema_dialect, "title": "comfypin lock, schema 3", **cast("dict[str, Json]", schema)}


def _digest(text: str | None) -> Digest | None:
    return None if text is None else Digest(text)
