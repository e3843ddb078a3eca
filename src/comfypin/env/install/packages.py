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
    PackageUnbuilt,
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
from comfypin.env.package_overlaps import describe_overlap, find_open_overlaps
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
from comfypin.plurals import format_count
from comfypin.tools.process import FinishedProcess
from comfypin.tools.uv import UNBUILT, run_uv

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

    def install_packages(
        self,
        unpacked: Callable[[str], None] = lambda _: None,
        *,
        before_download: Callable[[], None] = lambda: None,
    ) -> LinkedPackages:
        """Install all packages, reporting each folder that uv unpacks to `unpacked`. Raises what `explain_failure`
        returns, and what `before_download` raises, which is called before uv fetches what the cache lacks.
        """
        package_pins = self.recipe.packages
        if not package_pins:
            return LinkedPackages()
        self.report(f"Installing {format_count(len(package_pins), 'package')} into {self.build_folder}.")
        record_digests = self._package_cache.link_packages(package_pins, self.build_folder / VENV_FOLDER)
        # Linked from the cache in milliseconds; uv installs what the cache lacks.
        other_pins = [
            package_pin for package_pin in package_pins if normalize_name(package_pin.name) not in record_digests
        ]
        if other_pins:
            before_download()
        with UnpackedWheels(self.locations.uv_cache, unpacked):
            self._install_with_uv(other_pins)
        return LinkedPackages(record_digests=record_digests)

    def verify_files(self, installed: LinkedPackages) -> VerifiedFiles:
        """Return all files once every package matches its RECORD; downloads damaged cached packages again, once."""
        verified_files = self._survey_files()
        mismatches = self._find_damaged(verified_files, installed.record_digests)
        return self._repair_packages(mismatches) if mismatches else verified_files

    def keep_packages(self, verified_files: VerifiedFiles, installed: LinkedPackages) -> None:
        """Keep what uv installed, and what is exactly what its RECORD says, for the next env."""
        package_pins = {
            normalize_name(package_pin.name): package_pin
            for package_pin in self.recipe.packages
            if normalize_name(package_pin.name) not in installed.record_digests
        }
        contested_paths = find_contested_files(verified_files.records)
        sound_packages = [
            (package_pins[normalize_name(record.package_name)], record)
            for record in verified_files.records
            if normalize_name(record.package_name) in package_pins
            and record.folder not in verified_files.mismatches
            # A file that two packages bring has the bytes of one of them: no cache may keep it as the other's.
            and not contested_paths & record.files.keys()
        ]
        self._package_cache.keep_packages(sound_packages, self._site_packages, self.build_folder / VENV_FOLDER)

    def keep_bytecode(self, verified_files: VerifiedFiles) -> None:
        """Keep what starting ComfyUI has compiled, so that the next env starts with it."""
        package_pins = {normalize_name(package_pin.name): package_pin for package_pin in self.recipe.packages}
        named_records = [(normalize_name(record.package_name), record) for record in verified_files.records]
        packages = [
            (package_pins[package_name], record)
            for package_name, record in named_records
            if package_name in package_pins
        ]
        self._package_cache.keep_bytecode(packages, self._site_packages, self.build_folder / VENV_FOLDER)

    @property
    def _site_packages(self) -> Path:
        return site_packages(self.build_folder)

    @property
    def _package_cache(self) -> PackageCache:
        return PackageCache(root=self.locations.package_cache, platform=self.recipe.interpreter.platform_tag)

    def _install_with_uv(self, package_pins: Sequence[PackagePin], *, again: bool = False) -> None:
        """Install some packages with uv; a file that two bring goes to the one that the lock chose, else to the last by
        name.
        """
        if not package_pins:
            return
        self._run_uv(package_pins, again=again)
        records = read_records(self._site_packages)
        contested_paths = find_contested_files(records)
        rival_names = (
            {normalize_name(record.package_name) for record in records if contested_paths & record.files.keys()}
            if contested_paths
            else set()
        )
        for overlap in find_open_overlaps(records, self.recipe.variants):
            self.report(describe_overlap(overlap))
        winner_names = {choice.name for choice in self.recipe.variants if choice.overwrites}
        # uv installs in parallel: who came last is chance. The same lock must give the same bytes.
        for package_pin in sorted(self.recipe.packages, key=lambda pin: normalize_name(pin.name) in winner_names):
            if normalize_name(package_pin.name) in rival_names:
                self._run_uv([package_pin], again=True)

    def _run_uv(self, package_pins: Sequence[PackagePin], *, again: bool) -> None:
        ready_pins = [
            choose_built_wheel(package_pin, self.locations, self.recipe.interpreter) for package_pin in package_pins
        ]
        vendored_wheels = list_vendored_wheels(self.locations)
        # No resolution: the lock names every package, and every digest is required.
        arguments: list[str | Path] = ["pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        arguments += ["--link-mode", "hardlink", "--python", venv_python(self.build_folder)]
        for index_url in list_indexes(package_pins):
            # Any index may serve a locked file, because its digest decides.
            arguments += ["--index", index_url, "--index-strategy", "unsafe-best-match"]
        for package_pin in package_pins if again else ():
            arguments += ["--reinstall-package", package_pin.name]
        with tempfile.TemporaryDirectory(prefix=".pins-", dir=self.build_folder) as pins_folder:
            locked_pylock = render_pylock(ready_pins, vendored_wheels)
            pins_path = Path(pins_folder, "requirements.txt" if locked_pylock is None else "pylock.toml")
            pins_path.write_text(
                render_requirements(ready_pins, vendored_wheels) if locked_pylock is None else locked_pylock,
                encoding="utf-8",
            )
            finished = run_uv(
                [*arguments, "--requirements", pins_path],
                cwd=self.build_folder,
                offline=self.locations.offline,
                cache=self.locations.uv_cache,
            )
        if finished.exit_code:
            raise explain_failure(finished, self.recipe, self.locations, self.build_folder)
        # uv notes the address and the time of each download there: two envs of one lock would differ.
        for dist_info in self._site_packages.glob("*.dist-info"):
            forget_origin(dist_info)

    def _survey_files(self) -> VerifiedFiles:
        manifest, file_stamps = hash_and_stamp_files(self.build_folder)
        records = read_records(self._site_packages)
        mismatches = find_record_mismatches(records, self._site_prefix, manifest)
        return VerifiedFiles(manifest=manifest, stamps=file_stamps, records=records, mismatches=mismatches)

    @property
    def _site_prefix(self) -> str:
        return str(self._site_packages.relative_to(self.build_folder))

    def _find_damaged(self, verified_files: VerifiedFiles, record_digests: Mapping[str, str]) -> dict[str, str]:
        """Return one example of a mismatch with its RECORD for each damaged package, by normalized name."""
        damaged_examples = {
            _distribution_name(dist_info): f"{dist_info}: {paths[0]}"
            for dist_info, paths in verified_files.mismatches.items()
        }
        for record in verified_files.records:
            # A linked RECORD may itself have been changed, through a link of another env.
            package_name = normalize_name(record.package_name)
            if (
                package_name in record_digests
                and self._file_sha256(verified_files, f"{record.folder}/RECORD") != record_digests[package_name]
            ):
                damaged_examples.setdefault(package_name, f"{record.folder}/RECORD")
        for package_name in record_digests.keys() - {
            normalize_name(record.package_name) for record in verified_files.records
        }:
            damaged_examples[package_name] = f"{package_name}: its dist-info folder"
        known_faults = self._find_known_faults(verified_files)
        return {
            package_name: damaged_example
            for package_name, damaged_example in damaged_examples.items()
            if package_name not in known_faults
        }

    def _repair_packages(self, damaged_examples: Mapping[str, str]) -> VerifiedFiles:
        package_names = sorted(damaged_examples)
        self.report(f"Cached packages were changed; downloading them again: {', '.join(package_names)}.")
        package_pins = [
            package_pin for package_pin in self.recipe.packages if normalize_name(package_pin.name) in damaged_examples
        ]
        self._package_cache.drop_packages(package_pins)
        run_uv(["cache", "clean", "--quiet", *package_names], cache=self.locations.uv_cache)
        try:
            self._install_with_uv(package_pins, again=True)
        except (PackagesUnavailable, VendorIncomplete) as error:
            raise PackageDamaged(packages=package_names, example=damaged_examples[package_names[0]]) from error
        verified_files = self._survey_files()
        # What still differs now came from a wheel with the locked sha256: then its RECORD is what is wrong, for good.
        for package_pin in package_pins:
            if (record_faults := self._package_faults(package_pin, verified_files)) is not None:
                self._package_cache.note_faults(package_pin, record_faults)
        return verified_files

    def _find_known_faults(self, verified_files: VerifiedFiles) -> frozenset[str]:
        """Return the packages that differ from their RECORD exactly as their wheel does, by normalized name."""
        return frozenset(
            normalize_name(package_pin.name)
            for package_pin in self.recipe.packages
            if (record_faults := self._package_faults(package_pin, verified_files)) is not None
            and record_faults == self._package_cache.read_faults(package_pin)
        )

    def _package_faults(self, package_pin: PackagePin, verified_files: VerifiedFiles) -> RecordFaults | None:
        """Return the digests of a package's files that do not match its RECORD, and of that RECORD; None if all
        match.
        """
        for record in verified_files.records:
            if record.folder in verified_files.mismatches and normalize_name(record.package_name) == normalize_name(
                package_pin.name
            ):
                files = (f"{record.folder}/RECORD", *verified_files.mismatches[record.folder])
                return {relative_path: self._file_sha256(verified_files, relative_path) for relative_path in files}
        return None

    def _file_sha256(self, verified_files: VerifiedFiles, relative_path: str) -> str | None:
        """Return a file's digest by its path in RECORDs, or None if it does not exist."""
        fact = verified_files.manifest.files.get(os.path.normpath(f"{self._site_prefix}/{relative_path}"))
        return fact.sha256 if fact else None


def _distribution_name(dist_info: str) -> str:
    return normalize_name(dist_info.removesuffix(".dist-info").rpartition("-")[0])


def list_vendored_wheels(locations: SourceLocations) -> dict[str, Path]:
    """Return the files of a vendor folder by name."""
    if locations.vendor is None or not locations.vendor.wheels_folder.is_dir():
        return {}
    return {
        wheel_path.name: wheel_path for wheel_path in locations.vendor.wheels_folder.iterdir() if wheel_path.is_file()
    }


def choose_built_wheel(package_pin: PackagePin, locations: SourceLocations, interpreter: Interpreter) -> PackagePin:
    """Return the pin, or for a package without a wheel a pin of the vendor folder's wheel for this Python."""
    if locations.vendor is None:
        return package_pin
    for source_digest in package_pin.sha256:
        for wheel_path, wheel_digest in locations.vendor.find_built_wheels(source_digest):
            ready_pin = replace(package_pin, url=wheel_path.resolve().as_uri(), sha256=(wheel_digest,))
            if fits_interpreter(ready_pin, interpreter):
                return ready_pin
    return package_pin


def forget_origin(dist_info: Path) -> None:
    """Remove the notes about a wheel's origin: the same lock gives the same bytes, from any mirror or folder."""
    note_paths = [dist_info / note_name for note_name in ("direct_url.json", "uv_cache.json", "uv_build.json")]
    if not any(note_path.exists() for note_path in note_paths):
        return
    for note_path in note_paths:
        note_path.unlink(missing_ok=True)
    record_path = dist_info / "RECORD"
    record_lines = record_path.read_text(encoding="utf-8").splitlines(keepends=True)
    record_prefixes = tuple(f"{dist_info.name}/{note_path.name}," for note_path in note_paths)
    kept_lines = "".join(record_line for record_line in record_lines if not record_line.startswith(record_prefixes))
    # Replaced, not rewritten: an installed file may be shared with a cache.
    write_atomically(record_path, kept_lines.encode(), durable=False)


def explain_failure(
    finished: FinishedProcess, recipe: EnvRecipe, locations: SourceLocations, disk_folder: Path
) -> Exception:
    """Return the error that says why uv did not install."""
    uv_output = " ".join(output_line.strip() for output_line in finished.stderr.splitlines() if output_line.strip())
    # uv draws its chain of causes with box characters.
    reason = re.sub(r"^(error: )+", "", re.sub(r"[×╰─▶├│]+ ?", "", uv_output))[-1500:]
    # uv has one exit code for all of these; only its words tell them apart.
    if re.search(r"hash mismatch", uv_output, re.I):
        return PackageHashMismatch(reason=reason)
    if re.search(r"no space left", uv_output, re.I):
        return DiskFull(where=disk_folder)
    if re.search(r"not compatible with the current|no wheels? with a matching|is not supported", uv_output, re.I):
        machine = f"{recipe.interpreter.machine}, Python {recipe.interpreter.minor_version}"
        return WheelUnfit(machine=machine, packages=[reason])
    if unbuilt := UNBUILT.search(uv_output):
        package_name = normalize_name(unbuilt[1])
        pinned = next((pin.version for pin in recipe.packages if normalize_name(pin.name) == package_name), "")
        return PackageUnbuilt(
            package=f"{package_name} {pinned}".strip(),
            name=package_name,
            python=recipe.interpreter.minor_version,
            reason=reason,
        )
    if locations.vendor is not None and locations.offline:
        vendored_names = list_vendored_wheels(locations)
        expected_names = [
            package_file_name(package_pin) or f"{package_pin.name} {package_pin.version}"
            for package_pin in recipe.packages
        ]
        if missing_names := [wheel_name for wheel_name in expected_names if wheel_name not in vendored_names]:
            return VendorIncomplete(vendor=locations.vendor.root, missing=missing_names)
    return PackagesUnavailable(reason=reason)
