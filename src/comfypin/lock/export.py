"""A lock in other tools' words: a requirements file, a pylock.toml (PEP 751), a CycloneDX bill of materials (pure)."""

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
from comfypin.lock.model import Lock, ModelPin, NodePin, PackagePin, RepoPin

Format = Literal["requirements", "pylock", "cyclonedx"]
FORMATS: tuple[Format, ...] = get_args(Format)


def export(lock: Lock, form: Format, target: str | None = None) -> str:
    """The lock in another format; `target` chooses where the lock has packages for several. Raises `UsageError`."""
    writers: dict[Format, Callable[[Lock, tuple[PackagePin, ...]], str]] = {
        "requirements": _requirements,
        "pylock": _pylock,
        "cyclonedx": _cyclonedx,
    }
    packages = lock.python.packages if form == "cyclonedx" and target is None else packages_for(lock, target)
    return writers[form](lock, tuple(sorted(packages, key=lambda pin: (pin.name, pin.target or ""))))


def packages_for(lock: Lock, target: str | None) -> tuple[PackagePin, ...]:
    """The packages of one target. Raises `UsageError` where it is unknown, or none of several is named."""
    targets = sorted(lock.python.targets)
    if target is not None and target not in targets:
        raise UsageError(f"The lock has no target {target!r}; there are {', '.join(targets) or 'none'}.")
    if target is None and len(targets) > 1 and any(pin.target for pin in lock.python.packages):
        raise UsageError(f"The lock has packages for several targets; name one with --target: {', '.join(targets)}.")
    return tuple(pin for pin in lock.python.packages if pin.target is None or target is None or pin.target == target)


def _requirements(lock: Lock, packages: tuple[PackagePin, ...]) -> str:
    lines = [f"# {lock.version_name}, {lock_digest(lock)}, Python {lock.python.version or 'unknown'}"]
    for pin in packages:
        what = f"{pin.name} @ {pin.url}" if pin.url else f"{pin.name}=={pin.version}"
        marker = f" ; {pin.marker}" if pin.marker else ""
        hashes = "".join(f" \\\n    --hash=sha256:{digest.hex}" for digest in pin.sha256)
        lines.append(f"{what}{marker}{hashes}")
    return "\n".join(lines) + "\n"


def _pylock(lock: Lock, packages: tuple[PackagePin, ...]) -> str:
    loose = [pin.name for pin in packages if not pin.url or not (pin.sha256 or pin.url.startswith("git+"))]
    if loose:
        named = ", ".join(loose[:5]) + (f" and {len(loose) - 5} more" if len(loose) > 5 else "")
        raise UsageError(
            f"A pylock.toml needs a file and a sha256 of every package, and {named} have none in the lock."
        )
    python = lock.python.version
    head = ['lock-version = "1.0"', 'created-by = "comfypin"']
    head += [f'requires-python = "=={".".join(python.split(".")[:2])}.*"'] if python else []
    return "\n\n".join(["\n".join(head), *(_pylock_package(pin) for pin in packages)]) + "\n"


def _pylock_package(pin: PackagePin) -> str:
    name = re.sub(r"[-_.]+", "-", pin.name).lower()
    lines = ["[[packages]]", f"name = {_toml(name)}", f"version = {_toml(pin.version)}"]
    lines += [f"marker = {_toml(pin.marker)}"] if pin.marker else []
    lines += [f"index = {_toml(pin.index)}"] if pin.index else []
    if pin.url and pin.url.startswith("git+"):
        repo, _, rest = pin.url.removeprefix("git+").rpartition("@")
        commit, _, fragment = rest.partition("#")
        folder = f", subdirectory = {_toml(fragment[13:])}" if fragment.startswith("subdirectory=") else ""
        lines.append(f'vcs = {{ type = "git", url = {_toml(repo)}, commit-id = {_toml(commit)}{folder} }}')
    elif pin.url and pin.sha256:
        # The format has one digest of a kind for a file; a URL with several is not a file, so there is one.
        file = f"{{ url = {_toml(pin.url)}, hashes = {{ sha256 = {_toml(pin.sha256[0].hex)} }} }}"
        lines.append(f"wheels = [{file}]" if pin.url.partition("#")[0].endswith(".whl") else f"sdist = {file}")
    return "\n".join(lines)


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _cyclonedx(lock: Lock, packages: tuple[PackagePin, ...]) -> str:
    digest = lock_digest(lock)
    components = [
        *([_repository("application", "ComfyUI", lock.comfyui)] if lock.comfyui else []),
        *(_repository("library", pin.folder, pin) for pin in lock.custom_nodes),
        *(_package(pin) for pin in packages),
        *(_model(pin) for pin in lock.models),
        *(_component("library", name, f"pkg:deb/debian/{quote(name)}") for name in lock.system_packages),
    ]
    document: dict[str, JsonValue] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, str(digest))}",
        "version": 1,
        "metadata": {
            "component": {
                **_component("application", lock.version_name, f"comfypin:{lock.version_name}"),
                "version": digest.hex,
                "hashes": _hashes(digest),
            },
            "tools": {"components": [{"type": "application", "name": "comfypin", "version": __version__}]},
        },
        "components": list({str(item["bom-ref"]): item for item in components}.values()),
    }
    return canonical_json(document).decode()


def _component(kind: str, name: str, reference: str) -> dict[str, JsonValue]:
    purl: dict[str, JsonValue] = {"purl": reference} if reference.startswith("pkg:") else {}
    return {"type": kind, "name": name, "bom-ref": reference, **purl}


def _hashes(digest: Digest | None) -> list[JsonValue]:
    return [] if digest is None else [{"alg": "SHA-256", "content": digest.hex}]


def _places(kind: str, urls: Iterator[str]) -> list[JsonValue]:
    return [{"type": kind, "url": url} for url in urls]


def _repository(kind: str, name: str, pin: RepoPin | NodePin) -> dict[str, JsonValue]:
    address = (pin.repo or "").removesuffix(".git").rstrip("/")
    on_github = address.startswith("https://github.com/")
    path = address.removeprefix("https://github.com/").lower()
    reference = f"pkg:github/{path}@{pin.commit}" if on_github else f"git:{name}@{pin.commit}"
    archive = pin.archive if isinstance(pin, NodePin) else None
    return {
        **_component(kind, name, reference if pin.repo else f"archive:{name}"),
        "version": pin.commit or "",
        **({"hashes": _hashes(pin.sha256)} if isinstance(pin, NodePin) and pin.sha256 else {}),
        "externalReferences": [
            *_places("vcs", iter([pin.repo] if pin.repo else [])),
            *_places("distribution", iter([archive] if archive else [])),
        ],
    }


def _package(pin: PackagePin) -> dict[str, JsonValue]:
    reference = f"pkg:pypi/{pin.name.lower().replace('_', '-')}@{quote(pin.version)}"
    place: dict[str, JsonValue] = {"type": "distribution", "url": pin.url}
    # Digests of a component speak of one file; where any of several may be taken, they belong to the places.
    hashes = [item for digest in pin.sha256 for item in _hashes(digest)]
    return {
        **_component("library", pin.name, f"{reference}{f'?target={pin.target}' if pin.target else ''}"),
        "purl": reference,
        "version": pin.version,
        **({"hashes": hashes} if len(hashes) == 1 else {}),
        **({"externalReferences": [place]} if pin.url else {}),
    }


def _model(pin: ModelPin) -> dict[str, JsonValue]:
    reference = f"sha256:{pin.sha256.hex}" if pin.sha256 else f"model:{pin.target_path}"
    sources = (source for source in pin.sources if "://" in source)
    return {
        **_component("machine-learning-model", pin.name, f"{reference}:{pin.target_path}"),
        "hashes": _hashes(pin.sha256),
        "externalReferences": _places("distribution", sources),
        "properties": [{"name": "comfypin:target_path", "value": pin.target_path}],
    }
