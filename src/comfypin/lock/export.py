"""Writes a lock in other tools' formats: a requirements file, a pylock.toml (PEP 751), a CycloneDX bill of materials, a
comfy-build.yaml (pure).
"""

import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Literal, get_args
from urllib.parse import quote

from comfypin import __version__
from comfypin.digest import Digest, JsonValue, canonical_json
from comfypin.errors import UsageError
from comfypin.lock.codec import lock_digest
from comfypin.lock.comfy_build import write_comfy_build
from comfypin.lock.model import Lock, ModelPin, NodePin, PackagePin, RepoPin

ExportFormat = Literal["requirements", "pylock", "cyclonedx", "comfy-build"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)


def export_lock(lock: Lock, export_format: ExportFormat, target: str | None = None) -> str:
    """Return the lock in another format; `target` chooses if the lock has packages for several. Raises `UsageError`."""
    writers: dict[ExportFormat, Callable[[Lock, tuple[PackagePin, ...]], str]] = {
        "requirements": _write_requirements,
        "pylock": _write_pylock,
        "cyclonedx": _write_cyclonedx,
        "comfy-build": lambda lock, packages: write_comfy_build(lock, packages).text,
    }
    # A bill of materials lists everything; an installable file is for one target.
    packages = (
        lock.python.packages if export_format == "cyclonedx" and target is None else packages_for_target(lock, target)
    )
    return writers[export_format](
        lock, tuple(sorted(packages, key=lambda package_pin: (package_pin.name, package_pin.target or "")))
    )


def packages_for_target(lock: Lock, target: str | None) -> tuple[PackagePin, ...]:
    """Return the packages of one target. Raises `UsageError` if it is unknown, or if none of several is named."""
    targets = sorted(lock.python.targets)
    if target is not None and target not in targets:
        raise UsageError(f"The lock has no target {target!r}; there are {', '.join(targets) or 'none'}.")
    if target is None and len(targets) > 1 and any(package_pin.target for package_pin in lock.python.packages):
        raise UsageError(f"The lock has packages for several targets; name one with --target: {', '.join(targets)}.")
    return tuple(
        package_pin
        for package_pin in lock.python.packages
        if package_pin.target is None or target is None or package_pin.target == target
    )


def _write_requirements(lock: Lock, packages: tuple[PackagePin, ...]) -> str:
    file_lines = [f"# {lock.version_name}, {lock_digest(lock)}, Python {lock.python.version or 'unknown'}"]
    for package_pin in packages:
        requirement = (
            f"{package_pin.name} @ {package_pin.url}"
            if package_pin.url
            else f"{package_pin.name}=={package_pin.version}"
        )
        marker = f" ; {package_pin.marker}" if package_pin.marker else ""
        # pip refuses the whole file in hash mode if a single line has none; `lock check` reports those.
        hashes = "".join(f" \\\n    --hash=sha256:{digest.hex}" for digest in package_pin.sha256)
        file_lines.append(f"{requirement}{marker}{hashes}")
    return "\n".join(file_lines) + "\n"


def _write_pylock(lock: Lock, packages: tuple[PackagePin, ...]) -> str:
    unhashed = [
        package_pin.name
        for package_pin in packages
        if not package_pin.url or not (package_pin.sha256 or package_pin.url.startswith("git+"))
    ]
    if unhashed:
        shown_names = ", ".join(unhashed[:5]) + (f" and {len(unhashed) - 5} more" if len(unhashed) > 5 else "")
        raise UsageError(
            f"A pylock.toml needs a file and a sha256 of every package, and {shown_names} have none in the lock."
        )
    python = lock.python.version
    header_lines = ['lock-version = "1.0"', 'created-by = "comfypin"']
    # Wheels are for one minor version of Python, so other versions are refused when installing.
    header_lines += [f'requires-python = "=={".".join(python.split(".")[:2])}.*"'] if python else []
    return (
        "\n\n".join(["\n".join(header_lines), *(_write_pylock_package(package_pin) for package_pin in packages)]) + "\n"
    )


def _write_pylock_package(package_pin: PackagePin) -> str:
    # PEP 751 wants normalized names.
    normalized_name = re.sub(r"[-_.]+", "-", package_pin.name).lower()
    table_lines = [
        "[[packages]]",
        f"name = {_toml_string(normalized_name)}",
        f"version = {_toml_string(package_pin.version)}",
    ]
    table_lines += [f"marker = {_toml_string(package_pin.marker)}"] if package_pin.marker else []
    table_lines += [f"index = {_toml_string(package_pin.index)}"] if package_pin.index else []
    if package_pin.url and package_pin.url.startswith("git+"):
        repo_url, _, commit_part = package_pin.url.removeprefix("git+").rpartition("@")
        commit, _, fragment = commit_part.partition("#")
        folder = f", subdirectory = {_toml_string(fragment[13:])}" if fragment.startswith("subdirectory=") else ""
        table_lines.append(
            f'vcs = {{ type = "git", url = {_toml_string(repo_url)}, commit-id = {_toml_string(commit)}{folder} }}'
        )
    elif package_pin.url and package_pin.sha256:
        # The format has one digest of a kind for a file; a URL with several is not a file, so there is one.
        hashes = f"{{ sha256 = {_toml_string(package_pin.sha256[0].hex)} }}"
        file_table = f"{{ url = {_toml_string(package_pin.url)}, hashes = {hashes} }}"
        table_lines.append(
            f"wheels = [{file_table}]"
            if package_pin.url.partition("#")[0].endswith(".whl")
            else f"sdist = {file_table}"
        )
    return "\n".join(table_lines)


def _toml_string(text: str) -> str:
    # A JSON string is a valid basic string of TOML, escapes included.
    return json.dumps(text, ensure_ascii=False)


def _write_cyclonedx(lock: Lock, packages: tuple[PackagePin, ...]) -> str:
    digest_of_lock = lock_digest(lock)
    components = [
        *([_repository_component("application", "ComfyUI", lock.comfyui)] if lock.comfyui else []),
        *(_repository_component("library", pin.folder, pin) for pin in lock.custom_nodes),
        *(_package_component(pin) for pin in packages),
        *(_model_component(pin) for pin in lock.models),
        *(
            _make_component("library", package_name, f"pkg:deb/debian/{quote(package_name)}")
            for package_name in lock.system_packages
        ),
    ]
    document: dict[str, JsonValue] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # Derived from the digest, so that the same lock gives the same document.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, str(digest_of_lock))}",
        "version": 1,
        "metadata": {
            "component": {
                **_make_component("application", lock.version_name, f"comfypin:{lock.version_name}"),
                "version": digest_of_lock.hex,
                "hashes": _component_hashes(digest_of_lock),
            },
            "tools": {"components": [{"type": "application", "name": "comfypin", "version": __version__}]},
        },
        # bom-ref must be unique, and one package may be pinned under several markers.
        "components": list({str(component["bom-ref"]): component for component in components}.values()),
    }
    return canonical_json(document).decode()


def _make_component(kind: str, component_name: str, reference: str) -> dict[str, JsonValue]:
    purl: dict[str, JsonValue] = {"purl": reference} if reference.startswith("pkg:") else {}
    return {"type": kind, "name": component_name, "bom-ref": reference, **purl}


def _component_hashes(digest: Digest | None) -> list[JsonValue]:
    return [] if digest is None else [{"alg": "SHA-256", "content": digest.hex}]


def _external_references(kind: str, urls: Iterator[str]) -> list[JsonValue]:
    return [{"type": kind, "url": url} for url in urls]


def _repository_component(kind: str, component_name: str, repo_pin: RepoPin | NodePin) -> dict[str, JsonValue]:
    repo_url = (repo_pin.repo or "").removesuffix(".git").rstrip("/")
    # Scanners know repositories by package-url's type for GitHub; elsewhere the reference is our own.
    on_github = repo_url.startswith("https://github.com/")
    repo_path = repo_url.removeprefix("https://github.com/").lower()
    reference = f"pkg:github/{repo_path}@{repo_pin.commit}" if on_github else f"git:{component_name}@{repo_pin.commit}"
    archive = repo_pin.archive if isinstance(repo_pin, NodePin) else None
    return {
        **_make_component(kind, component_name, reference if repo_pin.repo else f"archive:{component_name}"),
        "version": repo_pin.commit or "",
        **({"hashes": _component_hashes(repo_pin.sha256)} if isinstance(repo_pin, NodePin) and repo_pin.sha256 else {}),
        "externalReferences": [
            *_external_references("vcs", iter([repo_pin.repo] if repo_pin.repo else [])),
            *_external_references("distribution", iter([archive] if archive else [])),
        ],
    }


def _package_component(package_pin: PackagePin) -> dict[str, JsonValue]:
    reference = f"pkg:pypi/{package_pin.name.lower().replace('_', '-')}@{quote(package_pin.version)}"
    place: dict[str, JsonValue] = {"type": "distribution", "url": package_pin.url}
    # Digests of a component speak of one file; where any of several may be taken, they belong to the places.
    hashes = [hash_json for digest in package_pin.sha256 for hash_json in _component_hashes(digest)]
    return {
        **_make_component(
            "library", package_pin.name, f"{reference}{f'?target={package_pin.target}' if package_pin.target else ''}"
        ),
        "purl": reference,
        "version": package_pin.version,
        **({"hashes": hashes} if len(hashes) == 1 else {}),
        **({"externalReferences": [place]} if package_pin.url else {}),
    }


def _model_component(model_pin: ModelPin) -> dict[str, JsonValue]:
    reference = f"sha256:{model_pin.sha256.hex}" if model_pin.sha256 else f"model:{model_pin.target_path}"
    sources = (source for source in model_pin.sources if "://" in source)
    return {
        **_make_component("machine-learning-model", model_pin.name, f"{reference}:{model_pin.target_path}"),
        "hashes": _component_hashes(model_pin.sha256),
        "externalReferences": _external_references("distribution", sources),
        "properties": [{"name": "comfypin:target_path", "value": model_pin.target_path}],
    }
