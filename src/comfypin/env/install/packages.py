"""Puts a lock's packages into a build's venv: linked if they are kept already, else installed by uv, then verified."""

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.env.cache.package_cache import PackageCache, RecordFaults
from comfypin.env.errors import (
    DiskFull,
    PackageDamaged,
    PackageHashMismatch,
    PackagesUnavailable,
    VendorIncomplete,
    WheelUnfit,
)
from comfypin.env.file_manifest import (
    FileManifest,
    FileStamp,
    InstalledRecord,
    find_contested_files,
    find_record_mismatches,
    hash_and_stamp_files,
    read_records,
)
from comfypin.env.install.sources import SourceLocations
from comfypin.env.install.unpacked_wheels import UnpackedWheels
from comfypin.env.layout import VENV_FOLDER, site_packages, venv_python
from comfypin.env.package_selection import (
    Interpreter,
    fits_interpreter,
    list_indexes,
    normalize_name,
    package_file_name,
    render_pylock,
    render_requirements,
)
from comfypin.env.realize_plan import EnvRecipe
from comfypin.lock.model import PackagePin
from comfypin.tools.process import FinishedProcess
from comfypin.tools.uv import run_uv

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedPackages:
    """Holds the sha256 that the RECORD of each linked package must have, by normalized name."""

    record_digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedFiles:
    """Holds every file of a build, the packages' RECORDs, and the files that differ from them, by dist-info folder."""

    manifest: FileManifest
    stamps: Mapping[str, FileStamp]
    records: tuple[InstalledRecord, ...]
    mismatches: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageInstaller:
    """Installs and verifies the packages of one build."""

    build_folder: Path
    recipe: EnvRecipe
    locations: SourceLocations
    report: Report

    def install_packages(self, unpacked: Callable[[str], None] = lambda _: None) -> LinkedPackages:
        """Install all packages, reporting each folder that uv unpacks to `unpacked`. Raises what `explain_failure`
        returns.
        """
        packages = self.recipe.packages
        if not packages:
            return LinkedPackages()
        self.report(f"Installing {len(packages)} packages.")
        linked = self._package_cache.link_packages(packages, self.build_folder / VENV_FOLDER)
        others = [pin for pin in packages if normalize_name(pin.name) not in linked]
        with UnpackedWheels(self.locations.uv_cache, unpacked):
            self._install_with_uv(others)
        return LinkedPackages(record_digests=linked)

    def verify_files(self, installed: LinkedPackages) -> VerifiedFiles:
        """Return all files once every package matches its RECORD; downloads damaged cached packages again, once."""
        found = self._survey_files()
        wrong = self._find_damaged(found, installed.record_digests)
        return self._repair_packages(wrong) if wrong else found

    def keep_packages(self, found: VerifiedFiles, installed: LinkedPackages) -> None:
        """Keep what uv installed, and what is exactly what its RECORD says, for the next env."""
        pins = {
            normalize_name(pin.name): pin
            for pin in self.recipe.packages
            if normalize_name(pin.name) not in installed.record_digests
        }
        fought = find_contested_files(found.records)
        sound = [
            (pins[normalize_name(record.package_name)], record)
            for record in found.records
            if normalize_name(record.package_name) in pins
            and record.folder not in found.mismatches
            and not fought & record.files.keys()
        ]
        self._package_cache.keep_packages(sound, self._site_packages, self.build_folder / VENV_FOLDER)

    def keep_bytecode(self, found: VerifiedFiles) -> None:
        """Keep what starting ComfyUI has compiled, so that the next env starts with it."""
        pins = {normalize_name(pin.name): pin for pin in self.recipe.packages}
        named = [(normalize_name(record.package_name), record) for record in found.records]
        packages = [(pins[name], record) for name, record in named if name in pins]
        self._package_cache.keep_bytecode(packages, self._site_packages, self.build_folder / VENV_FOLDER)

    @property
    def _site_packages(self) -> Path:
        return site_packages(self.build_folder)

    @property
    def _package_cache(self) -> PackageCache:
        return PackageCache(root=self.locations.package_cache, platform=self.recipe.interpreter.platform_tag)

    def _install_with_uv(self, packages: Sequence[PackagePin], *, again: bool = False) -> None:
        """Install some packages with uv, one file two packages fight for going to the last of them by name."""
        if not packages:
            return
        self._run_uv(packages, again=again)
        records = read_records(self._site_packages)
        fought = find_contested_files(records)
        rivals = (
            {normalize_name(record.package_name) for record in records if fought & record.files.keys()}
            if fought
            else set()
        )
        # uv installs in parallel: who came last is chance. The same lock must give the same bytes.
        for pin in self.recipe.packages:
            if normalize_name(pin.name) in rivals:
                self._run_uv([pin], again=True)

    def _run_uv(self, packages: Sequence[PackagePin], *, again: bool) -> None:
        ready = [choose_built_wheel(pin, self.locations, self.recipe.interpreter) for pin in packages]
        wheels = list_vendored_wheels(self.locations)
        # No resolution: the lock names every package, and every digest is required.
        arguments: list[str | Path] = ["pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        arguments += ["--link-mode", "hardlink", "--python", venv_python(self.build_folder)]
        for index in list_indexes(packages):
            # Any index may serve a locked file, because its digest decides.
            arguments += ["--index", index, "--index-strategy", "unsafe-best-match"]
        for pin in packages if again else ():
            arguments += ["--reinstall-package", pin.name]
        with tempfile.TemporaryDirectory(prefix=".pins-", dir=self.build_folder) as folder:
            locked = render_pylock(ready, wheels)
            pins = Path(folder, "requirements.txt" if locked is None else "pylock.toml")
            pins.write_text(render_requirements(ready, wheels) if locked is None else locked, encoding="utf-8")
            done = run_uv(
                [*arguments, "--requirements", pins],
                cwd=self.build_folder,
                offline=self.locations.offline,
                cache=self.locations.uv_cache,
            )
        if done.exit_code:
            raise explain_failure(done, self.recipe, self.locations, self.build_folder)
        for info in self._site_packages.glob("*.dist-info"):
            forget_origin(info)

    def _survey_files(self) -> VerifiedFiles:
        manifest, stamps = hash_and_stamp_files(self.build_folder)
        records = read_records(self._site_packages)
        wrong = find_record_mismatches(records, self._site_prefix, manifest)
        return VerifiedFiles(manifest=manifest, stamps=stamps, records=records, mismatches=wrong)

    @property
    def _site_prefix(self) -> str:
        return str(self._site_packages.relative_to(self.build_folder))

    def _find_damaged(self, found: VerifiedFiles, linked: Mapping[str, str]) -> dict[str, str]:
        """Return one example of a mismatch with its RECORD for each damaged package, by normalized name."""
        wrong = {_distribution_name(folder): f"{folder}: {paths[0]}" for folder, paths in found.mismatches.items()}
        for record in found.records:
            # A linked RECORD may itself have been changed, through a link of another env.
            name = normalize_name(record.package_name)
            if name in linked and self._file_sha256(found, f"{record.folder}/RECORD") != linked[name]:
                wrong.setdefault(name, f"{record.folder}/RECORD")
        for name in linked.keys() - {normalize_name(record.package_name) for record in found.records}:
            wrong[name] = f"{name}: its dist-info folder"
        known = self._find_known_faults(found)
        return {name: example for name, example in wrong.items() if name not in known}

    def _repair_packages(self, wrong: Mapping[str, str]) -> VerifiedFiles:
        names = sorted(wrong)
        self.report(f"Cached packages were changed; downloading them again: {', '.join(names)}.")
        pins = [pin for pin in self.recipe.packages if normalize_name(pin.name) in wrong]
        self._package_cache.drop_packages(pins)
        run_uv(["cache", "clean", "--quiet", *names], cache=self.locations.uv_cache)
        try:
            self._install_with_uv(pins, again=True)
        except (PackagesUnavailable, VendorIncomplete) as error:
            raise PackageDamaged(packages=names, example=wrong[names[0]]) from error
        found = self._survey_files()
        # What still differs now came from a wheel with the locked sha256: then its RECORD is what is wrong, for good.
        for pin in pins:
            if (faults := self._package_faults(pin, found)) is not None:
                self._package_cache.note_faults(pin, faults)
        return found

    def _find_known_faults(self, found: VerifiedFiles) -> frozenset[str]:
        """Return the packages that differ from their RECORD exactly as their wheel does, by normalized name."""
        return frozenset(
            normalize_name(pin.name)
            for pin in self.recipe.packages
            if (faults := self._package_faults(pin, found)) is not None
            and faults == self._package_cache.read_faults(pin)
        )

    def _package_faults(self, pin: PackagePin, found: VerifiedFiles) -> RecordFaults | None:
        """Return the digests of a package's files that do not match its RECORD, and of that RECORD; None if all
        match.
        """
        for record in found.records:
            if record.folder in found.mismatches and normalize_name(record.package_name) == normalize_name(pin.name):
                files = (f"{record.folder}/RECORD", *found.mismatches[record.folder])
                return {path: self._file_sha256(found, path) for path in files}
        return None

    def _file_sha256(self, found: VerifiedFiles, path: str) -> str | None:
        """Return a file's digest by its path in RECORDs, or None if it does not exist."""
        fact = found.manifest.files.get(os.path.normpath(f"{self._site_prefix}/{path}"))
        return fact.sha256 if fact else None


def _distribution_name(dist_info: str) -> str:
    return normalize_name(dist_info.removesuffix(".dist-info").rpartition("-")[0])


def list_vendored_wheels(places: SourceLocations) -> dict[str, Path]:
    """Return the files of a vendor folder by name."""
    if places.vendor is None or not places.vendor.wheels_folder.is_dir():
        return {}
    return {path.name: path for path in places.vendor.wheels_folder.iterdir() if path.is_file()}


def choose_built_wheel(pin: PackagePin, places: SourceLocations, interpreter: Interpreter) -> PackagePin:
    """Return the pin, or for a package without a wheel a pin of the vendor folder's wheel for this Python."""
    if places.vendor is None:
        return pin
    for source in pin.sha256:
        for wheel, digest in places.vendor.find_built_wheels(source):
            ready = replace(pin, url=wheel.resolve().as_uri(), sha256=(digest,))
            if fits_interpreter(ready, interpreter):
                return ready
    return pin


def forget_origin(dist_info: Path) -> None:
    """Remove the notes about a wheel's origin: the same lock gives the same bytes, from any mirror or folder."""
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


def explain_failure(done: FinishedProcess, recipe: EnvRecipe, places: SourceLocations, where: Path) -> Exception:
    """Return the error that says why uv did not install."""
    said = " ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
    # uv draws its chain of causes with box characters.
    reason = re.sub(r"^(error: )+", "", re.sub(r"[×╰─▶├│]+ ?", "", said))[-1500:]
    if re.search(r"hash mismatch", said, re.I):
        return PackageHashMismatch(reason=reason)
    if re.search(r"no space left", said, re.I):
        return DiskFull(where=where)
    if re.search(r"not compatible with the current|no wheels? with a matching|is not supported", said, re.I):
        machine = f"{recipe.interpreter.machine}, Python {recipe.interpreter.minor_version}"
        return WheelUnfit(machine=machine, packages=[reason])
    if places.vendor is not None and places.offline:
        there = list_vendored_wheels(places)
        names = [package_file_name(pin) or f"{pin.name} {pin.version}" for pin in recipe.packages]
        if missing := [name for name in names if name not in there]:
            return VendorIncomplete(vendor=places.vendor.root, missing=missing)
    return PackagesUnavailable(reason=reason)
