"""What a file of another tool says about a ComfyUI, and how such files are parsed (pure but for reading the file)."""

import contextlib
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from comfypin.digest import Digest
from comfypin.lock.model_spec import ModelSpec
from comfypin.lock.requirements import logical_lines, parse_requirement
from comfypin.locking.errors import SnapshotUnreadable
from comfypin.locking.repository_refs import RepoSpec
from comfypin.plurals import format_limit
from comfypin.text_encoding import decode_text

# Far above any real file; YAML of that size already takes seconds to parse.
MAX_BYTES = 16_000_000


PartKind = Literal["node", "package", "model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpinnablePart:
    """A part that no other machine can have: the names by which --leave-out may call it, and why."""

    kind: PartKind
    names: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFile:
    """What a file holds: the parts of a release.

    `comfyui` is None if the file does not name it. `node_files` are single files under custom_nodes. `installed` are
    exactly the packages that were there, `requirements` what is to be resolved; `torch` is the build of torch. `notes`
    are differences between what the file says and what a lock of it holds; `left_out` the names of parts that it lists
    as disabled; `comfyui_hint` says how to find out which ComfyUI it means.
    """

    kind: str
    comfyui: RepoSpec | None = None
    nodes: tuple[RepoSpec, ...] = ()
    node_files: tuple[str, ...] = ()
    installed: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    python: str | None = None
    torch: str | None = None
    system_packages: tuple[str, ...] = ()
    engine_env: Mapping[str, str] = field(default_factory=dict)
    comfyui_hint: str = ""
    unpinnable: tuple[UnpinnablePart, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class ReleaseParts:
    """Collects what a reader finds, entry by entry."""

    nodes: list[RepoSpec] = field(default_factory=list)
    node_files: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    models: list[ModelSpec] = field(default_factory=list)
    unpinnable: list[UnpinnablePart] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    local_wheels: list[str] = field(default_factory=list)

    def skip_disabled(self, what: str, *names: str) -> None:
        """Leave out a part that is switched off, and say so."""
        self.left_out += names
        self.notes.append(f"{what} {names[0]} is disabled there, so it is left out")

    def refuse(self, kind: PartKind, reason: str, *names: str) -> None:
        """Note a part that cannot be pinned."""
        self.unpinnable.append(UnpinnablePart(kind=kind, names=names, reason=reason))

    def add_package(self, requirement_line: str) -> None:
        """Add an installed package; what comes from files of that machine cannot be pinned. pip itself is no part.

        A wheel's name says its version, which an index may have too: all packages of ComfyUI for Windows are such.
        """
        if release := _local_wheel_release(requirement_line):
            self.local_wheels.append(release)
            requirement_line = release
        requirement = parse_requirement(requirement_line, "the file")
        if requirement is None or "file:" in requirement_line:
            name = requirement.name if requirement and requirement.name else package_name(requirement_line)
            self.refuse("package", f"the package {requirement_line} is installed from that machine's own files", name)
        elif requirement.name != "pip":
            self.packages.append(requirement.text)

    def to_release(self, kind: str, **known: object) -> ReleaseFile:
        """Return what was collected as a value."""
        if self.local_wheels:
            self.notes.append(
                "installed from wheels on that machine, so the same versions of the index are taken: "
                + ", ".join(self.local_wheels)
            )
        return ReleaseFile(
            kind=kind,
            nodes=tuple(self.nodes),
            node_files=tuple(self.node_files),
            models=tuple(self.models),
            unpinnable=tuple(self.unpinnable),
            left_out=tuple(self.left_out),
            notes=tuple(self.notes),
            **known,  # type: ignore[arg-type]
        )


def _local_wheel_release(requirement_line: str) -> str | None:
    """Return `name==1.0` of `name @ file:///folder/name-1.0-py3-none-any.whl`, None of anything else."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    _, at_sign, url = requirement_line.partition(" @ file:")
    file_name = unquote(re.split(r"[?#]", url, maxsplit=1)[0].rpartition("/")[2])
    if not at_sign or not file_name.endswith(".whl"):
        return None
    try:
        name, version, _, _ = parse_wheel_filename(file_name)
    except InvalidWheelFilename:
        return None
    return f"{name}=={version}"


def package_name(requirement_line: str) -> str:
    """Return the name in `name==1.0`, `name @ url`, `name[extra]`, or in a URL's `#egg=name`."""
    if egg := re.search(r"[#&]egg=([A-Za-z0-9._-]+)", requirement_line):
        return egg[1]
    return re.split(r"[\s=@<>!~;\[]", requirement_line.removeprefix("-e ").strip(), maxsplit=1)[0]


def python_minor(version: object) -> str | None:
    """Return `3.12` of `3.12.7`, None if the text is not a version of Python."""
    match = re.match(r"(3\.\d{1,2})(\.|$)", version.strip()) if isinstance(version, str) else None
    return match[1] if match else None


@dataclass(frozen=True, slots=True)
class DocumentPath:
    """A file that is being read, and how to refuse it."""

    path: Path

    def refuse(self, reason: str) -> SnapshotUnreadable:
        """Return the error that this file earns."""
        return SnapshotUnreadable(path=str(self.path), reason=reason)

    def mapping(self, value: object, field_name: str) -> dict[str, object]:
        """Return an object; empty if the field is absent. Raises `SnapshotUnreadable`."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.refuse(f"{field_name} is not an object")
        return {str(key): item for key, item in value.items()}

    def entries(self, value: object, field_name: str) -> list[object]:
        """Return a list; empty if the field is absent. Raises `SnapshotUnreadable`."""
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.refuse(f"{field_name} is not a list")
        return value

    def objects(self, value: object, field_name: str) -> list[dict[str, object]]:
        """Return a list of objects; empty if the field is absent. Raises `SnapshotUnreadable`."""
        return [
            self.mapping(item, f"{field_name}[{index}]") for index, item in enumerate(self.entries(value, field_name))
        ]

    def text(self, value: object, field_name: str) -> str:
        """Return a text that must be there. Raises `SnapshotUnreadable`."""
        if not isinstance(value, str) or not value.strip():
            raise self.refuse(f"{field_name} is not a text")
        return value.strip()

    def digest(self, value: object, field_name: str) -> Digest | None:
        """Return a sha256, or None if the field is absent. Raises `SnapshotUnreadable`."""
        if value in (None, ""):
            return None
        try:
            return Digest.parse(str(value))
        except ValueError as error:
            raise self.refuse(f"{field_name} is not a sha256") from error


def load_document(file_path: Path) -> object:
    """Parse JSON, YAML, or a pack of comfy-pack (a zip). Raises `SnapshotUnreadable`."""
    import yaml

    document_path = DocumentPath(file_path)
    try:
        if zipfile.is_zipfile(file_path):
            return _read_pack(file_path)
        with file_path.open("rb") as file:
            file_bytes = file.read(MAX_BYTES + 1)
        if len(file_bytes) > MAX_BYTES:
            raise document_path.refuse(f"it is larger than {format_limit(MAX_BYTES)}")
        document_text = decode_text(file_bytes)
        # JSON is YAML too; but YAML's parser takes a minute for a large JSON file.
        if document_text.lstrip()[:1] in ("{", "["):
            # Not JSON: YAML's own flow style begins like this, too.
            with contextlib.suppress(ValueError):
                return json.loads(document_text)
        # Tokens are counted first, for aliases can make a small file a huge value.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(document_text)):
            raise document_path.refuse("it uses YAML aliases")
        return yaml.safe_load(document_text)
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile, yaml.YAMLError) as error:
        raise document_path.refuse(" ".join(str(error).split())[:200]) from error


def _read_pack(file_path: Path) -> object:
    """Return the snapshot.json of a pack; its packages are in the requirements.txt beside it."""
    with zipfile.ZipFile(file_path) as archive:
        document = json.loads(_read_member(archive, "snapshot.json"))
        if isinstance(document, dict) and not document.get("pips") and "requirements.txt" in archive.namelist():
            lines = logical_lines(_read_member(archive, "requirements.txt").decode())
            document["pips"] = {line: "" for _, line in lines if not line.startswith("-")}
        return document


def _read_member(archive: zipfile.ZipFile, member_name: str) -> bytes:
    with archive.open(member_name) as member:
        return member.read(MAX_BYTES)
