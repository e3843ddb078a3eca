"""A vendor folder: everything a lock needs, named by what it is, so that no index file can disagree with it.

`wheels/<file name of the URL>`, `git/<commit>.bundle` (submodules too), `archives/<sha256>.zip`. `comfypin lock vendor`
writes it, `comfypin realize --vendor` reads it; both check every byte against the lock.
"""

from dataclasses import dataclass
from pathlib import Path

from comfypin.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorFolder:
    """Where things lie in a vendor folder."""

    root: Path

    @property
    def wheels(self) -> Path:
        """The folder of wheels, under their own file names."""
        return self.root / "wheels"

    @property
    def bundles(self) -> Path:
        """The folder of git bundles."""
        return self.root / "git"

    def bundle(self, commit: str) -> Path:
        """The bundle of one commit."""
        return self.bundles / f"{commit}.bundle"

    def archive(self, digest: Digest) -> Path:
        """The zip of a node pack from the registry."""
        return self.root / "archives" / f"{digest.hex}.zip"
