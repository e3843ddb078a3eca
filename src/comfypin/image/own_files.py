"""Collects comfypin's own part of every image: its Dockerfile, its dependencies by sha256, and itself as a wheel."""

import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from comfypin import __version__
from comfypin.image.context import BuildContext, OwnFiles
from comfypin.image.errors import OwnFilesMissing
from comfypin.tools.uv import run_uv

# What comes with our dependencies for their command lines and extras, a third of their size: RunPod's SDK asks for
# fastapi[all] and its own console.
UNUSED_PACKAGES = frozenset(
    (
        *("colorama", "sentry-sdk", "uvloop", "dnspython"),
        *(
            "email-validator",
            "fastapi-cli",
            "fastapi-cloud-cli",
            "rich-toolkit",
            "rignore",
            "fastar",
            "detect-installer",
        ),
        *("typer", "shellingham", "httpx2", "httpcore2", "httpx2-jsfetch", "watchfiles", "pydantic-settings"),
        *("pydantic-extra-types", "itsdangerous", "prompt-toolkit", "pfzy", "pygments", "wcwidth"),
    )
)


def collect_own_files(scratch: Path) -> OwnFiles:
    """Collect the files from a checkout, else from the installed package; builds a wheel of a checkout.

    Raises `OwnFilesMissing`.
    """
    # src/comfypin/image/own_files.py
    checkout = Path(__file__).resolve().parents[3]
    is_checkout = (checkout / "docker" / "Dockerfile").is_file() and (checkout / "pyproject.toml").is_file()
    project = checkout if is_checkout else Path(str(files("comfypin"))) / "data" / "project"
    docker = project / "docker"
    if not (docker / "Dockerfile").is_file():
        raise OwnFilesMissing(what="its Dockerfile", reason=f"it is not in {docker}")
    requirements = _export_requirements(project, scratch)
    return OwnFiles(
        dockerfile=(docker / "Dockerfile").read_text(encoding="utf-8"),
        steps={path.name: path.read_bytes() for path in sorted((docker / "steps").iterdir()) if path.is_file()},
        requirements=choose_requirements(requirements, lambda name: name not in UNUSED_PACKAGES),
        installer=choose_requirements(requirements, lambda name: name == "uv"),
        version=__version__,
        wheel=_build_wheel(checkout, scratch) if is_checkout else None,
    )


def write_context(context: BuildContext, folder: Path) -> None:
    """Write a context into an empty folder."""
    for name, data in context.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        # The umask of this machine must not change a layer.
        path.chmod(0o644)
    for name, source in context.copies.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)


def _export_requirements(project: Path, scratch: Path) -> str:
    """Return all dependencies as uv.lock pins them, with every extra."""
    # uv wants a project it may write beside; an installed package may lie on a read-only disk.
    folder = scratch / "project"
    folder.mkdir(parents=True)
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copyfile(project / name, folder / name)
    # Frozen: uv.lock as it was released, without asking any index.
    words = ["export", "--frozen", "--no-emit-project", "--extra", "all", "--no-header", "--no-annotate"]
    done = run_uv([*words, "--quiet", "--format", "requirements-txt", "--project", folder], cwd=folder, offline=True)
    if done.exit_code:
        raise OwnFilesMissing(what="its dependencies", reason=done.error_summary)
    return done.stdout.decode()


def choose_requirements(requirements: str, wanted: Callable[[str], bool]) -> bytes:
    """Return the wanted packages of a requirements file; hashes follow their package's line, indented (pure)."""
    kept: list[str] = []
    keeping = True
    for line in requirements.splitlines(keepends=True):
        if not line[:1].isspace():
            keeping = wanted(line.partition("==")[0].strip().lower())
        if keeping:
            kept.append(line)
    return "".join(kept).encode()


def _build_wheel(checkout: Path, scratch: Path) -> Path:
    out = scratch / "wheel"
    done = run_uv(["build", "--quiet", "--wheel", "--out-dir", out, checkout], cwd=checkout)
    wheels = sorted(out.glob("comfypin-*.whl"))
    if done.exit_code or not wheels:
        raise OwnFilesMissing(what="a wheel of itself", reason=done.error_summary)
    return wheels[-1]
