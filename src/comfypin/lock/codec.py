"""Lock files to frozen Locks and back: schemas 1, 2 and 3 are read, 3 is written, in one canonical spelling.

pydantic is imported only when a lock is parsed, so that `comfypin --help` does not pay for it.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.digest import Digest, JsonValue, canonical_json
from comfypin.lock.check import duplicates
from comfypin.lock.document import describe, json_path, load, read_bytes
from comfypin.lock.errors import Finding, LockInvalid
from comfypin.lock.model import EngineSpec, Lock, ModelPin, NodePin, PackagePin, PythonPins, Release, RepoPin

if TYPE_CHECKING:
    from pydantic import ValidationError

    from comfypin.lock.schema3 import Wire, WireLock

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A lock that was read, and what its reader should know about the file (unknown keys, things left out)."""

    lock: Lock
    warnings: tuple[Finding, ...] = ()


def read_lock(path: Path) -> Reading:
    """Read a lock file of any schema. Raises `LockUnreadable` or `LockInvalid`, which holds every finding."""
    name = path.name.removesuffix(".json").removesuffix(".lock").removeprefix("comfy-")
    return parse_lock(read_bytes(path), where=str(path), default_name=name)


def parse_lock(data: bytes, *, where: str, default_name: str | None = None) -> Reading:
    """Parse the bytes of a lock. `where` names them in errors; `default_name` is for files that hold no name."""
    from pydantic import ValidationError

    document = load(data, where=where)
    schema = _schema_of(document, where)
    try:
        wire = _wire(document, schema, default_name)
    except ValidationError as error:
        raise LockInvalid(where=where, findings=_findings(error, document)) from None
    lock = wire.lock()
    # Older files did claim places twice, so there it is for `lock check` to say.
    findings = [*_unknown_keys(wire, ()), *wire.losses(), *(duplicates(lock) if schema == 3 else ())]
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise LockInvalid(where=where, findings=errors)
    return Reading(lock=lock, warnings=tuple(findings))


def render(lock: Lock) -> bytes:
    """The canonical bytes of a lock, schema 3: sorted keys, sorted pins, nothing of this machine or moment."""
    return canonical_json(to_json(lock))


def lock_digest(lock: Lock) -> Digest:
    """The sha256 of the canonical bytes: what results and manifests record."""
    return Digest.of(render(lock))


def env_digest(lock: Lock) -> Digest:
    """The sha256 of what the env is made of: ComfyUI, nodes and packages; not names, refs, models or the engine."""
    python = python_to_json(lock.python)
    for wish in ("requirements", "overrides", "dropped", "indexes"):
        python.pop(wish, None)
    parts: dict[str, JsonValue] = {
        "comfyui": None if lock.comfyui is None else _without(repo_to_json(lock.comfyui), "ref"),
        "custom_nodes": [
            {**_without(node_to_json(node), "name", "ref"), "directory": node.folder} for node in _sorted_nodes(lock)
        ],
        "python": python,
    }
    return Digest.of(canonical_json(parts))


def release_of(lock: Lock) -> Release:
    """The name and digest that results carry."""
    return Release(name=lock.version_name, digest=lock_digest(lock))


def to_json(lock: Lock) -> dict[str, JsonValue]:
    """The lock as schema 3 has it; optional keys that say nothing are left out."""
    models = sorted(lock.models, key=lambda model: (model.target_path, model.name))
    return {
        **lock.extra,
        "schema_version": 3,
        "version_name": lock.version_name,
        "comfyui": None if lock.comfyui is None else repo_to_json(lock.comfyui),
        "custom_nodes": [node_to_json(node) for node in _sorted_nodes(lock)],
        "python": python_to_json(lock.python),
        "models": [model_to_json(model) for model in models],
        "system_packages": sorted(set(lock.system_packages)),
        "engine": engine_to_json(lock.engine),
    }


def repo_to_json(pin: RepoPin) -> dict[str, JsonValue]:
    return _said(pin.extra, repo=pin.repo, ref=pin.ref, commit=pin.commit, patch=pin.patch)


def node_to_json(pin: NodePin) -> dict[str, JsonValue]:
    return _said(
        pin.extra,
        name=pin.name,
        repo=pin.repo,
        ref=pin.ref,
        commit=pin.commit,
        directory=pin.directory,
        install_script=pin.install_script,
        install_script_sha256=_hex(pin.install_script_sha256),
        archive=pin.archive,
        sha256=_hex(pin.sha256),
        patch=pin.patch,
    )


def python_to_json(pins: PythonPins) -> dict[str, JsonValue]:
    packages = sorted(pins.packages, key=_package_order)
    return {
        **_said(
            pins.extra,
            version=pins.version,
            requirements=sorted(set(pins.requirements)) or None,
            overrides=sorted(set(pins.overrides)) or None,
            dropped=sorted(set(pins.dropped)) or None,
            indexes=list(pins.indexes) or None,  # in the order that they are asked in
        ),
        "targets": {name: dict(facts) for name, facts in pins.targets.items()},
        "packages": [package_to_json(package) for package in packages],
    }


def package_to_json(pin: PackagePin) -> dict[str, JsonValue]:
    return {
        **_said(pin.extra, url=pin.url, index=pin.index, marker=pin.marker, target=pin.target),
        "name": pin.name,
        "version": pin.version,
        "sha256": sorted({digest.hex for digest in pin.sha256}),
    }


def model_to_json(pin: ModelPin) -> dict[str, JsonValue]:
    return _said(
        pin.extra,
        name=pin.name,
        target_path=pin.target_path,
        sha256=_hex(pin.sha256),
        size_bytes=pin.size_bytes,
        sources=list(pin.sources),
        allow_pickle=pin.allow_pickle or None,
    )


def engine_to_json(spec: EngineSpec) -> dict[str, JsonValue]:
    return {
        **_said(spec.extra, url=spec.url),
        "kind": spec.kind,
        "args": list(spec.args),
        "env": dict(spec.env),
        "warmup": spec.warmup,
    }


def _said(extra: Mapping[str, JsonValue], **values: JsonValue) -> dict[str, JsonValue]:
    return {**extra, **{name: value for name, value in values.items() if value is not None}}


def _without(values: Mapping[str, JsonValue], *names: str) -> dict[str, JsonValue]:
    return {name: value for name, value in values.items() if name not in names}


def _hex(digest: Digest | None) -> str | None:
    return None if digest is None else digest.hex


def _sorted_nodes(lock: Lock) -> list[NodePin]:
    return sorted(lock.custom_nodes, key=lambda node: (node.folder, node.repo or "", node.commit or ""))


def _package_order(pin: PackagePin) -> tuple[str, ...]:
    return (pin.name.lower().replace("_", "-"), pin.target or "", pin.marker or "", pin.version, pin.url or "")


def _schema_of(document: Mapping[str, JsonValue], where: str) -> int:
    """The schema of a file; old ones without `schema_version` are known by the keys that only they have."""
    if "schema_version" not in document:
        if "version_id" in document or "comfy" in document:
            return 2
        if "models" in document or "comfyui" in document:
            return 1
        found, allowed = "nothing", "schema_version is 1, 2 or 3; is this file a lock at all?"
    elif isinstance(version := document["schema_version"], int) and version in (1, 2, 3) and version is not True:
        return version
    else:
        found, allowed = describe(document["schema_version"]), "1, 2 or 3 (a newer comfypin may read more)"
    finding = Finding(rule="unknown-schema", path="$.schema_version", found=found, allowed=allowed)
    raise LockInvalid(where=where, findings=[finding])


def _wire(document: dict[str, JsonValue], schema: int, default_name: str | None) -> "WireLock":
    from comfypin.lock.schema3 import Lock3

    if schema == 3:
        return Lock3.model_validate(document)
    # Their pydantic models take longer to build than a lock of today takes to read.
    from comfypin.lock.old_schemas import Lock1, Lock2

    name_key = "version_name" if schema == 1 else "version_id"
    document = {"schema_version": schema, **document}
    if schema == 2 and name_key not in document and "id" in document:
        document[name_key] = document.pop("id")
    if schema == 1 and document.get(name_key) is None and default_name:
        document[name_key] = default_name
    return Lock1.model_validate(document) if schema == 1 else Lock2.model_validate(document)


def _findings(error: "ValidationError", document: Mapping[str, JsonValue]) -> list[Finding]:
    """pydantic's errors in our words, in the order of the file's paths."""
    findings = []
    for item in error.errors(include_url=False):
        location: Location = tuple(part for part in item["loc"] if part != "[key]")
        kind = item["type"]
        found = "nothing" if kind == "missing" else describe(item["input"])
        context = item.get("ctx") or {}
        allowed = {
            "missing": "this key is required",
            "literal_error": f"allowed: {context.get('expected')}",
            "model_type": "an object is allowed",
            "dict_type": "an object is allowed",
            "list_type": "a list is allowed",
            "bool_type": "true or false is allowed",
            "int_type": "a whole number is allowed",
        }.get(kind, item["msg"])
        findings.append(Finding(rule=f"invalid-{kind}", path=json_path(location), found=found, allowed=allowed))
    return findings


def _unknown_keys(wire: "Wire", location: Location) -> Iterator[Finding]:
    """A warning for each key that its schema does not know, with the known name that is nearest to it.

    A key of an old file that means something in schema 3 is an error: keeping it would change what it says.
    """
    known = list(type(wire).model_fields)
    for key, value in (wire.model_extra or {}).items():
        path, found = json_path((*location, key)), describe(value)
        if wire.successor and key in wire.successor.model_fields:
            allowed = "this key belongs to schema 3, and the file says that it is older"
            yield Finding(rule="key-of-schema-3", path=path, found=found, allowed=allowed)
            continue
        near = difflib.get_close_matches(key, known, n=1)
        allowed = "no key has this name here; it is kept and has no effect"
        allowed += f"; did you mean {near[0]}?" if near else ""
        yield Finding(rule="unknown-key", path=path, found=found, allowed=allowed, severity="warning")
    for name, inner, place in _children(wire):
        yield from _unknown_keys(inner, (*location, name, *place))


def _children(wire: "Wire") -> Iterator[tuple[str, "Wire", tuple[int, ...]]]:
    from comfypin.lock.schema3 import Wire

    for name in type(wire).model_fields:
        value = getattr(wire, name)
        if isinstance(value, Wire):
            yield name, value, ()
        elif isinstance(value, list):
            yield from ((name, item, (index,)) for index, item in enumerate(value) if isinstance(item, Wire))
