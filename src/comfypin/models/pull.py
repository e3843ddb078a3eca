"""Pulls every model of a lock to its path: from the store, from a file that is already there, or from a source."""

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.atomic_files import free_bytes
from comfypin.digest import Digest
from comfypin.errors import ComfypinError, LeaseError, ModelError
from comfypin.lease import Lease, acquire_lease
from comfypin.lock.model import ModelPin
from comfypin.models.errors import (
    DiskTooSmall,
    ModelUnavailable,
    SourceFailed,
    StoreFailed,
    TargetRefused,
)
from comfypin.models.file_formats import format_problem, pickle_by_name
from comfypin.models.interface import (
    ExpectedFile,
    ModelSource,
    NullPullWatcher,
    PullWatcher,
    StopSwitch,
    hide_secrets,
)
from comfypin.models.partial_file import PartialFile
from comfypin.models.pull_limits import FetchPolicy, PullBudget
from comfypin.models.pull_report import PullOutcome, PullReport, PullState
from comfypin.models.source_choice import list_cached, list_offers
from comfypin.models.store import BlobStore, LinkKind
from comfypin.models.transfer import fetch_with_retries

# Files larger than this are fetched a few at a time, each with many connections; smaller ones many at a time.
LARGE_BYTES = 32 << 20
# One large file alone leaves the network idle while it is hashed to the end; many share it too thinly.
LARGE_AT_ONCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    """How to place files, and whether wrong files in the way are kept aside or overwritten."""

    link: LinkKind = "symlink"
    overwrite: bool = False
    fetch_policy: FetchPolicy = field(default_factory=FetchPolicy)


class _BlobBusy(Exception):
    """Another process works on this blob."""


class Puller:
    """Pulls models to their paths. One instance per command; its budget holds for all files together."""

    def __init__(
        self,
        store: BlobStore,
        sources: Sequence[ModelSource],
        budget: PullBudget,
        *,
        options: PullOptions | None = None,
        watcher: PullWatcher | None = None,
    ) -> None:
        self._store = store
        self._sources = sources
        self._budget = budget
        self._options = options or PullOptions()
        self._watcher = watcher or NullPullWatcher()
        self._stop = StopSwitch()

    def pull_models(self, models: Sequence[tuple[ModelPin, Path]]) -> PullReport:
        """Pull every model; one that fails does not hold up the others. Raises `DiskTooSmall` before it fetches."""
        # Before the first byte, because a full disk after an hour helps nobody.
        self._require_space(models)
        self._watcher.plan_files({model_pin.target_path: model_pin.size_bytes for model_pin, _ in models})
        outcomes: list[PullOutcome] = []
        failures: list[ModelError] = []
        try:
            # First what nobody else pulls, so that waiting for another process comes last.
            busy = self._pull_round(models, self._bring_if_free, outcomes, failures)
            self._pull_round(busy, self._bring_when_free, outcomes, failures)
        finally:
            self._stop.set()
        # After the pull: parts that killed processes left of these files are of no use by now.
        self._store.sweep_leftovers()
        # Threads end in any order; the report has the lock's.
        order = {id(model_pin): position for position, (model_pin, _) in enumerate(models)}
        outcomes.sort(key=lambda outcome: order[id(outcome.pin)])
        return PullReport(outcomes=tuple(outcomes), failures=tuple(failures))

    # -- many

    def _pull_round(
        self,
        models: Iterable[tuple[ModelPin, Path]],
        bring: Callable[[ModelPin, Path], PullOutcome],
        outcomes: list[PullOutcome],
        failures: list[ModelError],
    ) -> list[tuple[ModelPin, Path]]:
        """Pull models, the largest first; return those that another process is pulling."""
        busy_models = []
        # A large file downloads over many connections by itself; small ones side by side would wait behind it.
        large_pool = ThreadPoolExecutor(LARGE_AT_ONCE, thread_name_prefix="large")
        small_pool = ThreadPoolExecutor(self._budget.connections, thread_name_prefix="small")
        futures: list[tuple[ModelPin, Path, Future[PullOutcome]]] = []
        with self._stopping_on_error(), large_pool, small_pool:
            # The largest first: a large file that begins last would run alone at the end.
            for model_pin, target_path in sorted(models, key=lambda model: -(model[0].size_bytes or 0)):
                pool = large_pool if (model_pin.size_bytes or 0) > LARGE_BYTES else small_pool
                futures.append((model_pin, target_path, pool.submit(bring, model_pin, target_path)))
            for model_pin, target_path, future in futures:
                try:
                    outcomes.append(future.result())
                except _BlobBusy:
                    busy_models.append((model_pin, target_path))
                except ModelError as error:
                    self._watcher.end_file(model_pin.target_path, "failed")
                    failures.append(error)
        return busy_models

    @contextlib.contextmanager
    def _stopping_on_error(self) -> Iterator[None]:
        """Stop the threads if the block ends by an exception (an interrupt); the pools would otherwise wait for
        them.
        """
        try:
            yield
        except BaseException:
            self._stop.set()
            raise

    def _require_space(self, models: Sequence[tuple[ModelPin, Path]]) -> None:
        copies = self._options.link == "copy"
        needed: dict[Digest, int] = {}
        for model_pin, target_path in models:
            # Unknown sizes are checked when their source tells them.
            if (
                model_pin.sha256 is None
                or model_pin.size_bytes is None
                or _size_or_none(target_path) == model_pin.size_bytes
            ):
                continue
            if _size_or_none(self._store.blob_path(model_pin.sha256)) == model_pin.size_bytes:
                needed[model_pin.sha256] = model_pin.size_bytes if copies else 0
            else:
                there = self._store.partial_file(model_pin.sha256.hex).allocated_bytes()
                needed[model_pin.sha256] = max(0, model_pin.size_bytes - there) + (
                    model_pin.size_bytes if copies else 0
                )
        if sum(needed.values()):
            self._store.require_space(sum(needed.values()))

    # -- one

    def _bring_if_free(self, model_pin: ModelPin, path: Path) -> PullOutcome:
        def try_lease(key: str) -> Lease:
            held_lease = self._store.try_lease(key)
            if held_lease is None:
                raise _BlobBusy
            return held_lease

        return self._bring_model(model_pin, path, try_lease)

    def _bring_when_free(self, model_pin: ModelPin, path: Path) -> PullOutcome:
        def wait_for_lease(key: str) -> Lease:
            return acquire_lease(
                self._store.lease_path(key), purpose=f"bring {model_pin.name}", on_wait=self._give_up_if_stopped
            )

        return self._bring_model(model_pin, path, wait_for_lease)

    def _give_up_if_stopped(self, holder: object) -> None:
        if self._stop.is_set():
            raise StoreFailed(path=str(self._store.root), reason=f"stopped while waiting for {holder}")

    def _bring_model(self, model_pin: ModelPin, target_path: Path, lease_blob: Callable[[str], Lease]) -> PullOutcome:
        try:
            refusal = pickle_by_name(model_pin)
            if refusal is not None:
                raise refusal
            if self._stop.is_set():
                raise StoreFailed(path=str(target_path), reason="the pull was stopped")
            if target_path.is_dir() and not target_path.is_symlink():
                raise TargetRefused(name=model_pin.name, target=model_pin.target_path, reason="a folder has this path")
            if model_pin.sha256 is None:
                return self._bring_unpinned(model_pin, target_path, lease_blob)
            return self._bring_pinned(model_pin, model_pin.sha256, target_path, lease_blob)
        except LeaseError as error:
            raise StoreFailed(path=str(target_path), reason=error.message.rstrip(".")) from error
        except OSError as error:
            # Somebody else may fill the disk while we write.
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                root = self._store.root
                if model_pin.size_bytes is None:
                    raise StoreFailed(path=str(root), reason="the disk is full (comfypin models gc)") from error
                raise DiskTooSmall(
                    folder=root, needed_bytes=model_pin.size_bytes, free_bytes=free_bytes(root)
                ) from error
            raise StoreFailed(
                path=str(error.filename2 or error.filename or target_path), reason=error.strerror or str(error)
            ) from error

    def _bring_pinned(
        self, model_pin: ModelPin, digest: Digest, target_path: Path, lease: Callable[[str], Lease]
    ) -> PullOutcome:
        blob_store = self._store
        # Without the lease: a release that is complete must start fast, even on a slow volume.
        if blob_store.has_blob(digest) and self._is_in_place(digest, target_path):
            return self._report_present(model_pin, target_path, digest)
        with lease(digest.hex) as held_lease:
            state: PullState = "linked"
            source_address: str | None = None
            failed_sources: tuple[str, ...] = ()
            # Checked again under the lease: another process may have brought the blob meanwhile.
            if not blob_store.check_blob(digest):
                if target_path.is_file() and blob_store.digest_of(target_path.resolve()) == digest:
                    _raise_problem(format_problem(target_path, model_pin))
                    # A model that the user put there by hand becomes a blob without being copied.
                    blob_store.adopt_file(target_path.resolve(), digest)
                    state = "adopted"
                elif (source_address := self._link_cached(model_pin, digest)) is not None:
                    state = "adopted"
                else:
                    source_address, failed_sources = self._fetch_blob(model_pin, digest, held_lease)
                    state = "fetched"
            elif self._is_in_place(digest, target_path):
                return self._report_present(model_pin, target_path, digest)
            _raise_problem(format_problem(blob_store.blob_path(digest), model_pin))
            held_lease.check()
            aside = self._place_blob(digest, target_path)
        return self._report_outcome(
            model_pin, target_path, state, digest, source=source_address, failed_sources=failed_sources, aside=aside
        )

    def _bring_unpinned(self, model_pin: ModelPin, target_path: Path, lease: Callable[[str], Lease]) -> PullOutcome:
        """Pull a pin without sha256: an existing file is accepted, a fetched one is only checked for its size."""
        blob_store = self._store
        if target_path.is_file() and model_pin.size_bytes in {None, target_path.stat().st_size}:
            return self._report_present(model_pin, target_path, blob_store.digest_of(target_path.resolve()))
        # By the sources, so that the next pull finds the same unfinished file.
        blob_key = "unpinned-" + Digest.of("\n".join(model_pin.sources).encode()).hex
        with lease(blob_key) as held:
            partial_file = blob_store.partial_file(blob_key)
            source, digest, failed = self._fetch_from_sources(model_pin, partial_file)
            _raise_problem(format_problem(partial_file.data, model_pin))
            # Fetching may take hours; whoever lost the lease meanwhile must not publish.
            held.check()
            if blob_store.has_blob(digest):
                partial_file.discard()
            else:
                # The digest is known only now, so its blob gets its lease only now.
                with blob_store.wait_for_lease(digest.hex):
                    blob_store.publish_partial(partial_file, digest)
            aside = self._place_blob(digest, target_path)
        return self._report_outcome(
            model_pin, target_path, "fetched", digest, source=source, failed_sources=failed, aside=aside
        )

    def _fetch_blob(self, model_pin: ModelPin, digest: Digest, held: Lease) -> tuple[str, tuple[str, ...]]:
        partial_file = self._store.partial_file(digest.hex)
        source, _, failed = self._fetch_from_sources(model_pin, partial_file)
        problem = format_problem(partial_file.data, model_pin)
        if problem is not None:
            partial_file.discard()
            raise problem
        held.check()
        self._store.publish_partial(partial_file, digest)
        return source, failed

    def _link_cached(self, model_pin: ModelPin, digest: Digest) -> str | None:
        """Link the file from a source's cache on the store's file system, hashed and not copied; return its address or
        None.
        """
        expected = ExpectedFile(sha256=digest, size_bytes=model_pin.size_bytes)
        for address, cached_path in list_cached(self._sources, model_pin, expected):
            if self._store.link_file(cached_path.resolve(), digest):
                return hide_secrets(address)
        return None

    def _fetch_from_sources(
        self, model_pin: ModelPin, partial_file: PartialFile
    ) -> tuple[str, Digest, tuple[str, ...]]:
        """Try the sources in order; return the one that gave the file, its digest, and why the others did not."""
        expected = ExpectedFile(sha256=model_pin.sha256, size_bytes=model_pin.size_bytes)
        offers, reasons = list_offers(self._sources, model_pin, expected)
        for source, address in offers:
            try:
                digest = fetch_with_retries(
                    source,
                    address,
                    partial_file,
                    expected_file=expected,
                    budget=self._budget,
                    fetch_policy=self._options.fetch_policy,
                    stop_switch=self._stop,
                    begun=lambda size, resumed: self._begin_fetch(model_pin, partial_file, size, resumed),
                    advanced=lambda count: self._watcher.advance_file(model_pin.target_path, count),
                )
            # Any failure of a source leads to the next one; only a full disk is the same everywhere.
            except (SourceFailed, ComfypinError) as error:
                if isinstance(error, DiskTooSmall):
                    raise
                reasons.append(error.message)
                if self._stop.is_set():
                    break
                continue
            return hide_secrets(address), digest, tuple(reasons)
        raise ModelUnavailable(name=model_pin.name, target=model_pin.target_path, reasons=reasons)

    def _begin_fetch(self, model_pin: ModelPin, partial: PartialFile, size_bytes: int | None, resumed: int) -> None:
        if size_bytes is not None:
            self._store.require_space(max(0, size_bytes - partial.allocated_bytes()))
        self._watcher.start_file(model_pin.target_path, size_bytes, resumed)

    def _place_blob(self, digest: Digest, target_path: Path) -> Path | None:
        """Place the blob; a different file in the way is kept aside, or overwritten if the options say so."""
        moved_aside = None
        blob_store = self._store
        if self._options.link == "symlink" and blob_store.leads_to_blob(digest, target_path):
            return None
        # Replacing a link loses nothing; a file may be the only copy of a user's own work.
        in_the_way = (
            target_path.is_file() and not target_path.is_symlink() and blob_store.digest_of(target_path) != digest
        )
        if in_the_way and not self._options.overwrite:
            moved_aside = blob_store.put_aside(target_path)
        blob_store.place_blob(digest, target_path, self._options.link)
        return moved_aside

    def _is_in_place(self, digest: Digest, target_path: Path) -> bool:
        """Return whether the path has the blob's bytes, linked or copied as the options ask."""
        if self._store.leads_to_blob(digest, target_path):
            return self._options.link not in {"copy", "reflink"} or target_path.is_symlink() is False
        own_file = self._options.link in {"copy", "reflink"} and target_path.is_file() and not target_path.is_symlink()
        return own_file and self._store.digest_of(target_path) == digest

    def _report_present(self, model_pin: ModelPin, target_path: Path, digest: Digest) -> PullOutcome:
        _raise_problem(format_problem(target_path, model_pin))
        return self._report_outcome(model_pin, target_path, "present", digest)

    def _report_outcome(
        self,
        model_pin: ModelPin,
        target_path: Path,
        state: PullState,
        digest: Digest,
        *,
        source: str | None = None,
        failed_sources: tuple[str, ...] = (),
        aside: Path | None = None,
    ) -> PullOutcome:
        self._watcher.end_file(model_pin.target_path, state)
        return PullOutcome(
            pin=model_pin,
            path=target_path,
            state=state,
            digest=digest,
            size_bytes=target_path.stat().st_size,
            source=source,
            failed_sources=failed_sources,
            aside=aside,
        )


def _raise_problem(problem: ModelError | None) -> None:
    if problem is not None:
        raise problem


def _size_or_none(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
