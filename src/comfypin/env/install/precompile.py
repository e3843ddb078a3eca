"""Compiles packages while uv still installs others, so that the first start of the env has less to do.

It is a process of the env's own Python version, at the lowest priority; docs/architecture.md, "Env", says why. It makes
Python's own byte-code, with the size and time of its source: if the source in the env is another file, Python compiles
it again.
"""

import contextlib
import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from comfypin.digest import JsonValue
from comfypin.tools.uv import clean_environment

_SCRIPT = Path(__file__).with_name("compile_script.py")


class Precompiler:
    """While entered, modules are compiled; nothing is left running after. It starts with the first unpacked wheel."""

    def __init__(self, python_path: Path, site_folder: Path) -> None:
        # Beside byte-code, where nothing is compared with the lock.
        self._temporary = site_folder / "__pycache__" / "ahead.tmp"
        self._command = [str(python_path), "-I", "-S", "-B", str(_SCRIPT), str(site_folder), str(self._temporary)]
        self._process: subprocess.Popen[bytes] | None = None
        # Told of by several threads.
        self._guard = threading.Lock()
        self._wanted: JsonValue = None
        self._over = False

    def __enter__(self) -> "Precompiler":
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def add_unpacked(self, folder: str) -> None:
        """Take up the wheel that was unpacked in `folder`; the first one starts the process."""
        with self._guard:
            if self._process is None and not self._over:
                self._start_process()
            self._send_line({"unpacked": folder})

    def add_comfyui(self, comfyui_folder: Path, packages: Sequence[str]) -> None:
        """Take up ComfyUI and its nodes, and the distributions that the probe tries first."""
        first_files = [
            comfyui_folder / "main.py",
            *comfyui_folder.glob("custom_nodes/*/__init__.py"),
            *comfyui_folder.glob("comfy_extras/*.py"),
        ]
        file_names: list[JsonValue] = [
            str(source_path.relative_to(comfyui_folder)) for source_path in first_files if source_path.is_file()
        ]
        with self._guard:
            self._wanted = {"comfyui": str(comfyui_folder), "first": file_names, "packages": list(packages)}
            self._send_line(self._wanted)

    def stop(self) -> None:
        """End it; what it has made stays."""
        with self._guard:
            self._over = True
            running_process, self._process = self._process, None
        if running_process is not None:
            # Killed, not asked: each file is replaced as a whole, so nothing is left half written.
            running_process.kill()
            running_process.communicate()
            self._temporary.unlink(missing_ok=True)

    def _start_process(self) -> None:
        with contextlib.suppress(OSError):  # without it the start only takes longer
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=clean_environment(),
                # Ctrl-C is for us; we then end it ourselves.
                start_new_session=True,
            )
        if self._wanted is not None:
            self._send_line(self._wanted)

    def _send_line(self, message: JsonValue) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()
