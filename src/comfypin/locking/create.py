"""A new lock: refs to commits, one joint resolve, models with digests. Same inputs, same bytes."""

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from comfypin.addresses import hide_credentials
from comfypin.errors import ConfigError
from comfypin.lock.errors import SpecInvalid
from comfypin.lock.model import EngineSpec, Lock, NodePin, PythonPins, RepoPin
from comfypin.lock.model_spec import DescribeModel, ModelSpec, pin_models
from comfypin.lock.requirements import Needs, decoded, parse_need, plain_name, read_needs
from comfypin.locking.errors import NotComfyUI, PackagesNowhere
from comfypin.locking.git_archives import archives, repository_of, require_archives
from comfypin.locking.repository_refs import RepoSpec
from comfypin.locking.resolve import Question, pin_installed, resolve
from comfypin.locking.sources import WORKERS, Part, Places, node_pin, read_part, ref_of

TORCH = re.compile(r"cpu|cu\d{2,4}|rocm\d+(\.\d+)*|xpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a release is to be made of, as the user says it.

    `install_scripts` are the folders of nodes whose install.py is to run ("all": every one); `dropped` are lines or
    names of requirements that are left out; `installed` are exactly the packages (`name==version`) where they are
    known and nothing is to be resolved; `question` holds how packages are resolved, without the needs.
    """

    name: str
    comfyui: RepoSpec
    nodes: tuple[RepoSpec, ...] = ()
    packages: tuple[str, ...] = ()
    requirement_files: tuple[Path, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    system_packages: tuple[str, ...] = ()
    install_scripts: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    installed: tuple[str, ...] | None = None
    engine: EngineSpec = field(default_factory=EngineSpec)
    question: Question = field(
        default_factory=lambda: Question(needs=Needs(), python="3.12", platforms=("linux-x86_64",))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A lock that was made, and what its maker should know."""

    lock: Lock
    notes: tuple[str, ...] = ()


def create(wishes: Wishes, *, places: Places, describe_model: DescribeModel, tell: Callable[[str], None]) -> Made:
    """Make a lock. Raises errors of git (`comfypin.tools.errors`), `comfypin.locking.errors` and models."""
    _check_folders(wishes.nodes)
    tell(f"fetching ComfyUI and {len(wishes.nodes)} nodes")
    with ThreadPoolExecutor(WORKERS) as pool:
        parts = list(
            pool.map(
                lambda spec: _read_part(spec, spec is wishes.comfyui, wishes, places), (wishes.comfyui, *wishes.nodes)
            )
        )
    _check_names(wishes, parts[1:])
    own = own_needs(wishes.packages, wishes.requirement_files, wishes.dropped)
    needs = sum((part.needs for part in parts), own)
    question = replace(wishes.question, proxies=places.proxies)
    if wishes.installed is None:
        python = resolve(replace(question, needs=needs), tell=tell)
    else:
        python = pin_all(wishes.installed, question, tell)
    models = pin_models(wishes.models, describe_model, tell=tell)
    comfyui, nodes = parts[0], parts[1:]
    lock = Lock(
        version_name=wishes.name,
        comfyui=RepoPin(repo=comfyui.spec.repo, ref=ref_of(comfyui), commit=comfyui.commit),
        custom_nodes=tuple(node_pin(part, wishes.install_scripts) for part in nodes),
        python=replace(
            python,
            requirements=tuple(need.text for need in own.requirements),
            overrides=wishes.question.overrides,
            dropped=tuple(sorted(wishes.dropped)),
            indexes=tuple(map(hide_credentials, wishes.question.indexes)),
        ),
        models=models,
        system_packages=wishes.system_packages,
        engine=wishes.engine,
    )
    notes = (*_notes(needs, nodes, lock.custom_nodes), *_unheard(wishes, needs, python), *package_notes(python))
    return Made(lock=lock, notes=notes)


def _read_part(spec: RepoSpec, is_comfyui: bool, wishes: Wishes, places: Places) -> Part:  # noqa: FBT001
    origin = "ComfyUI" if is_comfyui else f"the node {spec.name}"
    part = read_part(spec, origin=origin, places=places, dropped=wishes.dropped)
    if is_comfyui and not part.has_main:
        raise NotComfyUI(where=f"{spec.repo} at {str(part.commit)[:12]}", lacks="main.py")
    return part


def own_needs(packages: Iterable[str], files: Iterable[Path], dropped: frozenset[str]) -> Needs:
    """What the user asks for beside ComfyUI and the nodes. Raises `SpecInvalid` or `ConfigError`."""
    needs = Needs()
    for package in packages:
        need = parse_need(package, "--package")
        if need is None:
            raise SpecInvalid(what="package", spec=package, form="a requirement, such as accelerate==1.10.1 or 'x>=2'")
        needs += Needs(requirements=(need,))
    for path in files:
        folder = path.parent
        if not path.is_file():
            raise ConfigError(f"The requirement file {path} is not there.", path=str(path))
        needs += read_needs(path.name, origin=f"--requirements {path}", read=_reader(folder), dropped=dropped)
    return needs


def _reader(folder: Path) -> Callable[[str], str | None]:
    def read(name: str) -> str | None:
        path = folder / name
        return decoded(path.read_bytes()) if path.is_file() else None

    return read


def pin_all(installed: Sequence[str], question: Question, tell: Callable[[str], None]) -> PythonPins:
    """Pins for exactly these packages. Raises `PackagesNowhere`, or `GitPackageUnpinnable`."""
    pins, missing = pin_installed(installed, question, tell=tell)
    if chosen := archives(pins.packages, question.git_hosts, proxies=question.proxies):
        lines = [chosen.get(repository_of(line) or "", line) for line in installed]
        pins, missing = pin_installed(lines, question, tell=tell)
    if missing:
        raise PackagesNowhere(packages=missing)
    require_archives(pins.packages)
    return replace(pins, indexes=tuple(map(hide_credentials, question.indexes)))


def _check_folders(nodes: Sequence[RepoSpec]) -> None:
    seen: dict[str, RepoSpec] = {}
    for node in nodes:
        if node.name in seen:
            form = f"FOLDER={node.repo}: the folder {node.name} is {seen[node.name].repo}'s already"
            raise SpecInvalid(what="node with a folder of its own", spec=node.repo, form=form)
        seen[node.name] = node


def _check_names(wishes: Wishes, nodes: Sequence[Part]) -> None:
    """A name that nothing has is a slip of the pen, and would change the release without a word."""
    there = [node.spec.name for node in nodes if node.install_script is not None]
    for name in sorted(wishes.install_scripts - {"all", *there}):
        raise SpecInvalid(
            what="node with an install.py", spec=name, form=f"one of: {', '.join(there)}" if there else "no such flag"
        )


def _notes(needs: Needs, nodes: Sequence[Part], pins: Sequence[NodePin]) -> list[str]:
    skipped = [pin.folder for pin in pins if pin.install_script_sha256 and pin.install_script == "skip"]
    notes = [f"not obeyed: {line}" for line in needs.ignored]
    if skipped:
        named = " ".join(f"--install-script {name}" for name in skipped)
        notes.append(f"install.py of {', '.join(skipped)} will be skipped; to have it run: {named}")
    return notes


def _unheard(wishes: Wishes, needs: Needs, python: PythonPins) -> list[str]:
    """What was asked for, and there was nothing to do it to."""
    ignored = {line.partition(": ")[2] for line in needs.ignored}
    names = {need.name for line in ignored if (need := parse_need(line, ""))}
    idle = sorted(name for name in wishes.dropped - ignored if plain_name(name) not in names)
    notes = [f"nobody asks for {name}, so nothing was dropped" for name in idle]
    if wishes.question.torch and not any(pin.name == "torch" for pin in python.packages):
        notes.append(f"nobody asks for torch, so --torch {wishes.question.torch} changes nothing")
    return notes


def package_notes(python: PythonPins) -> list[str]:
    """What is unusual about packages: built from source, or fetched by git."""
    source = [pin.name for pin in python.packages if pin.url and not pin.url.partition("#")[0].endswith(".whl")]
    return [f"without a wheel, built when the env is made: {', '.join(source)}"] if source else []
