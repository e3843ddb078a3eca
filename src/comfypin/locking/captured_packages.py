"""Reads which packages the venv of an installed ComfyUI has, as requirements."""

import json
from dataclasses import dataclass
from pathlib import Path

from comfypin.lock.model import DEFAULT_PYTHON
from comfypin.locking.capture_request import CaptureNotes, CaptureRequest
from comfypin.locking.errors import InstalledUnreadable
from comfypin.locking.left_out import is_left_out
from comfypin.tools.process import run_program
from comfypin.tools.uv import clean_environment

# Run by the venv's own Python, which may be older than ours: no syntax newer than 3.8.
_LIST_PACKAGES = """
import importlib.metadata as m, json, sys
found = []
for d in m.distributions():
    text = d.read_text("direct_url.json")
    name = d.metadata["Name"]
    if name:
        found.append({"name": name, "version": d.version, "direct": json.loads(text) if text else None})
print(json.dumps({"python": "%d.%d" % sys.version_info[:2], "packages": found}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPackage:
    """A distribution of a venv; `direct_url` is what PEP 610 records of one that came from an address."""

    name: str
    version: str
    direct_url: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPackages:
    """The Python version of a venv (`3.12`), and what is installed in it, in the order of the path."""

    python: str
    packages: tuple[InstalledPackage, ...]


def list_installed(interpreter: Path) -> InstalledPackages:
    """Ask a venv's Python what is installed. Raises `InstalledUnreadable`."""
    # `-I` keeps the user's own site-packages and PYTHONPATH out of the list.
    interpreter_run = run_program([interpreter, "-I", "-c", _LIST_PACKAGES], env=clean_environment(), timeout_s=120)
    if interpreter_run.exit_code:
        raise InstalledUnreadable(
            python=str(interpreter), reason=f"did not list its packages: {interpreter_run.error_summary}"
        )
    try:
        # The last line: a sitecustomize or a .pth file may print before it.
        told = json.loads(interpreter_run.stdout_text.strip().rpartition("\n")[2])
    except ValueError as error:
        raise InstalledUnreadable(
            python=str(interpreter), reason=f"did not answer like Python: {interpreter_run.stdout_text[:200]!r}"
        ) from error
    packages = (
        InstalledPackage(name=str(package["name"]), version=str(package["version"]), direct_url=package["direct"])
        for package in told["packages"]
    )
    return InstalledPackages(python=str(told["python"]), packages=tuple(packages))


def installed_packages(capture_request: CaptureRequest, capture_notes: CaptureNotes) -> tuple[str, list[str]]:
    """Return the venv's Python version and its packages as requirements; note those that only this machine has."""
    interpreter = capture_request.interpreter or _find_interpreter(capture_request.folder)
    if interpreter is None:
        capture_notes.reasons.append("there is no venv beside it (.venv, venv); name one with --venv")
        return DEFAULT_PYTHON, []
    try:
        installed = list_installed(interpreter)
    except InstalledUnreadable as error:
        capture_notes.reasons.append(error.message.rstrip("."))
        return DEFAULT_PYTHON, []
    requirements_by_name: dict[str, str] = {}
    for package in installed.packages:
        package_name = package.name
        capture_notes.names.append(package_name)
        # pip comes with every venv and is no requirement of anything.
        if package_name.lower() == "pip" or is_left_out(capture_request.left_out, package_name):
            continue
        requirement_line = _package_requirement(package_name, package.version, package.direct_url)
        if requirement_line is None:
            capture_notes.reasons.append(
                f"the package {package_name} {package.version} is installed from this machine's own files; "
                f"leave it out with --leave-out {package_name}"
            )
        else:
            # A package may be found twice on the path; Python imports the first.
            requirements_by_name.setdefault(package_name.lower(), requirement_line)
    return installed.python, list(requirements_by_name.values())


def _find_interpreter(folder: Path) -> Path | None:
    for base in (folder, folder.parent):
        for folder_name in (".venv", "venv"):
            python = base / folder_name / "bin" / "python"
            if python.exists():
                return python
    return None


def _package_requirement(package_name: str, version: str, direct_url: object) -> str | None:
    """Return a package as pip would ask for it again (PEP 610), or None if only this machine has it."""
    if not isinstance(direct_url, dict):
        return f"{package_name}=={version}"
    package_url = str(direct_url.get("url", ""))
    vcs_info = direct_url.get("vcs_info")
    # pip records the commit that it installed, so a moved branch does no harm.
    if isinstance(vcs_info, dict) and vcs_info.get("vcs") == "git" and not package_url.startswith("file:"):
        return f"{package_name} @ git+{package_url}@{vcs_info.get('commit_id')}"
    if "archive_info" in direct_url and package_url.startswith(("http:", "https:")):
        return f"{package_name} @ {package_url}"
    return None
