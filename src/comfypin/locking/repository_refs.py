"""Parses `[FOLDER=]URL[@REF]`, as people name repositories on the command line."""

import re
from dataclasses import dataclass
from pathlib import Path

from comfypin.lock.errors import SpecInvalid

# ComfyUI's own repository; what names none means this one.
COMFYUI = "https://github.com/comfyanonymous/ComfyUI"
_RELEASE = re.compile(r"v?(\d+\.\d+\.\d+)")
_REPO_FORM = "[FOLDER=]URL[@REF], such as https://host/org/repo@v1.2 or registry://PACK@1.0.0"
# No colon, slash or "@" before "=", or a URL with a query would look like a folder.
_FOLDER = re.compile(r"([^/\\:@=\s][^/\\:@=]*)=(.*)", re.S)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoSpec:
    """A repository, the wanted ref (None: its default branch), and a folder's name if one was given."""

    repo: str
    ref: str | None = None
    folder: str | None = None

    @property
    def name(self) -> str:
        """Return the folder it goes to: the given one, or what `git clone` would make."""
        return self.folder or repo_folder(self.repo)


def parse_repo_spec(spec_text: str) -> RepoSpec:
    """Parse a repository's spec. A local folder becomes a file:// URL. Raises `SpecInvalid`."""
    folder_match = _FOLDER.fullmatch(spec_text)
    folder, repo_text = (folder_match[1], folder_match[2]) if folder_match else (None, spec_text)
    # "-" at the beginning would be an option to git.
    if (
        not repo_text.strip()
        or repo_text.startswith("-")
        or "://-" in repo_text
        or any(character.isspace() for character in repo_text)
    ):
        raise SpecInvalid(what="repository", spec=spec_text, form=_REPO_FORM)
    if repo_text.startswith("registry://"):
        repo_url, _, named_ref = repo_text.partition("@")
    elif "://" in repo_text:
        # "@" before the first slash is a user's name, after it a ref.
        scheme, _, after_scheme = repo_text.partition("://")
        host, slash, repo_path = after_scheme.partition("/")
        repo_path, _, named_ref = repo_path.partition("@")
        repo_url = f"{scheme}://{host}{slash}{repo_path}"
    # git@host:path, as ssh remotes are written.
    elif re.match(r"[\w.-]+@[\w.-]+:", repo_text):
        user, _, after_scheme = repo_text.partition("@")
        repo_path, _, named_ref = after_scheme.partition("@")
        repo_url = f"{user}@{repo_path}"
    else:
        repo_path, _, named_ref = repo_text.partition("@")
        if not repo_path.startswith((".", "/", "~")):
            raise SpecInvalid(what="repository", spec=spec_text, form=_REPO_FORM)
        repo_url = Path(repo_path).expanduser().resolve().as_uri()
    if "@" in spec_text and not named_ref and spec_text.endswith("@"):
        raise SpecInvalid(what="repository", spec=spec_text, form=_REPO_FORM)
    return RepoSpec(repo=repo_url, ref=named_ref or None, folder=folder)


def parse_comfyui_spec(spec_text: str) -> RepoSpec:
    """Parse which ComfyUI is meant: `v0.3.64` or `0.3.64` is that release of ComfyUI's own repository, else a spec.

    Raises `SpecInvalid`.
    """
    if release_match := _RELEASE.fullmatch(spec_text):
        return RepoSpec(repo=COMFYUI, ref=f"v{release_match[1]}")
    try:
        return parse_repo_spec(spec_text)
    except SpecInvalid as error:
        raise SpecInvalid(what="ComfyUI", spec=spec_text, form=f"v0.3.64, or {COMFYUI}@REF") from error


def repo_folder(repo: str) -> str:
    """Return the folder that `git clone` would make for a repository's URL."""
    return re.split(r"[/:]", repo.rstrip("/"))[-1].removesuffix(".git") or "repository"
