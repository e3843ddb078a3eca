"""Puts a lock's packages into a build's venv: linked where they are kept already, by uv where not, then verified."""

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.env.cache.package_cache import Faults, PackageCache
from comfypin.env.errors import (
    DiskFull,
    PackageDamaged,
    PackageHashMismatch,
    PackagesUnavailable,
    VendorIncomplete,
    WheelUnfit,
)
from comfypin.env.file_manifest import (
    Manifest,
    Record,
    Stamp,
    contested,
    read_records,
    record_mismatches,
    survey_and_stamp,
)
from comfypin.env.install.sources import SourcePlaces
from comfypin.env.install.unpacked_wheels import UnpackedWheels
from comfypin.env.layout import VENV, site_packages, venv_python
from comfypin.env.package_selection import Interpreter, file_name, fits, indexes, normalized, pylock, requirement_lines
from comfypin.env.realize_plan import Recipe
from comfypin.lock.model import PackagePin
from comfypin.tools.process import Finished
from comfypin.tools.uv import uv

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What was linked: the sha256 that each RECORD must have, by normalized name."""

    linked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Every file of a build, the packages' RECORDs, and by dist-info folder the files that differ from them."""

    manifest: Manifest
    stamps: Mapping[str, Stamp]
    records: tuple[Record, ...]
    wrong: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """The packages of one build in the making."""

    folder: Path
    recipe: Recipe
    places: SourcePlaces
    tell: Tell

    def install(self, unpacked: Callable[[str], None] = lambda _: None) -> Installed:
        """Install all packages; `unpacked` is told of folders with new ones. Raises what `explain` makes."""
        packages = self.recipe.packages
        if not packages:
            return Installed()
        self.tell(f"Installing {len(packages)} packages.")
        linked = self._cache.link(packages, self.folder / VENV)
        others = [pin for pin in packages if normalized(pin.name) not in linked]
        with UnpackedWheels(self.places.uv_cache, unpacked):
            self._by_uv(others)
        return Installed(linked=linked)

    def verified(self, installed: Installed) -> Found:
        """All files, every installed one equal to its RECORD; what a cache has wrong is downloaded again, once."""
        found = self._found()
        wrong = self._wrong(found, installed.linked)
        return self._repaired(wrong) if wrong else found

    def keep(self, found: Found, installed: Installed) -> None:
        """Keep what uv installed, and what is exactly what its RECORD says, for the next env."""
        pins = {
            normalized(pin.name): pin for pin in self.recipe.packages if normalized(pin.name) not in installed.linked
        }
        fought = contested(found.records)
        sound = [
            (pins[normalized(record.name)], record)
            for record in found.records
            if normalized(record.name) in pins and record.folder not in found.wrong and not fought & record.files.keys()
        ]
        self._cache.keep(sound, self._site, self.folder / VENV)

    def keep_bytecode(self, found: Found) -> None:
        """Keep what starting ComfyUI has compiled, so that the next env starts with it."""
        pins = {normalized(pin.name): pin for pin in self.recipe.packages}
        named = [(normalized(record.name), record) for record in found.records]
        packages = [(pins[name], record) for name, record in named if name in pins]
        self._cache.keep_bytecode(packages, self._site, self.folder / VENV)

    @property
    def _site(self) -> Path:
        return site_packages(self.folder)

    @property
    def _cache(self) -> PackageCache:
        return PackageCache(root=self.places.packages, platform=self.recipe.interpreter.platform)

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
        ready = [built_wheel(pin, self.places, self.recipe.interpreter) for pin in packages]
        wheels = vendored_wheels(self.places)
        arguments: list[str | Path] = ["pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        arguments += ["--link-mode", "hardlink", "--python", venv_python(self.folder)]
        for index in indexes(packages):
            arguments += ["--index", index, "--index-strategy", "unsafe-best-match"]
        for pin in packages if again else ():
            arguments += ["--reinstall-package", pin.name]
        with tempfile.TemporaryDirectory(prefix=".pins-", dir=self.folder) as folder:
            locked = pylock(ready, wheels)
            pins = Path(folder, "requirements.txt" if locked is None else "pylock.toml")
            pins.write_text(requirement_lines(ready, wheels) if locked is None else locked, encoding="utf-8")
            done = uv(
                [*arguments, "--requirements", pins],
                cwd=self.folder,
                offline=self.places.offline,
                cache=self.places.uv_cache,
            )
        if done.exit_code:
            raise explain(done, self.recipe, self.places, self.folder)
        for info in self._site.glob("*.dist-info"):
            forget_origin(info)

    def _found(self) -> Found:
        manifest, stamps = survey_and_stamp(self.folder)
        records = read_records(self._site)
        wrong = record_mismatches(records, self._prefix, manifest)
        return Found(manifest=manifest, stamps=stamps, records=records, wrong=wrong)

    @property
    def _prefix(self) -> str:
        return str(self._site.relative_to(self.folder))

    def _wrong(self, found: Found, linked: Mapping[str, str]) -> dict[str, str]:
        """An example of what is not what its RECORD says, by normalized name."""
        wrong = {_name(folder): f"{folder}: {paths[0]}" for folder, paths in found.wrong.items()}
        for record in found.records:
            # A linked RECORD may itself have been changed, through a link of another env.
            name = normalized(record.name)
            if name in linked and self._sha256(found, f"{record.folder}/RECORD") != linked[name]:
                wrong.setdefault(name, f"{record.folder}/RECORD")
        for name in linked.keys() - {normalized(record.name) for record in found.records}:
            wrong[name] = f"{name}: its dist-info folder"
        known = self._faults(found)
        return {name: example for name, example in wrong.items() if name not in known}

    def _repaired(self, wrong: Mapping[str, str]) -> Found:
        names = sorted(wrong)
        self.tell(f"Cached packages were changed by hand; downloading again: {', '.join(names)}.")
        pins = [pin for pin in self.recipe.packages if normalized(pin.name) in wrong]
        self._cache.drop(pins)
        uv(["cache", "clean", "--quiet", *names], cache=self.places.uv_cache)
        try:
            self._by_uv(pins, again=True)
        except (PackagesUnavailable, VendorIncomplete) as error:
            raise PackageDamaged(packages=names, example=wrong[names[0]]) from error
        found = self._found()
        # What still differs now came from a wheel with the locked sha256: then its RECORD is what is wrong, for good.
        for pin in pins:
            if (faults := self._faults_of(pin, found)) is not None:
                self._cache.note_faults(pin, faults)
        return found

    def _faults(self, found: Found) -> frozenset[str]:
        """The packages that differ from their RECORD exactly as their wheel does, by normalized name."""
        return frozenset(
            normalized(pin.name)
            for pin in self.recipe.packages
            if (faults := self._faults_of(pin, found)) is not None and faults == self._cache.noted_faults(pin)
        )

    def _faults_of(self, pin: PackagePin, found: Found) -> Faults | None:
        """The files of a package that are not what its RECORD says, as they are, and that RECORD."""
        for record in found.records:
            if record.folder in found.wrong and normalized(record.name) == normalized(pin.name):
                files = (f"{record.folder}/RECORD", *found.wrong[record.folder])
                return {path: self._sha256(found, path) for path in files}
        return None

    def _sha256(self, found: Found, path: str) -> str | None:
        """The digest that a file has, by its path in RECORDs; None where there is none."""
        fact = found.manifest.files.get(os.path.normpath(f"{self._prefix}/{path}"))
        return fact.sha256 if fact else None


def _name(dist_info: str) -> str:
    return normalized(dist_info.removesuffix(".dist-info").rpartition("-")[0])


def vendored_wheels(places: SourcePlaces) -> dict[str, Path]:
    """The files of a vendor folder by name."""
    if places.vendor is None or not places.vendor.wheels.is_dir():
        return {}
    return {path.name: path for path in places.vendor.wheels.iterdir() if path.is_file()}


def built_wheel(pin: PackagePin, places: SourcePlaces, interpreter: Interpreter) -> PackagePin:
    """The pin itself, or of a package without a wheel the one that the vendor folder has for this Python."""
    if places.vendor is None:
        return pin
    for source in pin.sha256:
        for wheel, digest in places.vendor.built_of(source):
            ready = replace(pin, url=wheel.resolve().as_uri(), sha256=(digest,))
            if fits(ready, interpreter):
                return ready
    return pin


def forget_origin(dist_info: Path) -> None:
    """Drop the notes of where a wheel came from: the same lock gives the same bytes, from any mirror or folder."""
    notes = [dist_info / name for name in ("direct_url.json", "uv_cache.json", "uv_build.json")]
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
