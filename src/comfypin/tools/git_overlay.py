"""Lets git compare a folder without `.git`, such as an unpacked archive, with a commit. The folder is only read."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from comfypin.temp_folders import temp_folder
from comfypin.tools.errors import CheckoutUnreadable
from comfypin.tools.git_process import run_git


@contextlib.contextmanager
def overlay_checkout(files_folder: Path, bare_repository: Path, commit_id: str, remote_url: str) -> Iterator[Path]:
    """Give a temporary folder that `read_checkout` and `diff_checkout` take for a checkout of these files.

    Its `.git` borrows the objects of `bare_repository`, and its work tree is `files_folder`. Raises
    `CheckoutUnreadable`.
    """
    with temp_folder("overlay") as overlay_folder:
        git_folder = overlay_folder / ".git"
        _run(["init", "--quiet", "."], overlay_folder, files_folder)
        (git_folder / "objects" / "info" / "alternates").write_text(f"{(bare_repository / 'objects').resolve()}\n")
        (git_folder / "HEAD").write_text(f"{commit_id}\n")
        settings = {
            "core.worktree": str(files_folder.resolve()),
            # Archives and image layers often lose the modes of files.
            "core.fileMode": "false",
            "remote.origin.url": remote_url,
        }
        for setting_key, setting_value in settings.items():
            _run(["config", setting_key, setting_value], overlay_folder, files_folder)
        _run(["read-tree", "HEAD"], overlay_folder, files_folder)
        yield overlay_folder


def _run(arguments: list[str], overlay_folder: Path, files_folder: Path) -> None:
    finished = run_git(arguments, cwd=overlay_folder)
    if finished.exit_code:
        raise CheckoutUnreadable(folder=str(files_folder), reason=finished.error_summary)
