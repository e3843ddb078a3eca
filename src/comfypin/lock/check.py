"""Checks what a readable lock still lacks: everything that keeps it from being realized as it stands."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl, urlsplit

from comfypin.digest import JsonValue
from comfypin.lock.document import describe_value, json_path
from comfypin.lock.errors import LockFinding, Severity
from comfypin.lock.model import Lock, ModelPin, NodePin, PackagePin, RepoPin
from comfypin.lock.requirements import normalize_package_name, parse_requirement

# Abbreviated commits are refused too: what they abbreviate can become ambiguous.
COMMIT_PATTERN = re.compile(r"[0-9a-f]{40}")
# Signed URLs of buckets count: whoever has the lock has the file until they expire.
_SECRET_QUERY = re.compile(r"(?i)token|api_?key|secret|password|signature|^sig$")
# Narrower than for variables: `token_normalization` is an input of a node, and its value no secret.
_SECRET_INPUT = re.compile(r"(?i)(^|_)(api_?key|password|secret)s?$")
_SECRET_NAME = re.compile(r"(?i)token|api_?key|secret|password|credential")
# A warm-up in a lock is a prompt, which is three levels deep.
_MAX_WORKFLOW_DEPTH = 12
# Suffixes of pickles. A pickle under another name is found when its bytes arrive.
_PICKLE = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


def is_commit(version_text: str | None) -> bool:
    """Return whether a text is a full commit, not the name of a branch or tag."""
    return version_text is not None and COMMIT_PATTERN.fullmatch(version_text) is not None


def check_lock(lock: Lock) -> tuple[LockFinding, ...]:
    """Return every finding of a lock: errors keep it from being realized, warnings are worth knowing."""
    # In schema 3 a duplicate keeps the file from being read at all, so there it is reported already.
    findings = [*(find_duplicate_pins(lock) if lock.read_from_schema != 3 else ())]
    # Remote and embedded engines run no ComfyUI of ours, so they need neither its commit nor its packages.
    if lock.engine.kind == "comfyui":
        findings += _check_comfyui(lock)
    for pin_index, node_pin in enumerate(lock.custom_nodes):
        findings += _check_node(pin_index, node_pin)
    findings += _check_packages(lock.python.packages)
    findings += _check_requirements(lock)
    for pin_index, model_pin in enumerate(lock.models):
        findings += _check_model(lock, pin_index, model_pin)
    findings += _check_secrets(lock)
    return tuple(findings)


def _make_finding(
    rule: str, location: tuple[str | int, ...], found: str, allowed: str, severity: Severity = "error"
) -> LockFinding:
    return LockFinding(rule=rule, path=json_path(location), found=found, allowed=allowed, severity=severity)


def _check_comfyui(lock: Lock) -> Iterator[LockFinding]:
    if lock.comfyui is None:
        allowed = "a repository and a commit; without them this lock can only pull models"
        yield _make_finding("no-comfyui", ("comfyui",), "nothing", allowed)
    else:
        yield from _check_repo(("comfyui",), lock.comfyui)
    if lock.python.version is None:
        yield _make_finding("no-python-version", ("python", "version"), "nothing", "a Python version, such as 3.12")
    if not lock.python.packages:
        allowed = "every package with its version and sha256, or ComfyUI cannot start"
        yield _make_finding("no-packages", ("python", "packages"), "no packages", allowed)
        for line_index, requirement in enumerate(lock.python.requirements):
            location = ("python", "requirements", line_index)
            yield _make_finding(
                "package-not-pinned", location, describe_value(requirement), "a package that was resolved to a version"
            )


def _check_repo(location: tuple[str | int, ...], repo_pin: RepoPin | NodePin) -> Iterator[LockFinding]:
    if repo_pin.repo is None:
        yield _make_finding("no-repository", (*location, "repo"), "nothing", "the URL of a git repository")
    # A warning, not an error: a mirror that every machine mounts at the same path is a fair choice.
    elif repo_pin.repo.startswith("file:"):
        allowed = "a URL that other machines can reach, too"
        yield _make_finding("machine-path", (*location, "repo"), describe_value(repo_pin.repo), allowed, "warning")
    if repo_pin.commit is None:
        found = "nothing" if repo_pin.ref is None else f"nothing, only the ref {describe_value(repo_pin.ref)}"
        yield _make_finding("commit-not-pinned", (*location, "commit"), found, "a commit of 40 hex digits")
    elif not is_commit(repo_pin.commit):
        allowed = "a commit of 40 hex digits; this is the name of a branch or tag, which moves"
        yield _make_finding("commit-not-pinned", (*location, "commit"), describe_value(repo_pin.commit), allowed)


def _check_node(index: int, node_pin: NodePin) -> Iterator[LockFinding]:
    location = ("custom_nodes", index)
    # A commit names its whole tree; an archive has only its sha256 to prove what is in it.
    if node_pin.archive is None:
        yield from _check_repo(location, node_pin)
    elif node_pin.sha256 is None:
        yield _make_finding("no-checksum", (*location, "sha256"), "nothing", "the sha256 of the archive")


def _check_packages(packages: Iterable[PackagePin]) -> Iterator[LockFinding]:
    for pin_index, package_pin in enumerate(packages):
        location = ("python", "packages", pin_index)
        if not package_pin.sha256:
            allowed = "at least one sha256"
            if package_pin.url is not None and package_pin.url.startswith("git+"):
                allowed = (
                    "a release of it with a sha256, by lock create --override: what is built from git cannot be "
                    "verified, and this host offers no complete archive of a commit"
                )
            yield _make_finding(
                "package-without-hash", (*location, "sha256"), f"nothing for {package_pin.name}", allowed
            )
        if package_pin.url is not None and package_pin.url.startswith("file:"):
            allowed = "a URL that other machines can reach, too"
            yield _make_finding("machine-path", (*location, "url"), describe_value(package_pin.url), allowed, "warning")


def _check_requirements(lock: Lock) -> Iterator[LockFinding]:
    """Find requirements that no package pin meets: a captured ComfyUI may lack what it requires."""
    python = lock.python
    if not python.packages:
        return
    met_names = {package_pin.name for package_pin in python.packages} | {*python.dropped}
    met_names.update(replaced_name for choice in python.variants for replaced_name in choice.replaces)
    # An override may keep a package off the platform.
    overrides = (parse_requirement(override, "") for override in python.overrides)
    met_names.update(override.name for override in overrides if override is not None and override.name is not None)
    met_names = set(map(normalize_package_name, met_names))
    for line_index, requirement in enumerate(python.requirements):
        required_name = _required_name(requirement)
        if required_name is not None and required_name not in met_names:
            location = ("python", "requirements", line_index)
            found = f"{describe_value(requirement)}, and no package of that name"
            allowed = f"{_upgrade_command(lock)} --package {required_name} adds it"
            yield _make_finding("package-not-pinned", location, found, allowed)


def _required_name(requirement: str) -> str | None:
    """Return the package that a requirement is for on every platform, else None."""
    parsed = parse_requirement(requirement, "")
    return None if parsed is None or ";" in parsed.text else parsed.name


def _upgrade_command(lock: Lock) -> str:
    """Return the command that makes the next lock of this one, to be copied where the lock is found by name."""
    return (
        f"comfypin lock upgrade --lock {shlex.quote(lock.version_name)} --name {shlex.quote(f'{lock.version_name}-2')}"
    )


def _check_model(lock: Lock, index: int, model_pin: ModelPin) -> Iterator[LockFinding]:
    location = ("models", index)
    if model_pin.sha256 is None:
        yield _make_finding("no-checksum", (*location, "sha256"), "nothing", "the sha256 of the file")
    # The sha256 proves the file without its size; only the check for free space suffers.
    if model_pin.size_bytes is None:
        allowed = "the size of the file in bytes (space cannot be checked before)"
        yield _make_finding("no-size", (*location, "size_bytes"), "nothing", allowed, "warning")
    if not model_pin.sources:
        target = model_pin.target_path.removeprefix("$MODELS_DIR/")
        allowed = f"at least one source of its bytes: {_upgrade_command(lock)} --model {target}=https://... adds one"
        yield _make_finding("no-source", (*location, "sources"), f"no source for {target}", allowed)
    for source_index, source in enumerate(model_pin.sources):
        if source.startswith(("file:", "/")):
            allowed = "a source that other machines can reach, too"
            yield _make_finding(
                "machine-path", (*location, "sources", source_index), describe_value(source), allowed, "warning"
            )
    if model_pin.target_path.lower().endswith(_PICKLE) and not model_pin.allow_pickle:
        allowed = "a safetensors file, or allow_pickle: a pickle may run code when it is loaded"
        yield _make_finding(
            "pickle", (*location, "target_path"), describe_value(model_pin.target_path), allowed, "warning"
        )


def has_secret(url: str) -> bool:
    """Return whether a URL holds a password or a token."""
    try:
        url_parts = urlsplit(url)
        query_names = [query_name for query_name, _ in parse_qsl(url_parts.query)]
    except ValueError:
        return False
    # Over HTTP a user's name alone is a token too, as on GitHub.
    has_user = url_parts.username is not None and url_parts.scheme.rpartition("+")[2] in ("http", "https")
    return (
        has_user
        or url_parts.password is not None
        or any(_SECRET_QUERY.search(query_name) for query_name in query_names)
    )


def _check_secrets(lock: Lock) -> Iterator[LockFinding]:
    """Find secrets, because locks are committed and mailed. The value itself is not repeated here."""
    pinned_urls: list[tuple[tuple[str | int, ...], str | None]] = [
        (("comfyui", "repo"), lock.comfyui.repo if lock.comfyui else None),
        *((("custom_nodes", index, "repo"), node_pin.repo) for index, node_pin in enumerate(lock.custom_nodes)),
        *(
            (("python", "packages", index, "url"), package_pin.url)
            for index, package_pin in enumerate(lock.python.packages)
        ),
        *((("python", "indexes", source_index), url) for source_index, url in enumerate(lock.python.indexes)),
    ]
    for pin_index, model_pin in enumerate(lock.models):
        pinned_urls += [
            (("models", pin_index, "sources", source_index), source)
            for source_index, source in enumerate(model_pin.sources)
        ]
    allowed = "a lock holds no secrets; set it in the environment instead"
    for location, pinned_url in pinned_urls:
        if pinned_url is not None and has_secret(pinned_url):
            yield _make_finding("secret", location, "a URL with a password or token", allowed)
    for variable in lock.engine.env:
        if _SECRET_NAME.search(variable):
            yield _make_finding("secret", ("engine", "env", variable), "a value for it", allowed)
    for location in _find_warmup_secrets(lock.engine.warmup, ("engine", "warmup"), depth=0):
        yield _make_finding("secret", location, "a key or password", allowed)


def _find_warmup_secrets(
    value: "JsonValue | Mapping[str, JsonValue]", location: tuple[str | int, ...], *, depth: int
) -> Iterator[tuple[str | int, ...]]:
    """Yield the places in a workflow that hold a secret: nodes that call services have inputs for their keys."""
    if isinstance(value, str):
        if (isinstance(location[-1], str) and _SECRET_INPUT.search(location[-1]) and value) or (
            "://" in value and has_secret(value)
        ):
            yield location
    elif isinstance(value, Mapping | list) and depth < _MAX_WORKFLOW_DEPTH:
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _find_warmup_secrets(inner, (*location, key), depth=depth + 1)


def find_duplicate_pins(lock: Lock) -> Iterator[LockFinding]:
    """Find pins that claim what an earlier pin of the lock has claimed, and packages of targets that the lock lacks."""
    yield from _find_repeats("custom_nodes", ((node_pin.folder, "directory") for node_pin in lock.custom_nodes))
    yield from _find_repeats("models", ((model_pin.target_path, "target_path") for model_pin in lock.models))
    known_targets = set(lock.python.targets)
    seen_keys: set[tuple[str, str | None, str | None]] = set()
    for pin_index, package_pin in enumerate(lock.python.packages):
        # PEP 503: an index takes `Foo_Bar`, `foo.bar` and `foo-bar` for the same package.
        package_name = package_pin.name.lower().replace("_", "-").replace(".", "-")
        pin_key = (package_name, package_pin.target, package_pin.marker)
        if pin_key in seen_keys:
            pin_path = f"$.python.packages[{pin_index}].name"
            allowed = "one version of a package for each target and marker"
            yield LockFinding(
                rule="claimed-twice", path=pin_path, found=describe_value(package_pin.name), allowed=allowed
            )
        seen_keys.add(pin_key)
        if package_pin.target is not None and package_pin.target not in known_targets:
            pin_path, allowed = (
                f"$.python.packages[{pin_index}].target",
                f"one of python.targets: {', '.join(sorted(known_targets))}",
            )
            yield LockFinding(
                rule="unknown-target", path=pin_path, found=describe_value(package_pin.target), allowed=allowed
            )


def _find_repeats(section: str, claimed_places: Iterable[tuple[str, str]]) -> Iterator[LockFinding]:
    first_index: dict[str, int] = {}
    for pin_index, (claimed_place, key_name) in enumerate(claimed_places):
        if claimed_place in first_index:
            allowed = f"{section}[{first_index[claimed_place]}] has this path already; each pin needs its own"
            json_path_of_pin = f"$.{section}[{pin_index}].{key_name}"
            yield LockFinding(
                rule="claimed-twice", path=json_path_of_pin, found=describe_value(claimed_place), allowed=allowed
            )
        first_index.setdefault(claimed_place, pin_index)
