"""Holds the lock as frozen values: every byte that can change a picture, by name.

These are plain dataclasses without a parser: `comfypin.lock.codec` reads schemas 1, 2 and 3 into them and writes 3.
Each keeps in `extra` the keys of its JSON object that this version of comfypin does not know, for the next rewrite.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from comfypin.digest import Digest, JsonValue

EngineKind = Literal["comfyui", "remote", "embedded"]
InstallPolicy = Literal["run", "skip"]
WarmupSize = Literal["smallest", "full"]
Extra = Mapping[str, JsonValue]

# What a new lock or image takes if nobody asks for another one; tests/unit/project/test_pythons.py lists its repeats.
DEFAULT_PYTHON = "3.12"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoPin:
    """A git repository at one commit.

    `commit` is None if an older schema did not record it; one that is not 40 hex digits is a branch or a tag, which
    `lock check` reports and `realize` refuses. `patch` is a diff (`git apply`) against the commit, stored by `lock
    capture --allow-dirty`.
    """

    repo: str | None
    ref: str | None = None
    commit: str | None = None
    patch: str | None = None
    extra: Extra = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePin:
    """A custom node pack: a repository at one commit, or an archive, and its folder under custom_nodes.

    `archive` is the URL of a zip from the node registry, for packs that do not come from git; `sha256` is then the
    digest of that zip. For packs from git both are None: the commit already names the tree. `install_script_sha256` is
    the digest of `install.py`, None if the pack has none.
    """

    name: str
    repo: str | None
    ref: str | None = None
    commit: str | None = None
    directory: str | None = None
    install_script: InstallPolicy = "skip"
    install_script_sha256: Digest | None = None
    archive: str | None = None
    sha256: Digest | None = None
    patch: str | None = None
    extra: Extra = field(default_factory=dict, hash=False)

    @property
    def folder(self) -> str:
        """Return the pack's folder under custom_nodes: one plain name."""
        return self.directory or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagePin:
    """A Python distribution: a version, the wheel's URL and every digest it may have; markers as in PEP 508."""

    name: str
    version: str
    url: str | None = None
    sha256: tuple[Digest, ...] = ()
    index: str | None = None
    marker: str | None = None
    target: str | None = None
    extra: Extra = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantChoice:
    """Which of several distributions that bring the same import packages is installed, chosen when the lock was made.

    `name` is the one chosen. `replaces` are left out, because it brings all that they bring. `overwrites` stay, because
    they bring more; the files that both bring are the chosen one's. `platforms` are those it holds for (all if empty).
    """

    name: str
    imports: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    overwrites: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    extra: Extra = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonPins:
    """The interpreter (`3.12`), the targets that packages were resolved for, and the packages.

    `requirements` are what the user asked for beside ComfyUI's and the nodes' own (PEP 508), `overrides` replace what
    anybody asks for, `dropped` are lines or names that are left out, `indexes` are asked before PyPI, `variants` choose
    between packages that overwrite each other. They are kept so that a later resolve asks the same; only `packages` are
    installed. `libraries` are those of the system that packages need, with the packages.
    """

    version: str | None = None
    targets: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    variants: tuple[VariantChoice, ...] = ()
    libraries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    packages: tuple[PackagePin, ...] = ()
    extra: Extra = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPin:
    """One file that the lock promises: these bytes at this path, from any of these sources, the first one preferred.

    `target_path` begins with `$MODELS_DIR/` or `$COMFY_HOME/`. `sha256` and `size_bytes` are None if an older schema
    did not record them. `allow_pickle` accepts a pickle format on purpose.
    """

    name: str
    target_path: str
    sha256: Digest | None = None
    size_bytes: int | None = None
    sources: tuple[str, ...] = ()
    allow_pickle: bool = False
    extra: Extra = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """The engine that runs prompts: its kind, arguments and environment, and a workflow that warms it up.

    The warm-up runs with the smallest size and one step, unless `warmup_size` is `full`. `url` is the address of a
    `remote` engine; a flag may name it instead.
    """

    kind: EngineKind = "comfyui"
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    warmup: Mapping[str, JsonValue] | None = None
    warmup_size: WarmupSize = "smallest"
    url: str | None = None
    extra: Extra = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A release: a named, immutable set of pins. `read_from_schema` is the schema of the file it came from."""

    version_name: str
    comfyui: RepoPin | None = None
    custom_nodes: tuple[NodePin, ...] = ()
    python: PythonPins = field(default_factory=PythonPins)
    models: tuple[ModelPin, ...] = ()
    system_packages: tuple[str, ...] = ()
    engine: EngineSpec = field(default_factory=EngineSpec)
    extra: Extra = field(default_factory=dict)
    read_from_schema: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The name and digest by which results, manifests and resources record the lock they came from.

    Without a digest nobody knows what the engine runs (`UNPINNED`): there was no lock, or `doubt` says why the engine
    is not known to be what the lock says.
    """

    name: str
    digest: Digest | None
    doubt: str | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a result has to say of it."""
        return () if self.doubt is None else (f"Unpinned: {self.doubt}",)

    @property
    def digest_text(self) -> str | None:
        """Return the digest as documents hold it."""
        return None if self.digest is None else str(self.digest)

    def answers_to(self, wanted_release: str) -> bool:
        """Return whether a text is its name or its digest, with or without the algorithm."""
        return wanted_release == self.name or (
            self.digest is not None and wanted_release in (str(self.digest), self.digest.hex)
        )


UNPINNED = Release(name="unpinned", digest=None)
