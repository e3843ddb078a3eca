"""Run the built-in demo: the embedded engine turns a picture from the package into a sheet of prints."""

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
    run.add_report_flags(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Run the demo as `comfypin run` does, from the package's own data."""
    data_folder = _find_demo_data()
    run_words = [
        "--lock",
        str(data_folder / "lockfiles" / "comfy-demo.lock.json"),
        "--workflow",
        str(data_folder / "workflows" / "demo.json"),
    ]
    run_words += ["--output", "base64", "--out-file", str(arguments.out_file)]
    # Through the parser of `run`, so that its defaults apply.
    run_parser = argparse.ArgumentParser()
    run.configure(run_parser)
    run_arguments = run_parser.parse_args(run_words)
    run_arguments.json, run_arguments.verbose, run_arguments.settings = (
        arguments.json,
        arguments.verbose,
        arguments.settings,
    )
    return run.execute(run_arguments)


def _find_demo_data() -> Path:
    """Return the folder of demo data: in the installed package, or in the checkout that it is imported from."""
    package_folder = Path(comfypin.__file__).parent
    for folder in (package_folder / "data", package_folder.parents[1]):
        if (folder / "workflows" / "demo.json").is_file():
            return folder
    raise UsageError(
        f"This installation of comfypin has no demo: workflows/demo.json is missing in {package_folder / 'data'}; "
        "install it again."
    )
