"""Real git repositories for tests, made in a moment and reached by file://."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_ENVIRON = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@example.org",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example.org",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, the same on every machine, and give what it said."""
    done = subprocess.run(["git", *arguments], cwd=folder, env=_ENVIRON, capture_output=True, check=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, files: Mapping[str, str | bytes], *, tag: str | None = None) -> str:
    """Write files, commit everything, and say the commit. The repository is made where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        git(folder, "init", "--quiet", "--initial-branch", "main")
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a commit")
    if tag:
        git(folder, "tag", "--annotate", "--message", "a tag", tag)
    return git(folder, "rev-parse", "HEAD")
