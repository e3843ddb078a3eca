"""Finds packages that overwrite each other's files, by the RECORDs of their wheels (pure).

pip and uv install both and say nothing: whichever comes last wins, and the import package is a mixture of the two.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from comfypin.lock.model import VariantChoice

# What Python imports, runs or loads. If two packages put anything else directly into site-packages (a README, a
# LICENSE: the mark of a careless build), it does no harm.
_CODE_SUFFIXES = (".py", ".pyc", ".so", ".pyd", ".pth")


@dataclass(frozen=True, kw_only=True)
class WheelContents:
    """Holds what a wheel puts where: each path relative to site-packages, with its sha256 (None if RECORD has none).

    `name` is normalized. Programs lie below `../../../bin/`.
    """

    name: str
    version: str
    files: Mapping[str, str | None]

    @cached_property
    def import_names(self) -> frozenset[str]:
        """Return the names that can be imported from it: folders with code, and modules."""
        names = {
            import_name_of(path) for path in self.files if path.endswith(_CODE_SUFFIXES) and not path.startswith("..")
        }
        return frozenset(import_name for import_name in names if not import_name.endswith(".libs"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Packages that bring files of the same paths with different bytes.

    `import_name` is the first part of these paths, `paths` are all of them; `packages` are sorted.
    """

    import_name: str
    packages: tuple[str, ...]
    paths: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{' and '.join(self.packages)} bring {self.paths[0]}{more}, with different bytes"


def find_overlaps(contents: Iterable[WheelContents]) -> tuple[Overlap, ...]:
    """Return the overlaps, one for each import package, sorted by its name."""
    claims: dict[str, list[tuple[str, str | None]]] = {}
    for wheel in contents:
        for path, sha256 in wheel.files.items():
            claims.setdefault(path, []).append((wheel.name, sha256))
    contested: dict[str, dict[str, list[str]]] = {}
    for path, claimants in claims.items():
        # Files without a digest cannot be compared: RECORD itself, and a wheel's signatures.
        digests = {sha256 for _, sha256 in claimants if sha256 is not None}
        if len(digests) > 1 and _matters(path):
            contested.setdefault(import_name_of(path), {})[path] = [package_name for package_name, _ in claimants]
    return tuple(
        Overlap(
            import_name=import_name,
            packages=tuple(sorted({package_name for names in by_path.values() for package_name in names})),
            paths=tuple(sorted(by_path)),
        )
        for import_name, by_path in sorted(contested.items())
    )


def is_settled(overlap: Overlap, choices: Iterable[VariantChoice]) -> bool:
    """Return whether one of the choices says which package wins this overlap."""
    packages = set(overlap.packages)
    return any(choice.name in packages and packages - {choice.name} <= set(choice.overwrites) for choice in choices)


def import_name_of(path: str) -> str:
    """Return what a file belongs to: its first folder, or its module's name.

    >>> import_name_of("cv2/__init__.py"), import_name_of("six.py"), import_name_of("../../../bin/f2py")
    ('cv2', 'six', 'bin')
    """
    if path.startswith("../"):
        return path.removeprefix("../../../").partition("/")[0]
    first, slash, _ = path.partition("/")
    return first if slash else first.partition(".")[0]


def is_superset(wheel: WheelContents, others: Sequence[WheelContents]) -> bool:
    """Return whether a wheel brings every compiled module of the others; if they have none, every Python module."""
    # Variants differ in compiled code; their Python code may merely have one more module in a newer version.
    for compiled in (True, False):
        wanted_modules = frozenset().union(*(_modules_of(other, compiled=compiled) for other in others))
        if wanted_modules:
            return wanted_modules <= _modules_of(wheel, compiled=compiled)
    return True


def _modules_of(wheel: WheelContents, *, compiled: bool) -> frozenset[str]:
    """Return the paths of modules without the part that names a build (`x.cpython-312-...so`)."""
    suffixes = (".so", ".pyd") if compiled else (".py",)
    paths = (path for path in wheel.files if path.endswith(suffixes) and not path.startswith(".."))
    return frozenset(
        f"{folder}/{file_name.partition('.')[0]}"
        for folder, _, file_name in (path.rpartition("/") for path in paths)
        # auditwheel names the libraries that it bundles by their content, so no two builds share a name.
        if not folder.partition("/")[0].endswith(".libs")
    )


def _matters(path: str) -> bool:
    if path.partition("/")[0].endswith((".dist-info", ".data")):
        return False
    # Manuals and headers are for people and compilers.
    if path.startswith("../../../"):
        return path.startswith("../../../bin/")
    return "/" in path or path.endswith(_CODE_SUFFIXES)
