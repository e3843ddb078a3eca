"""A vendor folder: everything that a lock needs, each file named after what it is, so no index is needed.

`wheels/<file name of the URL>`, `git/<commit>.bundle` (submodules too), `archives/<sha256>.zip`, and, for a package
without a wheel, the wheel built from its source: `built/<sha256 of the source>-<sha256 of the wheel>/<wheel>`.
`comfypin lock vendor` writes the folder, `comfypin realize --vendor` reads it; both check every byte against the lock
or against the digest in the name.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comfypin.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorFolder:
    """Names the paths in a vendor folder."""

    root: Path

    @property
    def wheels_folder(self) -> Path:
        """Return the folder of wheels, under their own file names."""
        return self.root / "wheels"

    @property
    def bundles_folder(self) -> Path:
        """Return the folder of git bundles."""
        return self.root / "git"

    def bundle_path(self, commit_id: str) -> Path:
        """Return the bundle of one commit."""
        return self.bundles_folder / f"{commit_id}.bundle"

    def archive_path(self, archive_digest: Digest) -> Path:
        """Return the zip of a node pack from the registry."""
        return self.root / "archives" / f"{archive_digest.hex}.zip"

    def built_folder(self, source_digest: Digest, wheel_digest: Digest) -> Path:
        """Return the folder of a wheel that was built from a source archive."""
        return self.root / "built" / f"{source_digest.hex}-{wheel_digest.hex}"

    def find_built_wheels(self, source_digest: Digest) -> Iterator[tuple[Path, Digest]]:
        """Yield the wheels built from a source archive, for any Python, each with its expected digest."""
        for built_folder in sorted((self.root / "built").glob(f"{source_digest.hex}-*")):
            for wheel_path in sorted(built_folder.glob("*.whl")):
                # The digest is part of the folder's name, so nobody can swap the wheel unnoticed.
                yield wheel_path, Digest(built_folder.name.rpartition("-")[2])
