"""What has to be done so that a home has the env of a lock, decided before anything is done (pure)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from comfypin.digest import Digest, JsonValue
from comfypin.env.errors import NotAnEngine
from comfypin.env.layout import COMFYUI, CUSTOM_NODES, VENV
from comfypin.env.package_selection import Interpreter, choose_target, select
from comfypin.env.receipt import Receipt
from comfypin.lock.check import check_lock
from comfypin.lock.codec import env_digest
from comfypin.lock.errors import LockIncomplete
from comfypin.lock.model import Lock, NodePin, PackagePin, RepoPin

Action = Literal["keep", "rewire", "unpack", "build"]
_PLAIN_FOLDER = re.compile(r"[^/\0]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What an env is made of on this machine. `key` names its build, the same wherever the lock is realized."""

    key: str
    version_name: str
    env_digest: Digest
    target: str | None
    interpreter: Interpreter
    comfyui: RepoPin
    nodes: tuple[NodePin, ...]
    packages: tuple[PackagePin, ...]

    @property
    def pack_name(self) -> str:
        """The name of the env's pack."""
        return pack_name(self.key, self.interpreter.platform)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is there already: a receipt, an interpreter that works, a pack, and which commits are kept."""

    receipt: Receipt | None = None
    interpreter_works: bool = False
    pack: str | None = None
    commits: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that will be done, for people (`text`) and machines."""

    name: str
    subject: str
    text: str

    def to_json(self) -> dict[str, JsonValue]:
        return {"step": self.name, "subject": self.subject, "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The action and its steps, in order."""

    recipe: Recipe
    action: Action
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "action": self.action,
            "key": self.recipe.key,
            "env_digest": self.recipe.env_digest.hex,
            "release": self.recipe.version_name,
            "target": self.recipe.target,
            "python": self.recipe.interpreter.version,
            "packages": len(self.recipe.packages),
            "steps": [step.to_json() for step in self.steps],
        }


def require_pinned(lock: Lock, where: str) -> None:
    """Raises `NotAnEngine`, or `LockIncomplete` naming every pin of the env that is not one (models are not of it)."""
    if lock.engine.kind != "comfyui":
        raise NotAnEngine(kind=lock.engine.kind)
    findings = [
        finding
        for finding in check_lock(lock)
        if finding.severity == "error" and not finding.path.startswith("$.models")
    ]
    if findings:
        raise LockIncomplete(where=where, findings=findings)


def make_recipe(lock: Lock, interpreter: Interpreter, *, target: str | None = None) -> Recipe:
    """What the lock means on this machine. Raises `TargetMissing` or `WheelUnfit`."""
    assert lock.comfyui is not None, "require_pinned comes first"
    chosen = choose_target(lock, interpreter.machine, target)
    return Recipe(
        key=key_of(lock, interpreter.machine, target),
        version_name=lock.version_name,
        env_digest=env_digest(lock),
        target=chosen,
        interpreter=interpreter,
        comfyui=lock.comfyui,
        nodes=tuple(sorted(lock.custom_nodes, key=lambda node: node.folder)),
        packages=select(lock, chosen, interpreter),
    )


def key_of(lock: Lock, machine: str, target: str | None = None) -> str:
    """The name of a lock's build on such a machine: the env digest, and the target where the lock has several."""
    chosen = choose_target(lock, machine, target)
    suffix = f"-{re.sub(r'[^A-Za-z0-9._-]', '_', chosen)}" if chosen and len(lock.python.targets) > 1 else ""
    return env_digest(lock).hex + suffix


def pack_name(key: str, platform: str) -> str:
    """The name of an env's pack: env digest, target, and what its wheels and byte-code need."""
    return f"{key}.{platform}.envpack"


def make_plan(recipe: Recipe, survey: Survey, *, rebuild: bool = False) -> Plan:
    """Receipt, then pack, then building."""
    whole = survey.receipt is not None and survey.receipt.key == recipe.key
    if whole and not rebuild:
        if survey.interpreter_works:
            return Plan(recipe=recipe, action="keep", steps=())
        text = f"point the venv at {recipe.interpreter.path}"
        step = Step(name="rewire", subject=VENV, text=text)
        return Plan(recipe=recipe, action="rewire", steps=(step,))
    if survey.pack is not None and not rebuild:
        step = Step(name="unpack", subject=survey.pack, text=f"unpack and verify {survey.pack}")
        return Plan(recipe=recipe, action="unpack", steps=(step,))
    return Plan(recipe=recipe, action="build", steps=tuple(_build_steps(recipe, survey)))


def folder_of(node: NodePin) -> str:
    """A node's folder, relative to the build. Raises `ValueError` unless it is one plain name."""
    if not _PLAIN_FOLDER.fullmatch(node.folder) or node.folder in {".", "..", "__pycache__"}:
        raise ValueError(f"{node.folder!r} is not a folder name")
    return f"{CUSTOM_NODES}/{node.folder}"


def _build_steps(recipe: Recipe, survey: Survey) -> Sequence[Step]:
    steps = [_source_step(COMFYUI, recipe.comfyui, survey)]
    steps += [_source_step(folder_of(node), node, survey) for node in recipe.nodes]
    python, count = recipe.interpreter, len(recipe.packages)
    steps.append(Step(name="venv", subject=VENV, text=f"make a venv with Python {python.version} ({python.path})"))
    steps.append(Step(name="packages", subject=VENV, text=f"install {count} packages, each by its sha256"))
    steps += [
        Step(name="script", subject=node.folder, text=f"run install.py of {node.name}")
        for node in recipe.nodes
        if node.install_script == "run"
    ]
    steps.append(Step(name="probe", subject=COMFYUI, text="start ComfyUI without serving, and import every node"))
    steps.append(Step(name="commit", subject=recipe.key, text="rename the build into its place, write the receipt"))
    return steps


def _source_step(folder: str, pin: RepoPin | NodePin, survey: Survey) -> Step:
    if isinstance(pin, NodePin) and pin.archive:
        return Step(name="archive", subject=folder, text=f"unpack {pin.archive}")
    kept = " (kept here already)" if pin.commit in survey.commits else ""
    patched = ", then its patch" if pin.patch else ""
    return Step(name="source", subject=folder, text=f"write {pin.repo} at {pin.commit}{kept}{patched}")
