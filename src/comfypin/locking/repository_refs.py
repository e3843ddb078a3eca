"""`[FOLDER=]URL[@REF]`, as people name repositories on the command line."""

import re
from dataclasses import dataclass
from pathlib import Path

from comfypin.lock.errors import SpecInvalid

_REPO_FORM = "[FOLDER=]URL[@REF], such as https://host/org/repo@v1.2 or registry://PACK@1.0.0"
_FOLDER = re.compile(r"([^/\\:@=\s][^/\\:@=]*)=(.*)", re.S)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoSpec:
    """A repository, the ref that is wanted of it (None: its default branch), and a folder's name if one was given."""

    repo: str
    ref: str | None = None
    folder: str | None = None

    @property
    def name(self) -> str:
        """The folder it goes to: the given one, or what `git clone` would make."""
        return self.folder or repo_folder(self.repo)


def parse_repo_spec(text: str) -> RepoSpec:
    """Read a repository's spec. A local folder becomes a file:// URL. Raises `SpecInvalid`."""
    match = _FOLDER.fullmatch(text)
    folder, rest = (match[1], match[2]) if match else (None, text)
    if not rest.strip() or rest.startswith("-") or "://-" in rest or any(character.isspace() for character in rest):
        raise SpecInvalid(what="repository", spec=text, form=_REPO_FORM)
    if rest.startswith("registry://"):
        repo, _, ref = rest.partition("@")
    elif "://" in rest:
        scheme, _, tail = rest.partition("://")
        host, slash, path = tail.partition("/")
        path, _, ref = path.partition("@")
        repo = f"{scheme}://{host}{slash}{path}"
    elif re.match(r"[\w.-]+@[\w.-]+:", rest):
        user, _, tail = rest.partition("@")
        path, _, ref = tail.partition("@")
        repo = f"{user}@{path}"
    else:
        path, _, ref = rest.partition("@")
        if not path.startswith((".", "/", "~")):
            raise SpecInvalid(what="repository", spec=text, form=_REPO_FORM)
        repo = Path(path).expanduser().resolve().as_uri()
    if "@" in text and not ref and text.endswith("@"):
        raise SpecInvalid(what="repository", spec=text, form=_REPO_FORM)
    return RepoSpec(repo=repo, ref=ref or None, folder=folder)


def repo_folder(repo: str) -> str:
    """The folder that `git clone` would make for a repository's URL."""
    return re.split(r"[/:]", repo.rstrip("/"))[-1].removesuffix(".git") or "repository"
