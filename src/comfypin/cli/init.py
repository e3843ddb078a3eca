"""Make a lock of the ComfyUI that you have, and say what to type next.

Finds your ComfyUI (FOLDER, else COMFY_HOME, else the usual folders) and its Python, and writes
lockfiles/comfy-NAME.lock.json: ComfyUI's commit, its nodes, the packages, the models with their sha256. Your ComfyUI is
not changed. --workflow checks a workflow against the lock. It is `lock capture` with fewer questions.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.own_comfyui import find_installed, holds_comfyui
from comfypin.errors import LockError, UsageError, WorkflowError

if TYPE_CHECKING:
    from comfypin.settings.environment import Settings

EXAMPLES = """examples:
  comfypin init ~/ComfyUI
  comfypin init ~/ComfyUI --name portraits --workflow portrait.json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `init`."""
    parser.add_argument(
        "folder", nargs="?", metavar="FOLDER", type=Path, help="your ComfyUI (default: it is looked for)"
    )
    parser.add_argument("--name", metavar="NAME", help="the release's name (default: mine)", default="mine")
    parser.add_argument("--python", metavar="PYTHON|DIR", type=Path, help="its Python, or its environment")
    parser.add_argument("--comfyui", metavar="URL[@REF]", help="which ComfyUI it is, for a folder without .git")
    parser.add_argument("--workflow", metavar="FILE", help="check this workflow against the lock")
    parser.add_argument("--no-models", action="store_true", help="leave the models out: hashing them takes a while")
    parser.add_argument("--no-verify", action="store_true", help="do not ask the remotes for the commits")
    parser.add_argument("--allow-dirty", action="store_true", help="store changes of checkouts as diffs in the lock")
    parser.add_argument(
        "--leave-out", metavar="NAME", action="append", default=[], help="a node's folder or a package; repeatable"
    )
    parser.add_argument("--out", metavar="FILE", help="the file to write (default: in lockfiles/)")
    parser.add_argument("--force", action="store_true", help="replace a release of this name that pins something else")
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def execute(arguments: argparse.Namespace) -> int:
    """Capture the lock, check the workflow, and print the next two commands."""
    from comfypin.cli.common import read_workflow
    from comfypin.cli.lock.capture import capture_release
    from comfypin.engine.command import choose_python

    folder = _choose_folder(arguments.folder, arguments.settings)
    if arguments.workflow is not None:
        # A typo must not show only after minutes of hashing.
        read_workflow(arguments.workflow)
    main_file = next(path for path in (folder / "ComfyUI/main.py", folder / "main.py") if path.is_file())
    machine = arguments.settings.machine
    python = choose_python(
        folder, main_file, arguments.settings.variables, named_python=arguments.python or machine.comfy_python
    )
    print(f"comfypin: {main_file.parent} with {python}", file=sys.stderr)
    exit_code = capture_release(_capture_arguments(arguments, folder, python))
    lock = arguments.out or arguments.name
    if arguments.workflow is not None:
        # Checked in any case, so that everything is said in one run.
        workflow_code = _check_workflow(arguments, folder, lock)
        exit_code = exit_code or workflow_code
    _print_next_steps(arguments, folder, lock, exit_code)
    return exit_code


def _choose_folder(named_folder: Path | None, settings: "Settings") -> Path:
    if named_folder is not None:
        if not holds_comfyui(named_folder):
            raise UsageError(f"{named_folder} is not a ComfyUI: it has neither main.py nor ComfyUI/main.py.")
        return named_folder.resolve()
    places = [settings.machine.comfy_home, *find_installed()]
    for candidate in places:
        if holds_comfyui(candidate):
            return candidate.absolute()
    raise UsageError(
        "No ComfyUI was found in COMFY_HOME or the usual folders; name it: comfypin init FOLDER. "
        "Without one, comfypin lock create makes a lock from scratch."
    )


def _capture_arguments(arguments: argparse.Namespace, folder: Path, python: Path) -> argparse.Namespace:
    """Return the arguments of `lock capture` that say the same."""
    from comfypin.cli.lock.capture import configure_capture

    parser = argparse.ArgumentParser()
    configure_capture(parser)
    # Through its parser, so that its defaults apply.
    captured = parser.parse_args([arguments.name, "--from", str(folder)])
    captured.venv, captured.leave_out = python.absolute(), arguments.leave_out
    for attribute in (
        "comfyui",
        "no_models",
        "no_verify",
        "allow_dirty",
        "out",
        "force",
        "json",
        "verbose",
        "settings",
    ):
        setattr(captured, attribute, getattr(arguments, attribute))
    return captured


def _print_next_steps(arguments: argparse.Namespace, folder: Path, lock: str, exit_code: int) -> None:
    problems = {
        LockError.exit_code: (
            "no ComfyUI can be made of it: the errors above name what it lacks, and what adds it. Or install that in "
            f"{folder}"
        ),
        WorkflowError.exit_code: (
            f"{arguments.workflow} would not run: the errors above say why. Mend that in {folder} or in the workflow"
        ),
    }
    if exit_code in problems:
        print(
            f"comfypin: the lock is written, but {problems[exit_code]}, and run this again with --force.",
            file=sys.stderr,
        )
        return
    # Only a file that is there: the command is to be copied as it is.
    run_words = ["comfypin", "run", "--lock", lock, "--workflow", arguments.workflow or "FILE", "--output", "file"]
    home = f"~/comfy-{arguments.name}"
    print(
        f"comfypin: next, make the same ComfyUI anew in {home}, here or on any machine, and run a workflow there\n"
        f"({folder} was only read, and is never written to):\n"
        f"  comfypin realize {shlex.quote(lock)} --home {home}\n"
        f"  {shlex.join(run_words)} --comfy-home {home}",
        file=sys.stderr,
    )


def _check_workflow(arguments: argparse.Namespace, folder: Path, lock: str) -> int:
    from comfypin.cli.main import main

    # A command of its own, in this process: it starts the ComfyUI to ask what it has.
    words = ["workflow", "check", arguments.workflow, "--lock", lock, "--comfy-home", str(folder)]
    words += ["--python", str(arguments.python)] if arguments.python is not None else []
    return main(words)
