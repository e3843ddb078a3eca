"""Requirements to package pins: one joint resolve for each target by uv, with the torch trio held together."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from comfypin.http.proxies import Proxies
from comfypin.lock.model import PackagePin, PythonPins
from comfypin.lock.requirements import Need, Needs
from comfypin.locking.errors import (
    GitPackageUnreachable,
    PackagesUnreachable,
    RequirementsConflict,
    RequirementsUnreadable,
    TorchTrioSplit,
)
from comfypin.locking.git_archives import HOSTS, archives, instead, repository_of, require_archives
from comfypin.locking.pylock import PLATFORMS, Platform, file_name, read_pylock
from comfypin.temp_folders import temp_folder
from comfypin.tools.errors import UvFailed
from comfypin.tools.process import FinishedProcess
from comfypin.tools.uv import run_uv

TRIO = ("torch", "torchvision", "torchaudio")
_INDEX_FLAG = re.compile(r": (--(extra-)?index-url|--find-links|-i|-f)\b")
_UNREACHABLE = re.compile(r"error sending request|dns error|Failed to fetch|failed to clone|Could not connect", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be resolved.

    `torch` is the build that is wanted (`cu128`, `cpu`); None takes what the index has. `keep` are pins that stay
    where they still fit, but for the packages in `move`. `overrides` replace what anybody asks of a package.
    `git_hosts` give archives of commits (`lock.gitarchives`).
    """

    needs: Needs
    python: str
    platforms: tuple[str, ...]
    torch: str | None = None
    overrides: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    exclude_newer: str | None = None
    git_hosts: Mapping[str, str] = field(default_factory=lambda: HOSTS, hash=False)
    proxies: Proxies = field(default_factory=Proxies, compare=False)
    keep: tuple[PackagePin, ...] = ()
    move: frozenset[str] = field(default_factory=frozenset)


def resolve(question: Question, *, tell: Callable[[str], None]) -> PythonPins:
    """Resolve for every platform, and say which packages they share.

    Raises `RequirementsUnreadable`, `RequirementsConflict`, `TorchTrioSplit`, `PackagesUnreachable`,
    `GitPackageUnreachable`, `PackageWithoutFile` or `UvFailed`.
    """
    if question.needs.unusable:
        raise RequirementsUnreadable(lines=question.needs.unusable)
    by_target: dict[str, tuple[PackagePin, ...]] = {}
    for name in question.platforms:
        tell(f"resolving {len(question.needs.requirements)} requirements for {name}, Python {question.python}")
        pins = _resolve_platform(question, PLATFORMS[name])
        require_archives(pins, question.needs.requirements)
        by_target[target_name(name, pins)] = pins
    return PythonPins(
        version=question.python,
        targets={target: {} for target in by_target},
        packages=merge_targets(by_target),
    )


def _resolve_platform(question: Question, platform: Platform) -> tuple[PackagePin, ...]:
    """Resolve from the ordinary index, then from PyTorch's own where its build of torch is another one."""
    pins = _with_archives(question, platform, backend=None)
    built_for = torch_build(pins)
    if question.torch is None or built_for is None or built_for == question.torch or not platform.name.startswith("li"):
        return pins
    return _with_archives(question, platform, backend=question.torch)


def _with_archives(question: Question, platform: Platform, backend: str | None) -> tuple[PackagePin, ...]:
    """Packages from git have no sha256; the archives of their commits have one. What cannot be built of one stays."""
    pins = _with_trio(question, platform, backend)
    chosen = archives(pins, question.git_hosts, proxies=question.proxies)
    if not chosen:
        return pins
    try:
        return _with_trio(replace(holding(question, chosen), keep=pins), platform, backend)
    except (UvFailed, RequirementsConflict, PackagesUnreachable):
        return pins


def _with_trio(question: Question, platform: Platform, backend: str | None) -> tuple[PackagePin, ...]:
    """torchaudio does not say which torch it belongs to: where the newest ones differ, one of them is held back."""
    pins = _compile(question, platform, backend, ())
    if trio_fits(pins):
        return pins
    minors = {pin.name: _minor(pin.version) for pin in pins if pin.name in TRIO}
    for held in (f"torchaudio=={minors['torch']}.*", f"torch=={minors['torchaudio']}.*"):
        try:
            together = _compile(question, platform, backend, (held,))
        except RequirementsConflict:
            continue
        if trio_fits(together):
            return together
    if _says_exactly(question.needs.requirements, "torchaudio") and _says_exactly(question.needs.requirements, "torch"):
        return pins
    versions = ", ".join(f"{pin.name} {pin.version}" for pin in pins if pin.name in TRIO)
    raise TorchTrioSplit(versions=versions, target=platform.name)


def holding(question: Question, chosen: Mapping[str, str]) -> Question:
    """The question with what was chosen for each git repository, whoever asks for it."""
    needs = replace(question.needs, requirements=instead(question.needs.requirements, chosen))
    return replace(question, needs=needs, overrides=(*question.overrides, *chosen.values()))


def trio_fits(pins: Iterable[PackagePin]) -> bool:
    """Whether torch and torchaudio are of one release; torchvision names its torch itself, so the resolve saw to it."""
    minors = {pin.name: _minor(pin.version) for pin in pins}
    return "torch" not in minors or minors.get("torchaudio", minors["torch"]) == minors["torch"]


def _minor(version: str) -> str:
    return ".".join(version.partition("+")[0].split(".")[:2])


def _says_exactly(needs: Iterable[Need], name: str) -> bool:
    return any(need.name == name and need.origin.startswith("--") and "==" in need.text for need in needs)


def torch_build(pins: Iterable[PackagePin]) -> str | None:
    """What torch was built for: `cu128`, `cpu`, ..., None without torch or where nothing tells."""
    versions = {pin.name: pin.version for pin in pins}
    if "torch" not in versions:
        return None
    _, _, local = versions["torch"].partition("+")
    if local:
        return local
    for name, version in versions.items():
        # torch on PyPI brings its CUDA as packages; their version is the build's.
        if re.fullmatch(r"nvidia-cuda-runtime(-cu\d+)?", name):
            return "cu" + "".join(version.split(".")[:2])
    return None


def target_name(platform: str, pins: Iterable[PackagePin]) -> str:
    """`linux-x86_64-cu128`; without torch just the platform."""
    build = torch_build(pins)
    return f"{platform}-{build}" if build and platform.startswith("linux") else platform


def merge_targets(by_target: Mapping[str, Sequence[PackagePin]]) -> tuple[PackagePin, ...]:
    """The pins of all targets: those that every target has alike once, the others for their target."""
    if len(by_target) == 1:
        return tuple(next(iter(by_target.values())))
    shared = set.intersection(*(set(pins) for pins in by_target.values()))
    own = [replace(pin, target=target) for target, pins in by_target.items() for pin in pins if pin not in shared]
    return (*sorted(shared, key=lambda pin: pin.name), *own)


def _compile(
    question: Question, platform: Platform, backend: str | None, extra: tuple[str, ...]
) -> tuple[PackagePin, ...]:
    arguments = ["--torch-backend", backend] if backend else []
    arguments += ["--exclude-newer", question.exclude_newer] if question.exclude_newer else []
    arguments += [part for index in question.indexes for part in ("--index", index)]
    if question.keep:
        arguments += [part for package in sorted(question.move) for part in ("--upgrade-package", package)]
    kept = [pin for pin in question.keep if pin.target is None or pin.target.startswith(platform.name)]
    done, text = _run(
        {
            "requirements.in": {need.text for need in question.needs.requirements},
            "constraints.txt": {*(need.text for need in question.needs.constraints), *extra},
            "overrides.txt": set(question.overrides),
        },
        [*arguments, "--python-version", question.python, "--python-platform", platform.uv_name],
        earlier=_preferences(kept) if kept else None,
    )
    if done.exit_code:
        raise _failure(done, question, platform, backend)
    return read_pylock(text, platform=platform, python=question.python)


def _run(
    files: Mapping[str, set[str]], arguments: Sequence[str], earlier: str | None = None, *, patient: bool = True
) -> tuple[FinishedProcess, str]:
    """Run `uv pip compile` on these files, and give what it said and the pylock.toml that it wrote."""
    with temp_folder("resolve") as name:
        folder = Path(name)
        for file, lines in files.items():
            (folder / file).write_text("".join(f"{line}\n" for line in sorted(lines)))
        output = folder / "pylock.toml"
        if earlier is not None:
            output.write_text(earlier)
        command = ["pip", "compile", "requirements.in", "--format", "pylock.toml", "-o", str(output)]
        command += ["--constraint", "constraints.txt"] if "constraints.txt" in files else []
        command += ["--override", "overrides.txt"] if "overrides.txt" in files else []
        done = run_uv([*command, *arguments], cwd=folder, patient=patient)
        return done, "" if done.exit_code else output.read_text()


def pin_installed(
    requirements: Sequence[str], question: Question, *, tell: Callable[[str], None]
) -> tuple[PythonPins, tuple[str, ...]]:
    """Pins for exactly these (`name==version`, `name @ url`), nothing added, and those that no index has.

    Raises `PackagesUnreachable`, `PackageWithoutFile` or `UvFailed`.
    """
    python, platform_name = question.python, question.platforms[0]
    platform = PLATFORMS[platform_name]
    wanted = sorted(set(requirements))
    local = next((line.partition("+")[2] for line in wanted if re.match(r"torch==[^+]+\+", line)), None)
    missing: list[str] = []
    pins: tuple[PackagePin, ...] = ()
    unheard: str | None = None
    tell(f"looking up the files of {len(wanted)} packages")
    while wanted:
        arguments = ["--no-deps", "--python-version", python, "--python-platform", platform.uv_name]
        arguments += ["--torch-backend", local] if local else []
        arguments += [part for index in question.indexes for part in ("--index", index)]
        # PyTorch's own index is asked only for its builds, which another index may have too.
        done, text = _run({"requirements.in": set(wanted)}, arguments, patient=local is None)
        if not done.exit_code:
            pins = read_pylock(text, platform=platform, python=python)
            break
        if local and _UNREACHABLE.search(done.stderr):
            # Without PyTorch's own index only its builds cannot be had; the rest is looked up all the same.
            tell(f"PyTorch's index for {local} cannot be reached; looking for torch on the others")
            local, unheard = None, local
            continue
        absent = _absent(done.stderr, wanted)
        if not absent:
            raise _failure(done, question, platform, None)
        if unheard:
            _require_no_torch(absent, unheard)
        missing += absent
        wanted = [line for line in wanted if line not in absent]
    target = target_name(platform_name, pins)
    return PythonPins(version=python, targets={target: {}}, packages=pins), tuple(missing)


def _require_no_torch(absent: Iterable[str], unheard: str) -> None:
    """Raise `PackagesUnreachable` where only PyTorch's index, which was not heard, may have what is absent."""
    if builds := [line for line in absent if line.partition("==")[0].lower() in TRIO]:
        hint = f" {', '.join(builds)} may be PyTorch's own; name an index that has it with --index."
        raise PackagesUnreachable(reason=f"PyTorch's index for {unheard} does not answer", hint=hint)


def _absent(said: str, wanted: Sequence[str]) -> list[str]:
    """Which of the wanted requirements uv could not find."""
    text = re.sub(r"\s+", " ", said)
    if "No solution found" not in text:
        return []
    named = set(re.findall(r"([a-zA-Z0-9._-]+)==[^\s,]+", text))
    named |= set(re.findall(r"([a-zA-Z0-9._-]+) was not found in the", text))
    plain = {re.sub(r"[-_.]+", "-", name).lower() for name in named}
    return [line for line in wanted if re.sub(r"[-_.]+", "-", re.split(r"[=@ ]", line)[0]).lower() in plain]


def _preferences(pins: Iterable[PackagePin]) -> str:
    """A pylock.toml of earlier pins: uv keeps their versions where it can."""
    tables = [_preference(pin) for pin in pins if pin.url and not pin.url.startswith("git+") and pin.sha256]
    return "\n".join(['lock-version = "1.0"\ncreated-by = "comfypin"\n', *(tables or ["packages = []\n"])])


def _preference(pin: PackagePin) -> str:
    file = f'{{ url = "{pin.url}", hashes = {{ sha256 = "{pin.sha256[0].hex}" }} }}'
    kind = f"wheels = [{file}]" if file_name(str(pin.url)).endswith(".whl") else f"sdist = {file}"
    return f'[[packages]]\nname = "{pin.name}"\nversion = "{pin.version}"\n{kind}\n'


def _failure(done: FinishedProcess, question: Question, platform: Platform, backend: str | None) -> Exception:
    """What uv said, as the error that it is."""
    said = done.stderr.rpartition("error: ")[2].strip() or done.error_summary
    text = re.sub(r"\s+", " ", re.sub(r"(?m)^\s*cause:\s*", "", said))
    if "No solution found" in said or "unsatisfiable" in said:
        explanation = text.removeprefix("No solution found when resolving dependencies").strip(" :")
        target = f"{platform.name}, Python {question.python}"
        wants = _wants(question.needs, text)
        unheard = [line for line in question.needs.ignored if _INDEX_FLAG.search(line)]
        return RequirementsConflict(target=target, wants=wants, explanation=explanation, unheard=unheard)
    if "Git operation failed" in said:
        asked = [need for need in question.needs.requirements if (place := repository_of(need.text)) and place in said]
        return GitPackageUnreachable(wants=[str(need) for need in asked], reason=text[-600:])
    if _UNREACHABLE.search(said):
        hint = (
            f" --torch {backend} needs PyTorch's own index, because the torch on PyPI is built for something else; "
            "leave --torch out to take that one."
            if backend
            else " Check the network."
        )
        return PackagesUnreachable(reason=text[:600], hint=hint)
    return UvFailed(doing=f"resolve the packages for {platform.name}", reason=text[:1500])


def _wants(needs: Needs, explanation: str) -> list[str]:
    """Who asks directly for the packages that the resolver talks of."""
    named = set(re.findall(r"[a-z0-9][a-z0-9._-]*[a-z0-9]|[a-z0-9]", explanation.lower()))
    normalized = {re.sub(r"[-_.]+", "-", name) for name in named}
    asked = [need for need in (*needs.requirements, *needs.constraints) if need.name in normalized]
    return list(dict.fromkeys(str(need) for need in sorted(asked, key=lambda need: (need.name or "", need.origin))))
