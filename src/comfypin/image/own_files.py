"""Collects comfypin's own part of every image: its Dockerfile, its dependencies by sha256, and itself as a wheel."""

import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from comfypin import __version__
from comfypin.image.build_context import BuildContext, OwnFiles
from comfypin.image.errors import OwnFilesMissing
from comfypin.tools.uv import run_uv

# What comes with our dependencies for their command lines and extras, a third of their size: Runpod's SDK asks for
# fastapi[all] and its own console. Nothing that we import of them imports these: the build would fail
# (docker/steps/import_used.py).
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
        # fastapi[all]: templates, a test client, and websockets, which our server turns off.
        *("jinja2", "markupsafe", "httpx", "httpcore", "truststore", "websockets"),
        # Runpod's console.
        *("inquirerpy", "prettytable", "watchdog", "agent-detector"),
    )
)


def collect_own_files(temporary_folder: Path) -> OwnFiles:
    """Collect the files from a checkout, else from the installed package; builds a wheel of a checkout.

    Raises `OwnFilesMissing`.
    """
    # src/comfypin/image/own_files.py
    checkout_folder = Path(__file__).resolve().parents[3]
    is_checkout = (checkout_folder / "docker" / "Dockerfile").is_file() and (
        checkout_folder / "pyproject.toml"
    ).is_file()
    project_folder = checkout_folder if is_checkout else Path(str(files("comfypin"))) / "data" / "project"
    docker_folder = project_folder / "docker"
    if not (docker_folder / "Dockerfile").is_file():
        raise OwnFilesMissing(what="its Dockerfile", reason=f"it is not in {docker_folder}")
    requirements = _export_requirements(project_folder, temporary_folder)
    return OwnFiles(
        dockerfile=(docker_folder / "Dockerfile").read_text(encoding="utf-8"),
        steps={
            file_path.name: file_path.read_bytes()
            for file_path in sorted((docker_folder / "steps").iterdir())
            if file_path.is_file()
        },
        requirements=choose_requirements(requirements, lambda file_name: file_name not in UNUSED_PACKAGES),
        installer=choose_requirements(requirements, lambda file_name: file_name == "uv"),
        version=__version__,
        wheel=_build_wheel(checkout_folder, temporary_folder) if is_checkout else None,
    )


def write_context(build_context: BuildContext, target_folder: Path) -> None:
    """Write a context into a folder: an empty one, or one with an earlier context, in a repository for example."""
    # What an earlier release had in its image must not stay in this one's: workflows, locks.
    shutil.rmtree(target_folder / "release" / "app", ignore_errors=True)
    for file_name, content in build_context.files.items():
        file_path = target_folder / file_name
        file_path.parent.mkdir(parents=True, exist_ok=True)
        file_path.write_bytes(content)
        # The umask of this machine must not change a layer.
        file_path.chmod(0o644)
    for file_name, source_path in build_context.copies.items():
        target_path = target_folder / file_name
        target_path.parent.mkdir(parents=True, exist_ok=True)
        if source_path.is_dir():
            shutil.copytree(source_path, target_path, dirs_exist_ok=True)
        else:
            shutil.copyfile(source_path, target_path)


def _export_requirements(project_folder: Path, temporary_folder: Path) -> str:
    """Return all dependencies as uv.lock pins them, with every extra."""
    # uv wants a project it may write beside; an installed package may lie on a read-only disk.
    target_folder = temporary_folder / "project"
    target_folder.mkdir(parents=True)
    for file_name in ("pyproject.toml", "uv.lock"):
        shutil.copyfile(project_folder / file_name, target_folder / file_name)
    # Frozen: uv.lock as it was released, without asking any index.
    arguments = ["export", "--frozen", "--no-emit-project", "--extra", "all", "--no-header", "--no-annotate"]
    finished = run_uv(
        [*arguments, "--quiet", "--format", "requirements-txt", "--project", target_folder],
        cwd=target_folder,
        offline=True,
    )
    if finished.exit_code:
        raise OwnFilesMissing(what="its dependencies", reason=finished.error_summary)
    return finished.stdout.decode()


def choose_requirements(requirements: str, is_wanted: Callable[[str], bool]) -> bytes:
    """Return the wanted packages of a requirements file; hashes follow their package's line, indented (pure)."""
    kept_lines: list[str] = []
    is_kept = True
    for requirement_line in requirements.splitlines(keepends=True):
        if not requirement_line[:1].isspace():
            is_kept = is_wanted(requirement_line.partition("==")[0].strip().lower())
        if is_kept:
            kept_lines.append(requirement_line)
    return "".join(kept_lines).encode()


def _build_wheel(checkout_folder: Path, temporary_folder: Path) -> Path:
    output_folder = temporary_folder / "wheel"
    finished = run_uv(["build", "--quiet", "--wheel", "--out-dir", output_folder, checkout_folder], cwd=checkout_folder)
    built_wheels = sorted(output_folder.glob("comfypin-*.whl"))
    if finished.exit_code or not built_wheels:
        raise OwnFilesMissing(what="a wheel of itself", reason=finished.error_summary)
    return built_wheels[-1]
