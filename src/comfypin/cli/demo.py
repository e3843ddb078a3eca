"""Run the built-in demo: a picture that comes with the package becomes a sheet of prints, on the embedded engine."""

import argparse
from pathlib import Path

import comfypin
from comfypin.cli import run
from comfypin.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `demo`."""
    parser.add_argument(
        "--out-file",
        metavar="FILE",
        type=Path,
        default=Path("comfypin-demo.png"),
        help="the picture (default: %(default)s)",
    )
    run.add_telling_flags(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Run the demo as `comfypin run` does, from the package's own data."""
    data = _data_folder()
    words = [
        "--lock",
        str(data / "lockfiles" / "comfy-demo.lock.json"),
        "--workflow",
        str(data / "workflows" / "demo.json"),
    ]
    words += ["--output", "base64", "--out-file", str(arguments.out_file)]
    parser = argparse.ArgumentParser()
    run.configure(parser)
    wanted = parser.parse_args(words)
    wanted.json, wanted.verbose, wanted.settings = arguments.json, arguments.verbose, arguments.settings
    return run.execute(wanted)


def _data_folder() -> Path:
    """The data in the installed package, or in the checkout that the package is imported from."""
    package = Path(comfypin.__file__).parent
    for folder in (package / "data", package.parents[1]):
        if (folder / "workflows" / "demo.json").is_file():
            return folder
    raise UsageError(
        f"This installation of comfypin has no demo: there is no workflows/demo.json in {package / 'data'}."
    )
