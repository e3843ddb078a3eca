"""Puts a lock's packages into a build's venv: linked where they are kept already, by uv where not, then verified."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfypin.env.layout import VENV, site_packages, venv_python
from comfypin.env.manifest import Manifest, Record, contested, read_records, record_mismatches, survey
from comfypin.env.package_cache import PackageCache
from comfypin.env.packages import file_name, indexes, normalized, requirement_lines
from comfypin.env.plan import Recipe
from comfypin.env.sources import SourcePlaces
from comfypin.errors.env import (
    DiskFull,
    PackageDamaged,
    PackageHashMismatch,
    PackagesUnavailable,
    VendorIncomplete,
    WheelUnfit,
)
from comfypin.files import write_atomically
from comfypin.lock.model import PackagePin
from comfypin.tools.packages import uv
from comfypin.tools.process import Finished

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """The packages of one build in the making."""

    folder: Path
    recipe: Recipe
    places: SourcePlaces
    tell: Tell

    def install(self) -> Mapping[str, str]:
        """Install all packages. Returns what was linked, for `verified`. Raises what `explain` makes of uv's words."""
        packages = self.recipe.packages
        if not packages:
            return {}
        self.tell(f"Installing {len(packages)} packages.")
        linked = self._cache.link(packages, self.folder / VENV)
        self._by_uv([pin for pin in packages if normalized(pin.name) not in linked])
        return linked

    def verified(self, linked: Mapping[str, str]) -> Manifest:
        """The manifest, with every installed file equal to its RECORD; what a cache has wrong is downloaded, once."""
        manifest = survey(self.folder)
        wrong = self._wrong(manifest, linked)
        if wrong:
            manifest = self._repaired(wrong)
        self._keep(manifest, linked)
        return manifest

    @property
    def _site(self) -> Path:
        return site_packages(self.folder)

    @property
    def _cache(self) -> PackageCache:
        return PackageCache(root=self.places.cache / "packages", platform=self.recipe.interpreter.platform)

    def _by_uv(self, packages: Sequence[PackagePin], *, again: bool = False) -> None:
        """Install some packages with uv, one file two packages fight for going to the last of them by name."""
        if not packages:
            return
        self._run_uv(packages, again=again)
        records = read_records(self._site)
        fought = contested(records)
        rivals = {normalized(record.name) for record in records if fought & record.files.keys()} if fought else set()
        # uv installs in parallel: who came last is chance. The same lock must give the same bytes.
        for pin in self.recipe.packages:
            if normalized(pin.name) in rivals:
                self._run_uv([pin], again=True)

    def _run_uv(self, packages: Sequence[PackagePin], *, again: bool) -> None:
        lines = requirement_lines(packages, vendored_wheels(self.places))
        arguments: list[str | Path] = ["pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        arguments += ["--link-mode", "hardlink", "--python", venv_python(self.folder)]
        for index in indexes(packages):
            arguments += ["--index", index, "--index-strategy", "unsafe-best-match"]
        for pin in packages if again else ():
            arguments += ["--reinstall-package", pin.name]
        done = uv(
            [*arguments, "--requirements", "-"],
            cwd=self.folder,
            stdin=lines.encode(),
            offline=self.places.offline,
            cache=self.places.uv_cache,
        )
        if done.exit_code:
            raise explain(done, self.recipe, self.places, self.folder)
        for info in self._site.glob("*.dist-info"):
            forget_origin(info)

    def _wrong(self, manifest: Manifest, linked: Mapping[str, str]) -> dict[str, str]:
        """An example of what is not what its RECORD says, by normalized name."""
        prefix = str(self._site.relative_to(self.folder))
        records = read_records(self._site)
        found = record_mismatches(records, prefix, manifest)
        for record in records:
            # A linked RECORD may itself have been changed, through a link of another env.
            fact = manifest.files.get(f"{prefix}/{record.folder}/RECORD")
            wanted = linked.get(normalized(record.name))
            if wanted is not None and (fact is None or fact.sha256 != wanted):
                found.setdefault(record.folder, [f"{record.folder}/RECORD"])
        wrong = {_name(folder): f"{folder}: {paths[0]}" for folder, paths in found.items()}
        gone = linked.keys() - {normalized(record.name) for record in records}
        return {**wrong, **{name: f"{name}: its dist-info folder" for name in gone}}

    def _repaired(self, wrong: Mapping[str, str]) -> Manifest:
        names = sorted(wrong)
        self.tell(f"Cached packages were changed by hand; downloading again: {', '.join(names)}.")
        pins = [pin for pin in self.recipe.packages if normalized(pin.name) in wrong]
        self._cache.drop(pins)
        uv(["cache", "clean", "--quiet", *names], cache=self.places.uv_cache)
        try:
            self._by_uv(pins, again=True)
        except (PackagesUnavailable, VendorIncomplete) as error:
            raise PackageDamaged(packages=names, example=wrong[names[0]]) from error
        # What still differs now came from a wheel with the locked sha256: then its RECORD is what is wrong.
        return survey(self.folder)

    def _keep(self, manifest: Manifest, linked: Mapping[str, str]) -> None:
        """Keep what uv installed, and what is exactly what its RECORD says, for the next env."""
        missing = {normalized(pin.name): pin for pin in self.recipe.packages if normalized(pin.name) not in linked}
        if not missing:
            return
        records = read_records(self._site)
        fought = contested(records)
        wrong = record_mismatches(records, str(self._site.relative_to(self.folder)), manifest)
        for record in _sound(records, fought, wrong):
            pin = missing.get(normalized(record.name))
            if pin is not None:
                self._cache.keep(pin, record, self._site, self.folder / VENV)


def _sound(records: Iterable[Record], fought: frozenset[str], wrong: Mapping[str, object]) -> list[Record]:
    return [record for record in records if record.folder not in wrong and not fought & record.files.keys()]


def _name(dist_info: str) -> str:
    return normalized(dist_info.removesuffix(".dist-info").rpartition("-")[0])


def vendored_wheels(places: SourcePlaces) -> dict[str, Path]:
    """The files of a vendor folder by name."""
    if places.vendor is None or not places.vendor.wheels.is_dir():
        return {}
    return {path.name: path for path in places.vendor.wheels.iterdir() if path.is_file()}


def forget_origin(dist_info: Path) -> None:
    """Drop the notes of where a wheel came from: the same lock gives the same bytes, from any mirror or folder."""
    notes = [dist_info / name for name in ("direct_url.json", "uv_cache.json")]
    if not any(note.exists() for note in notes):
        return
    for note in notes:
        note.unlink(missing_ok=True)
    record = dist_info / "RECORD"
    lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
    beginnings = tuple(f"{dist_info.name}/{note.name}," for note in notes)
    kept = "".join(line for line in lines if not line.startswith(beginnings))
    # Replaced, not rewritten: an installed file may be shared with a cache.
    write_atomically(record, kept.encode(), durable=False)


def explain(done: Finished, recipe: Recipe, places: SourcePlaces, where: Path) -> Exception:
    """Why uv did not install, as one of our errors."""
    said = " ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
    reason = re.sub(r"^(error: )+", "", re.sub(r"[×╰─▶├│]+ ?", "", said))[-1500:]
    if re.search(r"hash mismatch", said, re.I):
        return PackageHashMismatch(reason=reason)
    if re.search(r"no space left", said, re.I):
        return DiskFull(where=where)
    if re.search(r"not compatible with the current|no wheels? with a matching|is not supported", said, re.I):
        machine = f"{recipe.interpreter.machine}, Python {recipe.interpreter.minor}"
        return WheelUnfit(machine=machine, packages=[reason])
    if places.vendor is not None and places.offline:
        there = vendored_wheels(places)
        names = [file_name(pin) or f"{pin.name} {pin.version}" for pin in recipe.packages]
        if missing := [name for name in names if name not in there]:
            return VendorIncomplete(vendor=places.vendor.root, missing=missing)
    return PackagesUnavailable(reason=reason)
