"""Makes one build from its recipe, in a folder that is not in its place yet: sources, venv, packages, scripts."""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from comfypin.env.interpreter import rewire
from comfypin.env.layout import COMFYUI, VENV, site_packages, venv_python
from comfypin.env.manifest import Manifest, read_records, record_mismatches, stamps, survey, write_manifest
from comfypin.env.packages import file_name, indexes, normalized, requirement_lines
from comfypin.env.plan import Recipe
from comfypin.env.probe import probe
from comfypin.env.receipt import Receipt, SourcePin
from comfypin.env.scripts import run_scripts
from comfypin.env.sources import SourcePlaces, restore_sources, write_sources
from comfypin.errors.env import (
    DiskFull,
    PackageDamaged,
    PackageHashMismatch,
    PackagesUnavailable,
    VendorIncomplete,
    WheelUnfit,
)
from comfypin.tools.packages import uv
from comfypin.tools.process import Finished

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build in the making: where, of what, from where, and whom to tell."""

    folder: Path
    recipe: Recipe
    places: SourcePlaces
    tell: Tell

    def make(self) -> Receipt:
        """Do everything but the rename. Returns the receipt, which is not yet written; the manifest is.

        Raises `EnvError` of every kind; the folder is then to be thrown away.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="sources") as pool:
            sources = pool.submit(write_sources, self.folder, self.recipe, self.places)
            self._make_venv()
            self._install()
            sources.result()
        run_scripts(self.folder, self.recipe, offline=self.places.offline, tell=self.tell)
        self.tell("Verifying every file.")
        manifest = self._verified()
        self.tell("Starting ComfyUI to import every node.")
        nodes = [node.folder for node in self.recipe.nodes]
        before = stamps(self.folder)
        probed = probe(self.folder, nodes, self.recipe.interpreter.markers)
        self._undo_imports(before)
        write_manifest(self.folder, manifest)
        return receipt_of(self.recipe, manifest, probed.model_folders)

    def _make_venv(self) -> None:
        python = self.recipe.interpreter.path
        made = uv(["venv", "--quiet", "--relocatable", "--no-project", "--python", python, self.folder / VENV])
        if made.exit_code:
            raise PackagesUnavailable(reason=made.complaint)
        rewire(self.folder, self.recipe.interpreter)

    def _install(self, *, again: Sequence[str] = ()) -> None:
        """Install the packages with uv, as copies: a hard link would share later edits with uv's cache."""
        packages = self.recipe.packages
        if not packages:
            return
        self.tell(f"Installing {len(packages)} packages.")
        wheels = vendored_wheels(self.places)
        lines = requirement_lines(packages, wheels)
        arguments: list[str | Path] = ["pip", "sync", "--quiet", "--require-hashes", "--link-mode", "copy"]
        arguments += ["--python", venv_python(self.folder)]
        for index in indexes(packages):
            arguments += ["--index", index, "--index-strategy", "unsafe-best-match"]
        for name in again:
            arguments += ["--reinstall-package", name]
        done = uv([*arguments, "-"], cwd=self.folder, stdin=lines.encode(), offline=self.places.offline)
        if done.exit_code:
            raise explain(done, self.recipe, self.places, self.folder)
        for info in self._site.glob("*.dist-info"):
            forget_origin(info)

    @property
    def _site(self) -> Path:
        return site_packages(self.folder)

    def _verified(self) -> Manifest:
        """The manifest, with every installed file equal to its RECORD; a damaged cache of uv is made anew, once."""
        manifest = survey(self.folder)
        wrong = self._wrong(manifest)
        if not wrong:
            return manifest
        names = sorted(normalized(folder.removesuffix(".dist-info").rpartition("-")[0]) for folder in wrong)
        self.tell(f"uv's cache was changed by hand; downloading again: {', '.join(names)}.")
        uv(["cache", "clean", "--quiet", *names])
        example = next(f"{folder}: {paths[0]}" for folder, paths in sorted(wrong.items()))
        try:
            self._install(again=names)
        except (PackagesUnavailable, VendorIncomplete) as error:
            raise PackageDamaged(packages=names, example=example) from error
        # What still differs now came from a wheel with the locked sha256: then its RECORD is what is wrong.
        return survey(self.folder)

    def _wrong(self, manifest: Manifest) -> dict[str, list[str]]:
        site = self._site
        return record_mismatches(read_records(site), str(site.relative_to(self.folder)), manifest)

    def _undo_imports(self, before: Mapping[str, tuple[int, int]]) -> None:
        """Take back what importing nodes has written: files that are new go, files that changed are written again."""
        after = stamps(self.folder)
        for path in after.keys() - before.keys():
            (self.folder / path).unlink(missing_ok=True)
        changed = sorted(path for path, stamp in before.items() if after.get(path) != stamp)
        restore_sources(self.folder, self.recipe, self.places, changed)


def receipt_of(recipe: Recipe, manifest: Manifest, model_folders: Mapping[str, tuple[str, ...]]) -> Receipt:
    """The receipt of a build that was made from the recipe (pure)."""
    python = recipe.interpreter
    return Receipt(
        env_digest=recipe.env_digest,
        key=recipe.key,
        target=recipe.target,
        python=python.minor,
        platform=python.platform,
        comfyui=SourcePin(folder=COMFYUI, repo=recipe.comfyui.repo, commit=recipe.comfyui.commit),
        nodes=tuple(SourcePin(folder=node.folder, repo=node.repo, commit=node.commit) for node in recipe.nodes),
        packages={normalized(pin.name): pin.version for pin in recipe.packages},
        manifest=manifest.digest,
        files=len(manifest.files),
        size_bytes=manifest.size_bytes,
        model_folders=model_folders,
    )


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
    record.write_text("".join(line for line in lines if not line.startswith(beginnings)), encoding="utf-8")


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
