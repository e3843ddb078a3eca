"""Remembers which envs have started on this machine, so that the same bytes on the same Python are not started twice.

A note is named by all that a probe's outcome hangs on: every byte of the env, the interpreter's own file, the libraries
the machine has, and how we probe. Whatever of it changes, another name is looked for, and the env is started.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from comfypin.atomic_files import write_atomically
from comfypin.digest import Digest, canonical_json
from comfypin.env.file_manifest import FileManifest
from comfypin.env.install.import_probe import ProbeResult, probe_digest
from comfypin.env.package_selection import Interpreter

# The linker's list of libraries is written whenever a package of the system brings or takes one.
_LIBRARIES = Path("/etc/ld.so.cache")
_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeNotes:
    """Reads and writes the notes of successful probes, in a folder of the cache; each note names its env."""

    folder: Path
    env: Digest

    def find_result(self, manifest: FileManifest, interpreter: Interpreter) -> ProbeResult | None:
        """Return what an earlier probe of exactly these bytes learned, or None."""
        try:
            model_folders = json.loads(self._note_path(manifest, interpreter).read_bytes())["model_folders"]
            return ProbeResult(
                model_folders={
                    str(folder_name): tuple(map(str, folder_paths))
                    for folder_name, folder_paths in model_folders.items()
                }
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write_result(self, manifest: FileManifest, interpreter: Interpreter, probe_result: ProbeResult) -> None:
        """Remember a probe that went well."""
        model_folders = {
            folder_name: list(folder_paths) for folder_name, folder_paths in probe_result.model_folders.items()
        }
        with contextlib.suppress(OSError):  # a cache that cannot be written is only slower
            probe_note = {"env": self.env.hex, "model_folders": model_folders}
            write_atomically(self._note_path(manifest, interpreter), json.dumps(probe_note).encode(), durable=False)

    def _note_path(self, manifest: FileManifest, interpreter: Interpreter) -> Path:
        facts = canonical_json(
            {
                "manifest": manifest.digest.hex,
                "python": [str(interpreter.path), interpreter.version, *_stamp_file(interpreter.path)],
                # A node may load libgl or ffmpeg from the system.
                "libraries": _stamp_file(_LIBRARIES),
                "markers": dict(interpreter.markers),
                "variables": {variable_name: os.environ.get(variable_name) for variable_name in _VARIABLES},
                "probe": probe_digest().hex,
            }
        )
        return self.folder / f"{Digest.of(facts).hex}.json"


def _stamp_file(file_path: Path) -> list[int]:
    try:
        file_status = file_path.stat()
    except OSError:
        return []
    return [file_status.st_size, file_status.st_mtime_ns, file_status.st_ino]
