"""Plans what it takes to realize the env of a lock here, before anything is done (pure)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from comfypin.digest import Digest, JsonValue
from comfypin.env.errors import NotAnEngine
from comfypin.env.layout import COMFYUI_FOLDER, CUSTOM_NODES_FOLDER, VENV_FOLDER
from comfypin.env.package_selection import Interpreter, choose_target, select_packages
from comfypin.env.receipt import Receipt
from comfypin.lock.check import check_lock
from comfypin.lock.codec import env_digest
from comfypin.lock.errors import LockIncomplete
from comfypin.lock.model import Lock, NodePin, PackagePin, RepoPin, VariantChoice
from comfypin.plurals import format_count

Action = Literal["keep", "rewire", "unpack", "build"]
_PLAIN_FOLDER = re.compile(r"[^/\0]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvRecipe:
    """Says what an env is made of on this machine. `key` names its build, the same wherever the lock is realized."""

    key: str
    version_name: str
    env_digest: Digest
    target: str | None
    interpreter: Interpreter
    comfyui: RepoPin
    nodes: tuple[NodePin, ...]
    packages: tuple[PackagePin, ...]
    variants: tuple[VariantChoice, ...] = ()

    @property
    def pack_name(self) -> str:
        """Return the name of the env's pack."""
        return pack_name(self.key, self.interpreter.platform_tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeContents:
    """Says what exists already: a receipt, an interpreter that works, a pack, and which commits are kept."""

    receipt: Receipt | None = None
    interpreter_works: bool = False
    pack: str | None = None
    commits: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class RealizeStep:
    """Describes one thing that will be done, for people (`text`) and machines."""

    name: str
    subject: str
    text: str

    def to_json(self) -> dict[str, JsonValue]:
        return {"step": self.name, "subject": self.subject, "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class RealizePlan:
    """Holds the action and its steps, in order."""

    recipe: EnvRecipe
    action: Action
    steps: tuple[RealizeStep, ...]

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
    """Raise `NotAnEngine`, or `LockIncomplete` naming every unpinned part of the env (models are not part of it)."""
    if lock.engine.kind != "comfyui":
        raise NotAnEngine(kind=lock.engine.kind)
    findings = [
        finding
        for finding in check_lock(lock)
        # An env is made without its models, which may still lack a digest.
        if finding.severity == "error" and not finding.path.startswith("$.models")
    ]
    if findings:
        raise LockIncomplete(where=where, findings=findings)


def make_recipe(lock: Lock, interpreter: Interpreter, *, target: str | None = None) -> EnvRecipe:
    """Return what the lock means on this machine. Raises `TargetMissing` or `WheelUnfit`."""
    assert lock.comfyui is not None, "require_pinned comes first"
    chosen_target = choose_target(lock, interpreter.machine, target)
    return EnvRecipe(
        key=build_key(lock, interpreter.machine, target),
        version_name=lock.version_name,
        env_digest=env_digest(lock),
        target=chosen_target,
        interpreter=interpreter,
        comfyui=lock.comfyui,
        nodes=tuple(sorted(lock.custom_nodes, key=lambda node_pin: node_pin.folder)),
        packages=select_packages(lock, chosen_target, interpreter),
        variants=lock.python.variants,
    )


def build_key(lock: Lock, machine_type: str, target: str | None = None) -> str:
    """Return the name of a lock's build on such a machine: the env digest, and the target if the lock has several."""
    chosen_target = choose_target(lock, machine_type, target)
    # Only if the lock has several targets, so that the usual name is the digest alone.
    target_suffix = (
        f"-{re.sub(r'[^A-Za-z0-9._-]', '_', chosen_target)}" if chosen_target and len(lock.python.targets) > 1 else ""
    )
    return env_digest(lock).hex + target_suffix


def pack_name(key: str, platform: str) -> str:
    """Return the name of an env's pack: env digest, target, and what its wheels and byte-code need."""
    return f"{key}.{platform}.envpack"


def make_realize_plan(recipe: EnvRecipe, contents: HomeContents, *, rebuild: bool = False) -> RealizePlan:
    """Choose an action: keep a build that has a valid receipt, else unpack a pack, else build."""
    is_complete = contents.receipt is not None and contents.receipt.key == recipe.key
    # The interpreter belongs to the machine: on another one, the venv only has to be pointed at that machine's.
    if is_complete and not rebuild:
        if contents.interpreter_works:
            return RealizePlan(recipe=recipe, action="keep", steps=())
        step_text = f"point the venv at {recipe.interpreter.path}"
        step = RealizeStep(name="rewire", subject=VENV_FOLDER, text=step_text)
        return RealizePlan(recipe=recipe, action="rewire", steps=(step,))
    # A rebuild is asked for by somebody who does not trust what is there, packs included.
    if contents.pack is not None and not rebuild:
        step = RealizeStep(name="unpack", subject=contents.pack, text=f"unpack and verify {contents.pack}")
        return RealizePlan(recipe=recipe, action="unpack", steps=(step,))
    return RealizePlan(recipe=recipe, action="build", steps=tuple(_build_steps(recipe, contents)))


def node_folder(node_pin: NodePin) -> str:
    """Return a node's folder, relative to the build. Raises `ValueError` unless it is one plain name."""
    if not _PLAIN_FOLDER.fullmatch(node_pin.folder) or node_pin.folder in {".", "..", "__pycache__"}:
        raise ValueError(
            f"{node_pin.folder!r} is not a folder name: the lock needs one plain name in `directory`, or in `name`"
        )
    return f"{CUSTOM_NODES_FOLDER}/{node_pin.folder}"


def _build_steps(recipe: EnvRecipe, contents: HomeContents) -> Sequence[RealizeStep]:
    steps = [_source_step(COMFYUI_FOLDER, recipe.comfyui, contents)]
    steps += [_source_step(node_folder(node_pin), node_pin, contents) for node_pin in recipe.nodes]
    interpreter, package_count = recipe.interpreter, len(recipe.packages)
    steps.append(
        RealizeStep(
            name="venv", subject=VENV_FOLDER, text=f"make a venv with Python {interpreter.version} ({interpreter.path})"
        )
    )
    steps.append(
        RealizeStep(
            name="packages",
            subject=VENV_FOLDER,
            text=f"install {format_count(package_count, 'package')}, each by its sha256",
        )
    )
    steps += [
        RealizeStep(name="script", subject=node_pin.folder, text=f"run install.py of {node_pin.name}")
        for node_pin in recipe.nodes
        if node_pin.install_script == "run"
    ]
    steps.append(
        RealizeStep(name="probe", subject=COMFYUI_FOLDER, text="start ComfyUI without serving, and import every node")
    )
    steps.append(
        RealizeStep(name="commit", subject=recipe.key, text="rename the build into its place, write the receipt")
    )
    return steps


def _source_step(source_folder: str, source_pin: RepoPin | NodePin, contents: HomeContents) -> RealizeStep:
    if isinstance(source_pin, NodePin) and source_pin.archive:
        return RealizeStep(name="archive", subject=source_folder, text=f"unpack {source_pin.archive}")
    kept_note = " (kept here already)" if source_pin.commit in contents.commits else ""
    patch_note = ", then its patch" if source_pin.patch else ""
    return RealizeStep(
        name="source",
        subject=source_folder,
        text=f"write {source_pin.repo} at {source_pin.commit}{kept_note}{patch_note}",
    )
