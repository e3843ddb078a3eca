"""Makes one build from its recipe, in a folder that is not in its place yet: sources, venv, packages, scripts."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from comfypin.env.cache.probe_notes import ProbeNotes
from comfypin.env.errors import PackageUnbuilt, RequirementsNotLocked
from comfypin.env.file_manifest import FileManifest, FileStamp, stamp_files, write_manifest
from comfypin.env.install.import_probe import ProbeResult, probe_env, required_distributions
from comfypin.env.install.node_scripts import run_install_scripts
from comfypin.env.install.packages import LinkedPackages, PackageInstaller, VerifiedFiles
from comfypin.env.install.precompile import Precompiler
from comfypin.env.install.required_by import who_requires
from comfypin.env.install.sources import SourceLocations, restore_sources, write_sources
from comfypin.env.interpreter import add_activation_scripts, make_venv
from comfypin.env.layout import COMFYUI_FOLDER, site_packages
from comfypin.env.package_selection import normalize_name
from comfypin.env.realize_plan import EnvRecipe
from comfypin.env.receipt import Receipt, SourcePin

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvBuilder:
    """Makes one build in `build_folder` from a recipe, and reports its progress.

    `force_probe` starts ComfyUI even if exactly these bytes have started on this machine before.
    """

    build_folder: Path
    recipe: EnvRecipe
    locations: SourceLocations
    report: Report
    force_probe: bool = False

    def build_env(self) -> Receipt:
        """Do everything but the rename. Returns the receipt, which is not yet written; the manifest is.

        Raises `EnvError` of every kind; the folder is then to be thrown away.
        """
        interpreter = self.recipe.interpreter
        make_venv(self.build_folder, interpreter)
        installer = PackageInstaller(
            build_folder=self.build_folder, recipe=self.recipe, locations=self.locations, report=self.report
        )
        with Precompiler(interpreter.path, site_packages(self.build_folder)) as compiler:
            # Sources wait for the network and packages for the disk, so they run together.
            with ThreadPoolExecutor(max_workers=1, thread_name_prefix="sources") as thread_pool:
                sources_written = thread_pool.submit(self._write_sources, compiler)
                linked_packages = self._install_packages(installer, compiler, sources_written)
                sources_written.result()
            run_install_scripts(self.build_folder, self.recipe, offline=self.locations.offline, report=self.report)
            self.report("Verifying every file.")
            verified_files = installer.verify_files(linked_packages)
            earlier_result, model_folders = self._keep_and_probe(installer, verified_files, linked_packages)
        # A start that was skipped has made no byte-code.
        if not earlier_result:
            installer.keep_bytecode(verified_files)
        return make_receipt(self.recipe, verified_files.manifest, model_folders)

    def _install_packages(
        self, installer: PackageInstaller, compiler: Precompiler, sources_written: Future[None]
    ) -> LinkedPackages:
        try:
            # Before gigabytes are fetched: a repository out of reach, or a package that the lock lacks, ends it now.
            return installer.install_packages(compiler.add_unpacked, before_download=sources_written.result)
        except PackageUnbuilt as error:
            # Their requirement files say who asks for it.
            sources_written.result()
            wants = who_requires(self.build_folder, error.name)
            raise PackageUnbuilt(
                package=error.package, name=error.name, python=error.python, reason=error.reason, wants=wants
            ) from error

    def _keep_and_probe(
        self, installer: PackageInstaller, verified_files: VerifiedFiles, linked_packages: LinkedPackages
    ) -> tuple[bool, Mapping[str, tuple[str, ...]]]:
        """Keep the packages, and start ComfyUI unless these bytes have started before; return whether they had, and the
        model folders.
        """
        # Keeping only makes links, so it runs beside the probe.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="keep") as thread_pool:
            packages_kept = thread_pool.submit(installer.keep_packages, verified_files, linked_packages)
            earlier_result = self._find_earlier_probe(verified_files.manifest)
            probe_result = earlier_result or self._run_probe(verified_files)
            write_manifest(self.build_folder, verified_files.manifest)
            packages_kept.result()
        return earlier_result is not None, probe_result.model_folders

    def _write_sources(self, compiler: Precompiler) -> None:
        write_sources(self.build_folder, self.recipe, self.locations)
        comfyui = self.build_folder / COMFYUI_FOLDER
        required = required_distributions(comfyui / "requirements.txt", self.recipe.interpreter.markers)
        locked = {normalize_name(package_pin.name) for package_pin in self.recipe.packages}
        # ComfyUI's start would notice it at the end; a lock without packages is one of tests and of old schemas.
        if locked and (missing := [name for name in required if name not in locked]):
            raise RequirementsNotLocked(missing=missing)
        compiler.add_comfyui(comfyui, required)
        add_activation_scripts(self.build_folder, self.recipe.interpreter, self.locations.uv_cache)

    @property
    def _probe_notes(self) -> ProbeNotes:
        return ProbeNotes(folder=self.locations.probe_notes, env=self.recipe.env_digest)

    def _find_earlier_probe(self, manifest: FileManifest) -> ProbeResult | None:
        """Return the result of an earlier probe of the same bytes on this machine, or None."""
        return None if self.force_probe else self._probe_notes.find_result(manifest, self.recipe.interpreter)

    def _run_probe(self, verified_files: VerifiedFiles) -> ProbeResult:
        """Start ComfyUI and return what the probe learned."""
        self.report("Starting ComfyUI to import every node.")
        node_pins = self.recipe.nodes
        probe_result = probe_env(
            self.build_folder,
            [node_pin.folder for node_pin in node_pins],
            self.recipe.interpreter.markers,
            skipped_scripts=[
                node_pin.folder
                for node_pin in node_pins
                if node_pin.install_script_sha256 and node_pin.install_script == "skip"
            ],
        )
        self._undo_imports(verified_files.stamps)
        self._probe_notes.write_result(verified_files.manifest, self.recipe.interpreter, probe_result)
        return probe_result

    def _undo_imports(self, stamps_before: Mapping[str, FileStamp]) -> None:
        """Take back what importing nodes has written: files that are new go, files that changed are written again."""
        stamps_after = stamp_files(self.build_folder)
        for relative_path in stamps_after.keys() - stamps_before.keys():
            (self.build_folder / relative_path).unlink(missing_ok=True)
        changed_paths = sorted(
            relative_path
            for relative_path, file_stamp in stamps_before.items()
            if stamps_after.get(relative_path) != file_stamp
        )
        restore_sources(self.build_folder, self.recipe, self.locations, changed_paths)


def make_receipt(recipe: EnvRecipe, manifest: FileManifest, model_folders: Mapping[str, tuple[str, ...]]) -> Receipt:
    """Return the receipt of a build that was made from the recipe (pure)."""
    interpreter = recipe.interpreter
    return Receipt(
        env_digest=recipe.env_digest,
        key=recipe.key,
        target=recipe.target,
        python=interpreter.minor_version,
        platform=interpreter.platform_tag,
        comfyui=SourcePin(folder=COMFYUI_FOLDER, repo=recipe.comfyui.repo, commit=recipe.comfyui.commit),
        nodes=tuple(
            SourcePin(folder=node_pin.folder, repo=node_pin.repo, commit=node_pin.commit) for node_pin in recipe.nodes
        ),
        packages={normalize_name(package_pin.name): package_pin.version for package_pin in recipe.packages},
        manifest=manifest.digest,
        files=len(manifest.files),
        size_bytes=manifest.size_bytes,
        model_folders=model_folders,
    )
