"""Keeps the models that jobs brought within a budget: the least recently used go, unless somebody needs them."""

import threading
from collections.abc import Callable, Sequence

from comfypin.digest import Digest
from comfypin.models.gc import BlobUse, collect_garbage, list_blob_uses
from comfypin.models.store import BlobStore
from comfypin.models.target_paths import TargetRoots

# Each model that jobs brought is a release of its own: so `models ls` shows it, and its record's mtime is its last use.
RECORD_PREFIX = "job-model-"


class JobModelSpace:
    """Limits the space that jobs' models take in one store."""

    def __init__(self, store: BlobStore, roots: TargetRoots, *, total_bytes: int) -> None:
        self._store = store
        self._roots = roots
        self._total_bytes = total_bytes
        self._changing = threading.Lock()

    def record_use(self, digest: Digest, target_paths: Sequence[str]) -> None:
        """Record that a job uses a model now, with the paths that lead to it."""
        release_name = f"{RECORD_PREFIX}{digest.hex}"
        with self._changing:
            known = next(
                (release.blobs for release in self._store.releases.list_releases() if release.name == release_name), {}
            )
            paths = {*known.get(digest, ()), *target_paths}
            self._store.releases.record_release(release_name, {digest: tuple(sorted(paths))})

    def is_ours(self, digest: Digest, *, fetched: bool) -> bool:
        """Return whether a model is one that jobs brought, not one of a release or of the user."""
        releases = [release.name for release in self._store.releases.list_releases() if digest in release.blobs]
        return fetched or any(release_name.startswith(RECORD_PREFIX) for release_name in releases)

    def list_models(self) -> list[BlobUse]:
        """Return what jobs brought and no release names, the least recently used first."""
        return [
            blob_use
            for blob_use in list_blob_uses(self._store)
            if blob_use.releases and all(release_name.startswith(RECORD_PREFIX) for release_name in blob_use.releases)
        ]

    def make_room(self, needed_bytes: int, refuse: Callable[[int], Exception]) -> None:
        """Remove models until so many bytes fit. Raises what `refuse` makes of the bytes that could be free."""
        with self._changing:
            models = self.list_models()
            excess_bytes = sum(model.size_bytes for model in models) + needed_bytes - self._total_bytes
            if excess_bytes <= 0:
                return
            idle = [model for model in models if not self._store.is_used(model.digest)]
            if sum(model.size_bytes for model in idle) < excess_bytes and needed_bytes:
                taken_bytes = sum(model.size_bytes for model in models) - sum(model.size_bytes for model in idle)
                raise refuse(max(0, self._total_bytes - taken_bytes))
            chosen = []
            for model in idle:
                if excess_bytes <= 0:
                    break
                chosen.append(model)
                excess_bytes -= model.size_bytes
            # All other releases keep their models and their records.
            others = {release.name for release in self._store.releases.list_releases()}
            kept_releases = {release_name for release_name in others if not release_name.startswith(RECORD_PREFIX)}
            collect_garbage(self._store, self._roots, chosen, kept_releases=kept_releases)
