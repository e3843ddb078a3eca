"""Makes one build from its recipe, in a folder that is not in its place yet: sources, venv, packages, scripts."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from comfypin.env.cache.probe_notes import ProbeNotes
from comfypin.env.file_manifest import Manifest, Stamp, stamps, write_manifest
from comfypin.env.install.import_probe import Probed, probe, required
from comfypin.env.install.node_scripts import run_scripts
from comfypin.env.install.packages import Found, Installed, Installer
from comfypin.env.install.precompile import Precompiler
from comfypin.env.install.sources import SourcePlaces, restore_sources, write_sources
from comfypin.env.interpreter import add_activation, make_venv
from comfypin.env.layout import COMFYUI, site_packages
from comfypin.env.package_selection import normalized
from comfypin.env.realize_plan import Recipe
from comfypin.env.receipt import Receipt, SourcePin

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build in the making: where, of what, from where, and whom to tell.

    `anew` starts ComfyUI also where exactly these bytes have started on this machine before.
    """

    folder: Path
    recipe: Recipe
    places: SourcePlaces
    tell: Tell
    anew: bool = False

    def make(self) -> Receipt:
        """Do everything but the rename. Returns the receipt, which is not yet written; the manifest is.

        Raises `EnvError` of every kind; the folder is then to be thrown away.
        """
        python = self.recipe.interpreter
        make_venv(self.folder, python)
        installer = Installer(folder=self.folder, recipe=self.recipe, places=self.places, tell=self.tell)
        with Precompiler(python.path, site_packages(self.folder)) as compiler:
            with ThreadPoolExecutor(max_workers=1, thread_name_prefix="sources") as pool:
                beside = pool.submit(self._write_sources, compiler)
                installed = installer.install(compiler.unpacked)
                beside.result()
            run_scripts(self.folder, self.recipe, offline=self.places.offline, tell=self.tell)
            self.tell("Verifying every file.")
            found = installer.verified(installed)
            known, model_folders = self._started(installer, found, installed)
        if not known:
            installer.keep_bytecode(found)
        return receipt_of(self.recipe, found.manifest, model_folders)

    def _started(
        self, installer: Installer, found: Found, installed: Installed
    ) -> tuple[bool, Mapping[str, tuple[str, ...]]]:
        """Keep the packages, and start ComfyUI unless it is known to start: whether it was, and its model folders."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="keep") as pool:
            kept = pool.submit(installer.keep, found, installed)
            known = self._known(found.manifest)
            probed = known or self._probed(found)
            write_manifest(self.folder, found.manifest)
            kept.result()
        return known is not None, probed.model_folders

    def _write_sources(self, compiler: Precompiler) -> None:
        write_sources(self.folder, self.recipe, self.places)
        comfyui = self.folder / COMFYUI
        compiler.want(comfyui, required(comfyui / "requirements.txt", self.recipe.interpreter.markers))
        add_activation(self.folder, self.recipe.interpreter, self.places.uv_cache)

    @property
    def _notes(self) -> ProbeNotes:
        return ProbeNotes(folder=self.places.probes, env=self.recipe.env_digest)

    def _known(self, manifest: Manifest) -> Probed | None:
        """What starting ComfyUI told when the same bytes were started here before."""
        return None if self.anew else self._notes.find(manifest, self.recipe.interpreter)

    def _probed(self, found: Found) -> Probed:
        """What starting ComfyUI tells."""
        self.tell("Starting ComfyUI to import every node.")
        probed = probe(self.folder, [node.folder for node in self.recipe.nodes], self.recipe.interpreter.markers)
        self._undo_imports(found.stamps)
        self._notes.write(found.manifest, self.recipe.interpreter, probed)
        return probed

    def _undo_imports(self, before: Mapping[str, Stamp]) -> None:
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
