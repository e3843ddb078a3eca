"""What a lock that is readable still lacks: everything that keeps it from being realized as it stands."""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl, urlsplit

from comfypin.lock.document import describe, json_path
from comfypin.lock.errors import Finding, Severity
from comfypin.lock.model import Lock, ModelPin, NodePin, PackagePin, RepoPin

COMMIT = re.compile(r"[0-9a-f]{40}")
_SECRET_QUERY = re.compile(r"(?i)token|api_?key|secret|password|signature|^sig$")
_SECRET_NAME = re.compile(r"(?i)token|api_?key|secret|password|credential")
_PICKLE = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


def is_commit(text: str | None) -> bool:
    """Whether a text is a full commit, and not the name of a branch or tag."""
    return text is not None and COMMIT.fullmatch(text) is not None


def check(lock: Lock) -> tuple[Finding, ...]:
    """Every finding of a lock: errors keep it from being realized, warnings are worth knowing."""
    findings = [*(duplicates(lock) if lock.read_from_schema != 3 else ())]
    if lock.engine.kind == "comfyui":
        findings += _check_comfyui(lock)
    for index, node in enumerate(lock.custom_nodes):
        findings += _check_node(index, node)
    findings += _check_packages(lock.python.packages)
    for index, model in enumerate(lock.models):
        findings += _check_model(index, model)
    findings += _check_secrets(lock)
    return tuple(findings)


def _finding(
    rule: str, location: tuple[str | int, ...], found: str, allowed: str, severity: Severity = "error"
) -> Finding:
    return Finding(rule=rule, path=json_path(location), found=found, allowed=allowed, severity=severity)


def _check_comfyui(lock: Lock) -> Iterator[Finding]:
    if lock.comfyui is None:
        allowed = "a repository and a commit; without them this lock can bring models and nothing else"
        yield _finding("no-comfyui", ("comfyui",), "nothing", allowed)
    else:
        yield from _check_repo(("comfyui",), lock.comfyui)
    if lock.python.version is None:
        yield _finding("no-python-version", ("python", "version"), "nothing", "a Python version, such as 3.12")
    if not lock.python.packages:
        allowed = "every package with its version and sha256, or ComfyUI cannot start"
        yield _finding("no-packages", ("python", "packages"), "no packages", allowed)
        for index, line in enumerate(lock.python.requirements):
            location = ("python", "requirements", index)
            yield _finding("package-not-pinned", location, describe(line), "a package that was resolved to a version")


def _check_repo(location: tuple[str | int, ...], pin: RepoPin | NodePin) -> Iterator[Finding]:
    if pin.repo is None:
        yield _finding("no-repository", (*location, "repo"), "nothing", "the URL of a git repository")
    elif pin.repo.startswith("file:"):
        allowed = "a URL that other machines reach too"
        yield _finding("machine-path", (*location, "repo"), describe(pin.repo), allowed, "warning")
    if pin.commit is None:
        found = "nothing" if pin.ref is None else f"nothing, only the ref {describe(pin.ref)}"
        yield _finding("commit-not-pinned", (*location, "commit"), found, "a commit of 40 hex digits")
    elif not is_commit(pin.commit):
        allowed = "a commit of 40 hex digits; this is the name of a branch or tag, which moves"
        yield _finding("commit-not-pinned", (*location, "commit"), describe(pin.commit), allowed)


def _check_node(index: int, node: NodePin) -> Iterator[Finding]:
    location = ("custom_nodes", index)
    if node.archive is None:
        yield from _check_repo(location, node)
    elif node.sha256 is None:
        yield _finding("no-checksum", (*location, "sha256"), "nothing", "the sha256 of the archive")


def _check_packages(packages: Iterable[PackagePin]) -> Iterator[Finding]:
    for index, package in enumerate(packages):
        location = ("python", "packages", index)
        if not package.sha256:
            allowed = "at least one sha256"
            if package.url is not None and package.url.startswith("git+"):
                allowed = (
                    "a release of it with a sha256, by lock create --override: what is built from git cannot be "
                    "verified, and this host gives no archive of a commit with all that it holds"
                )
            yield _finding("package-without-hash", (*location, "sha256"), f"nothing for {package.name}", allowed)
        if package.url is not None and package.url.startswith("file:"):
            allowed = "a URL that other machines reach too"
            yield _finding("machine-path", (*location, "url"), describe(package.url), allowed, "warning")


def _check_model(index: int, model: ModelPin) -> Iterator[Finding]:
    location = ("models", index)
    if model.sha256 is None:
        yield _finding("no-checksum", (*location, "sha256"), "nothing", "the sha256 of the file")
    if model.size_bytes is None:
        allowed = "the size of the file in bytes (space cannot be checked before)"
        yield _finding("no-size", (*location, "size_bytes"), "nothing", allowed, "warning")
    if not model.sources:
        yield _finding("no-source", (*location, "sources"), "no source", "at least one place the bytes come from")
    for number, source in enumerate(model.sources):
        if source.startswith(("file:", "/")):
            allowed = "a source that other machines reach too"
            yield _finding("machine-path", (*location, "sources", number), describe(source), allowed, "warning")
    if model.target_path.lower().endswith(_PICKLE) and not model.allow_pickle:
        allowed = "a safetensors file, or allow_pickle: a pickle may run code when it is loaded"
        yield _finding("pickle", (*location, "target_path"), describe(model.target_path), allowed, "warning")


def has_secret(url: str) -> bool:
    """Whether a URL holds a password or a token."""
    try:
        parts = urlsplit(url)
        names = [name for name, _ in parse_qsl(parts.query)]
    except ValueError:
        return False
    # Over HTTP a user's name alone is a token too, as on GitHub.
    named = parts.username is not None and parts.scheme.rpartition("+")[2] in ("http", "https")
    return named or parts.password is not None or any(_SECRET_QUERY.search(name) for name in names)


def _check_secrets(lock: Lock) -> Iterator[Finding]:
    """Locks are committed and mailed: nothing secret belongs in one. The value is not repeated here."""
    urls: list[tuple[tuple[str | int, ...], str | None]] = [
        (("comfyui", "repo"), lock.comfyui.repo if lock.comfyui else None),
        *((("custom_nodes", index, "repo"), node.repo) for index, node in enumerate(lock.custom_nodes)),
        *((("python", "packages", index, "url"), package.url) for index, package in enumerate(lock.python.packages)),
        *((("python", "indexes", number), url) for number, url in enumerate(lock.python.indexes)),
    ]
    for index, model in enumerate(lock.models):
        urls += [(("models", index, "sources", number), source) for number, source in enumerate(model.sources)]
    allowed = "a lock holds no secrets; give it by the environment when it is needed"
    for location, url in urls:
        if url is not None and has_secret(url):
            yield _finding("secret", location, "a URL with a password or token", allowed)
    for name in lock.engine.env:
        if _SECRET_NAME.search(name):
            yield _finding("secret", ("engine", "env", name), "a value for it", allowed)


def duplicates(lock: Lock) -> Iterator[Finding]:
    """Pins that claim a place that another pin of the same lock has claimed already."""
    yield from _repeats("custom_nodes", ((node.folder, "directory") for node in lock.custom_nodes))
    yield from _repeats("models", ((model.target_path, "target_path") for model in lock.models))
    known = set(lock.python.targets)
    seen: set[tuple[str, str | None, str | None]] = set()
    for index, package in enumerate(lock.python.packages):
        name = package.name.lower().replace("_", "-").replace(".", "-")
        key = (name, package.target, package.marker)
        if key in seen:
            path = f"$.python.packages[{index}].name"
            allowed = "one version of a package for each target and marker"
            yield Finding(rule="claimed-twice", path=path, found=describe(package.name), allowed=allowed)
        seen.add(key)
        if package.target is not None and package.target not in known:
            path, allowed = f"$.python.packages[{index}].target", f"one of python.targets: {', '.join(sorted(known))}"
            yield Finding(rule="unknown-target", path=path, found=describe(package.target), allowed=allowed)


def _repeats(key: str, places: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, (place, name) in enumerate(places):
        if place in first:
            allowed = f"{key}[{first[place]}] has this place already; every pin has its own"
            path = f"$.{key}[{index}].{name}"
            yield Finding(rule="claimed-twice", path=path, found=describe(place), allowed=allowed)
        first.setdefault(place, index)
