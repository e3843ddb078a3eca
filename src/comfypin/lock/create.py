"""A new lock: refs to commits, one joint resolve, models with digests. Same inputs, same bytes."""

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from comfypin.digest import Digest
from comfypin.errors import ConfigError
from comfypin.errors.create import NotComfyUI, SpecInvalid
from comfypin.lock.model import EngineSpec, Lock, NodePin, PythonPins, RepoPin
from comfypin.lock.modelspec import DescribeModel, ModelSpec, pin_models
from comfypin.lock.needs import Needs, parse_need, read_needs
from comfypin.lock.refs import RepoSpec
from comfypin.lock.resolve import Question, resolve
from comfypin.tools.git import FULL_COMMIT, Commits, list_tree, read_blobs
from comfypin.tools.remote import resolve_ref

WORKERS = 8
TORCH = re.compile(r"cpu|cu\d{2,4}|rocm\d+(\.\d+)*|xpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a release is to be made of, as the user says it.

    `install_scripts` are the folders of nodes whose install.py is to run ("all": every one); `dropped` are lines or
    names of requirements that are left out; `question` holds how packages are resolved, without the needs.
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
    engine: EngineSpec = field(default_factory=EngineSpec)
    question: Question = field(
        default_factory=lambda: Question(needs=Needs(), python="3.12", platforms=("linux-x86_64",))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A lock that was made, and what its maker should know."""

    lock: Lock
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A repository at its commit, as much of it as a lock needs to know."""

    spec: RepoSpec
    commit: str
    needs: Needs
    install_script: bytes | None = None


def create(wishes: Wishes, *, commits: Commits, describe_model: DescribeModel, tell: Callable[[str], None]) -> Made:
    """Make a lock. Raises errors of git (`comfypin.errors.tools`), `comfypin.errors.create` and models."""
    _check_folders(wishes.nodes)
    tell(f"fetching ComfyUI and {len(wishes.nodes)} nodes")
    with ThreadPoolExecutor(WORKERS) as pool:
        parts = list(
            pool.map(
                lambda spec: _read_part(spec, spec is wishes.comfyui, wishes, commits), (wishes.comfyui, *wishes.nodes)
            )
        )
    own = own_needs(wishes.packages, wishes.requirement_files, wishes.dropped)
    needs = sum((part.needs for part in parts), own)
    python = resolve(replace(wishes.question, needs=needs), tell=tell)
    models = pin_models(wishes.models, describe_model, tell=tell)
    comfyui, nodes = parts[0], parts[1:]
    lock = Lock(
        version_name=wishes.name,
        comfyui=RepoPin(repo=comfyui.spec.repo, ref=ref_of(comfyui.spec), commit=comfyui.commit),
        custom_nodes=tuple(node_pin(part, wishes.install_scripts) for part in nodes),
        python=replace(python, requirements=tuple(need.text for need in own.requirements)),
        models=models,
        system_packages=wishes.system_packages,
        engine=wishes.engine,
    )
    return Made(lock=lock, notes=(*_notes(needs, nodes, lock.custom_nodes), *package_notes(lock.python)))


def read_part(spec: RepoSpec, *, origin: str, commits: Commits, dropped: frozenset[str] = frozenset()) -> Part:
    """Fetch a repository at its ref, and read what it requires and its install script."""
    commit = resolve_ref(spec.repo, spec.ref)
    kept = commits.obtain(spec.repo, commit)
    entries = {entry.path: entry for entry in list_tree(kept, commit) if entry.mode.startswith("100")}

    def read(path: str) -> bytes | None:
        if path not in entries:
            return None
        return next(data for _, data in read_blobs(kept, [entries[path]], spec.repo, commit))

    def read_text(path: str) -> str | None:
        data = read(path)
        return None if data is None else data.decode("utf-8-sig", errors="replace")

    if "requirements.txt" in entries:
        needs = read_needs("requirements.txt", origin=origin, read=read_text, dropped=dropped)
    else:
        needs = _project_needs(read_text("pyproject.toml"), origin, dropped)
    return Part(spec=spec, commit=commit, needs=needs, install_script=read("install.py"))


def _read_part(spec: RepoSpec, is_comfyui: bool, wishes: Wishes, commits: Commits) -> Part:  # noqa: FBT001
    origin = "ComfyUI" if is_comfyui else f"the node {spec.name}"
    part = read_part(spec, origin=origin, commits=commits, dropped=wishes.dropped)
    if is_comfyui:
        kept = commits.obtain(spec.repo, part.commit)
        if not any(entry.path == "main.py" for entry in list_tree(kept, part.commit)):
            raise NotComfyUI(where=f"{spec.repo} at {part.commit[:12]}", lacks="main.py")
    return part


def _project_needs(text: str | None, origin: str, dropped: frozenset[str]) -> Needs:
    """The dependencies of a pyproject.toml, for nodes that have no requirements.txt."""
    import tomllib

    try:
        project = tomllib.loads(text or "").get("project", {})
        lines = project.get("dependencies", []) if isinstance(project, dict) else []
    except tomllib.TOMLDecodeError as error:
        return Needs(unusable=(f"{origin}: pyproject.toml is not TOML ({error})",))
    listed = "\n".join(str(line) for line in lines) if isinstance(lines, list) else ""
    return read_needs("pyproject.toml", origin=origin, read=lambda _: listed, dropped=dropped)


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
        return path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else None

    return read


def ref_of(spec: RepoSpec) -> str | None:
    """The name that was asked for, where it is one: a commit is its own name."""
    return None if spec.ref is None or FULL_COMMIT.fullmatch(spec.ref.lower()) else spec.ref


def node_pin(part: Part, install_scripts: frozenset[str]) -> NodePin:
    """The pin of a node: its commit, its folder, and its install script with what is to be done about it."""
    script = part.install_script
    runs = script is not None and ("all" in install_scripts or part.spec.name in install_scripts)
    return NodePin(
        name=part.spec.name,
        repo=part.spec.repo,
        ref=ref_of(part.spec),
        commit=part.commit,
        install_script="run" if runs else "skip",
        install_script_sha256=None if script is None else Digest.of(script),
    )


def _check_folders(nodes: Sequence[RepoSpec]) -> None:
    seen: dict[str, RepoSpec] = {}
    for node in nodes:
        if node.name in seen:
            form = f"FOLDER={node.repo}: the folder {node.name} is {seen[node.name].repo}'s already"
            raise SpecInvalid(what="node with a folder of its own", spec=node.repo, form=form)
        seen[node.name] = node


def _notes(needs: Needs, nodes: Sequence[Part], pins: Sequence[NodePin]) -> list[str]:
    skipped = [pin.folder for pin in pins if pin.install_script_sha256 and pin.install_script == "skip"]
    notes = [f"not obeyed: {line}" for line in needs.ignored]
    if skipped:
        named = " ".join(f"--install-script {name}" for name in skipped)
        notes.append(f"install.py of {', '.join(skipped)} will be skipped; to have it run: {named}")
    return notes


def package_notes(python: PythonPins) -> list[str]:
    """What is unusual about packages: built from source, or fetched by git."""
    source = [pin.name for pin in python.packages if pin.url and not pin.url.partition("#")[0].endswith(".whl")]
    return [f"without a wheel, built when the env is made: {', '.join(source)}"] if source else []
