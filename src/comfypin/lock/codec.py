"""Reads lock files of schemas 1, 2 and 3 into frozen Locks, and writes schema 3 in one canonical spelling.

pydantic is imported only when a lock is parsed, so that `comfypin --help` does not pay for it.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.digest import Digest, JsonValue, canonical_json
from comfypin.lock.check import find_duplicate_pins
from comfypin.lock.document import describe_value, json_path, load_document, read_lock_bytes
from comfypin.lock.errors import LockFinding, LockInvalid
from comfypin.lock.model import (
    UNPINNED,
    EngineSpec,
    Lock,
    ModelPin,
    NodePin,
    PackagePin,
    PythonPins,
    Release,
    RepoPin,
    VariantChoice,
)
from comfypin.validation_words import describe_problem

if TYPE_CHECKING:
    from pydantic import ValidationError

    from comfypin.lock.schema3 import SchemaLock, SchemaObject

# Where a value is in the file, as pydantic says it: keys and list indexes.
Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLock:
    """A parsed lock, with warnings about its file: unknown keys and things left out."""

    lock: Lock
    warnings: tuple[LockFinding, ...] = ()


def read_lock(path: Path) -> ReadLock:
    """Read a lock file of any schema. Raises `LockUnreadable` or `LockInvalid`, which holds every finding."""
    # Locks of schema 1 hold no name; their file is called comfy-NAME.lock.json.
    default_name = path.name.removesuffix(".json").removesuffix(".lock").removeprefix("comfy-")
    return parse_lock(read_lock_bytes(path), where=str(path), default_name=default_name)


def parse_lock(lock_bytes: bytes, *, where: str, default_name: str | None = None) -> ReadLock:
    """Parse the bytes of a lock. `where` names the file in errors; `default_name` is used if the file holds no name."""
    from pydantic import ValidationError

    document = load_document(lock_bytes, where=where)
    schema = _detect_schema(document, where)
    try:
        schema_object = _parse_schema(document, schema, default_name)
    except ValidationError as error:
        # pydantic's own error would repeat the file's values, and a lock may hold a token by mistake.
        raise LockInvalid(where=where, findings=_validation_findings(error, document)) from None
    lock = schema_object.to_lock()
    # Older files did claim places twice, so there it is for `lock check` to say.
    findings = [
        *_unknown_keys(schema_object, ()),
        *schema_object.find_losses(),
        *(find_duplicate_pins(lock) if schema == 3 else ()),
    ]
    # Warnings come along with the lock; only errors stop the reader.
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise LockInvalid(where=where, findings=errors)
    return ReadLock(lock=lock, warnings=tuple(findings))


def render_lock(lock: Lock) -> bytes:
    """Return the canonical bytes of a lock, schema 3: sorted keys, sorted pins, nothing of this machine or moment."""
    return canonical_json(lock_to_json(lock))


def lock_digest(lock: Lock) -> Digest:
    """Return the sha256 of the canonical bytes, which results and manifests record."""
    return Digest.of(render_lock(lock))


def env_digest(lock: Lock) -> Digest:
    """Return the sha256 of what the env is made of: ComfyUI, nodes and packages; not names, refs, models or the
    engine.
    """
    python_json = python_to_json(lock.python)
    # These say what was asked for, and what was learned. Only the packages, which are the answer, are installed.
    for wish_key in ("requirements", "overrides", "dropped", "indexes", "variants", "libraries"):
        python_json.pop(wish_key, None)
    # Whose file it is changes the env; what was left out does not, because it is not a package any more.
    if decided := {choice.name: sorted(choice.overwrites) for choice in lock.python.variants if choice.overwrites}:
        python_json["overwrites"] = decided
    env_parts: dict[str, JsonValue] = {
        "comfyui": None if lock.comfyui is None else _without_keys(repo_to_json(lock.comfyui), "ref"),
        "custom_nodes": [
            # A pack with another name in the same folder makes the same env.
            {**_without_keys(node_to_json(node_pin), "name", "ref"), "directory": node_pin.folder}
            for node_pin in _sorted_nodes(lock)
        ],
        "python": python_json,
    }
    return Digest.of(canonical_json(env_parts))


def release_identity(lock: Lock | None) -> Release:
    """Return the name and digest that results carry; without a lock they say that nothing is pinned."""
    return UNPINNED if lock is None else Release(name=lock.version_name, digest=lock_digest(lock))


def lock_to_json(lock: Lock) -> dict[str, JsonValue]:
    """Return the lock as schema 3 writes it, without optional keys that say nothing."""
    # Sorted by what cannot repeat, so that two locks with the same pins are the same bytes.
    models = sorted(lock.models, key=lambda model_pin: (model_pin.target_path, model_pin.name))
    return {
        # First, so that a key that this version knows wins over one that an older version only kept.
        **lock.extra,
        "schema_version": 3,
        "version_name": lock.version_name,
        "comfyui": None if lock.comfyui is None else repo_to_json(lock.comfyui),
        "custom_nodes": [node_to_json(node_pin) for node_pin in _sorted_nodes(lock)],
        "python": python_to_json(lock.python),
        "models": [model_to_json(model_pin) for model_pin in models],
        "system_packages": sorted(set(lock.system_packages)),
        "engine": engine_to_json(lock.engine),
    }


def repo_to_json(repo_pin: RepoPin) -> dict[str, JsonValue]:
    return _present_keys(
        repo_pin.extra, repo=repo_pin.repo, ref=repo_pin.ref, commit=repo_pin.commit, patch=repo_pin.patch
    )


def node_to_json(node_pin: NodePin) -> dict[str, JsonValue]:
    return _present_keys(
        node_pin.extra,
        name=node_pin.name,
        repo=node_pin.repo,
        ref=node_pin.ref,
        commit=node_pin.commit,
        directory=node_pin.directory,
        install_script=node_pin.install_script,
        install_script_sha256=_optional_hex(node_pin.install_script_sha256),
        archive=node_pin.archive,
        sha256=_optional_hex(node_pin.sha256),
        patch=node_pin.patch,
    )


def python_to_json(python_pins: PythonPins) -> dict[str, JsonValue]:
    packages = sorted(python_pins.packages, key=_package_order)
    return {
        **_present_keys(
            python_pins.extra,
            version=python_pins.version,
            # `or None` leaves the key out if there is nothing to say.
            requirements=sorted(set(python_pins.requirements)) or None,
            overrides=sorted(set(python_pins.overrides)) or None,
            dropped=sorted(set(python_pins.dropped)) or None,
            indexes=list(python_pins.indexes) or None,  # in the order that they are asked in
            libraries={library: sorted(packages) for library, packages in python_pins.libraries.items()} or None,
            variants=[variant_to_json(choice) for choice in sorted(python_pins.variants, key=_variant_order)] or None,
        ),
        "targets": {target: dict(facts) for target, facts in python_pins.targets.items()},
        "packages": [package_to_json(package_pin) for package_pin in packages],
    }


def package_to_json(package_pin: PackagePin) -> dict[str, JsonValue]:
    return {
        **_present_keys(
            package_pin.extra,
            url=package_pin.url,
            index=package_pin.index,
            marker=package_pin.marker,
            target=package_pin.target,
        ),
        "name": package_pin.name,
        "version": package_pin.version,
        # A set, because several indexes may offer the same file.
        "sha256": sorted({digest.hex for digest in package_pin.sha256}),
    }


def variant_to_json(choice: VariantChoice) -> dict[str, JsonValue]:
    return _present_keys(
        choice.extra,
        name=choice.name,
        imports=sorted(choice.imports) or None,
        replaces=sorted(choice.replaces) or None,
        overwrites=sorted(choice.overwrites) or None,
        platforms=sorted(choice.platforms) or None,
    )


def _variant_order(choice: VariantChoice) -> tuple[str, tuple[str, ...]]:
    return choice.name, choice.platforms


def model_to_json(model_pin: ModelPin) -> dict[str, JsonValue]:
    return _present_keys(
        model_pin.extra,
        name=model_pin.name,
        target_path=model_pin.target_path,
        sha256=_optional_hex(model_pin.sha256),
        size_bytes=model_pin.size_bytes,
        sources=list(model_pin.sources),
        allow_pickle=model_pin.allow_pickle or None,
    )


def engine_to_json(spec: EngineSpec) -> dict[str, JsonValue]:
    return {
        **_present_keys(
            spec.extra, url=spec.url, warmup_size=None if spec.warmup_size == "smallest" else spec.warmup_size
        ),
        "kind": spec.kind,
        "args": list(spec.args),
        "env": dict(spec.env),
        "warmup": spec.warmup,
    }


def _present_keys(extra: Mapping[str, JsonValue], **values: JsonValue) -> dict[str, JsonValue]:
    return {**extra, **{key: key_value for key, key_value in values.items() if key_value is not None}}


def _without_keys(values: Mapping[str, JsonValue], *names: str) -> dict[str, JsonValue]:
    return {key: value for key, value in values.items() if key not in names}


def _optional_hex(digest: Digest | None) -> str | None:
    return None if digest is None else digest.hex


def _sorted_nodes(lock: Lock) -> list[NodePin]:
    return sorted(lock.custom_nodes, key=lambda node_pin: (node_pin.folder, node_pin.repo or "", node_pin.commit or ""))


def _package_order(package_pin: PackagePin) -> tuple[str, ...]:
    return (
        package_pin.name.lower().replace("_", "-"),
        package_pin.target or "",
        package_pin.marker or "",
        package_pin.version,
        package_pin.url or "",
    )


def _detect_schema(document: Mapping[str, JsonValue], where: str) -> int:
    """Return the schema of a file; old ones without `schema_version` are recognised by keys that only they have."""
    # The first tools wrote no version: their keys tell them apart.
    if "schema_version" not in document:
        if "version_id" in document or "comfy" in document:
            return 2
        if "models" in document or "comfyui" in document:
            return 1
        found_text, allowed = "nothing", "schema_version is 1, 2 or 3; is this file a lock at all?"
    # True is an int for Python, and 1 == True.
    elif isinstance(version := document["schema_version"], int) and version in (1, 2, 3) and version is not True:
        return version
    else:
        found_text, allowed = describe_value(document["schema_version"]), "1, 2 or 3 (a newer comfypin may read more)"
    finding = LockFinding(rule="unknown-schema", path="$.schema_version", found=found_text, allowed=allowed)
    raise LockInvalid(where=where, findings=[finding])


def _parse_schema(document: dict[str, JsonValue], schema: int, default_name: str | None) -> "SchemaLock":
    from comfypin.lock.schema3 import Lock3

    if schema == 3:
        return Lock3.model_validate(document)
    # Their pydantic models take longer to build than a lock of today takes to read.
    from comfypin.lock.old_schemas import Lock1, Lock2

    name_key = "version_name" if schema == 1 else "version_id"
    # A copy: findings describe the file as it was written.
    document = {"schema_version": schema, **document}
    if schema == 2 and name_key not in document and "id" in document:
        document[name_key] = document.pop("id")
    if schema == 1 and document.get(name_key) is None and default_name:
        document[name_key] = default_name
    return Lock1.model_validate(document) if schema == 1 else Lock2.model_validate(document)


def _validation_findings(error: "ValidationError", document: Mapping[str, JsonValue]) -> list[LockFinding]:
    """Translate pydantic's errors into our words, in the order of the file's paths."""
    findings = []
    for error_item in error.errors(include_url=False):
        # pydantic marks a wrong key of an object by "[key]", which is not part of a JSON path.
        location: Location = tuple(part for part in error_item["loc"] if part != "[key]")
        error_type = error_item["type"]
        found = "nothing" if error_type == "missing" else describe_value(error_item["input"])
        context = error_item.get("ctx") or {}
        allowed = {
            "missing": "this key is required",
            "literal_error": f"allowed: {context.get('expected')}",
            "model_type": "an object is allowed",
            "dict_type": "an object is allowed",
            "list_type": "a list is allowed",
            "bool_type": "true or false is allowed",
            "int_type": "a whole number is allowed",
        }.get(error_type) or describe_problem(error_item)
        findings.append(
            LockFinding(rule=f"invalid-{error_type}", path=json_path(location), found=found, allowed=allowed)
        )
    return findings


def _unknown_keys(schema_object: "SchemaObject", location: Location) -> Iterator[LockFinding]:
    """Yield a warning for each key that its schema does not know, with the nearest known name.

    A key of an old file that means something in schema 3 is an error: keeping it would change what it says.
    """
    # Unknown keys are kept and reported, never dropped: a newer comfypin may have written them.
    known_keys = list(type(schema_object).model_fields)
    for key_name, unknown_value in (schema_object.model_extra or {}).items():
        path, found_text = json_path((*location, key_name)), describe_value(unknown_value)
        if schema_object.successor and key_name in schema_object.successor.model_fields:
            allowed = "this key belongs to schema 3, and the file has an older schema"
            yield LockFinding(rule="key-of-schema-3", path=path, found=found_text, allowed=allowed)
            continue
        nearest_keys = difflib.get_close_matches(key_name, known_keys, n=1)
        allowed = "no key has this name here; it is kept and has no effect"
        allowed += f"; did you mean {nearest_keys[0]}?" if nearest_keys else ""
        yield LockFinding(rule="unknown-key", path=path, found=found_text, allowed=allowed, severity="warning")
    for field_name, inner_object, inner_location in _child_objects(schema_object):
        yield from _unknown_keys(inner_object, (*location, field_name, *inner_location))


def _child_objects(schema_object: "SchemaObject") -> Iterator[tuple[str, "SchemaObject", tuple[int, ...]]]:
    from comfypin.lock.schema3 import SchemaObject

    for field_name in type(schema_object).model_fields:
        field_value = getattr(schema_object, field_name)
        if isinstance(field_value, SchemaObject):
            yield field_name, field_value, ()
        elif isinstance(field_value, list):
            yield from (
                (field_name, list_item, (index,))
                for index, list_item in enumerate(field_value)
                if isinstance(list_item, SchemaObject)
            )
