"""Pulling: every model of a lock to its place, from the store, from a file that is there already, or from a source."""

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from comfypin.atomic_files import free_bytes
from comfypin.digest import Digest, JsonValue
from comfypin.errors import ComfypinError, LeaseError, ModelError
from comfypin.lease import Lease, acquire
from comfypin.lock.model import ModelPin
from comfypin.models.errors import (
    DiskTooSmall,
    ModelsFailed,
    ModelUnavailable,
    SourceFailed,
    StoreFailed,
    TargetRefused,
    UnknownSource,
)
from comfypin.models.file_formats import format_problem, pickle_by_name
from comfypin.models.interface import CachedSource, ModelSource, Stop, Unwatched, Wanted, Watcher, shown
from comfypin.models.partial_file import Partial
from comfypin.models.pull_limits import Budget, Effort
from comfypin.models.sources.local import LocalSource
from comfypin.models.store import BlobStore, LinkKind
from comfypin.models.transfer import fetch

State = Literal["present", "linked", "adopted", "fetched"]

# Files larger than this are fetched a few at a time, each with many connections; smaller ones many at a time.
LARGE_BYTES = 32 << 20
LARGE_AT_ONCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    """How to place files, and whether wrong ones that are in the way are kept aside or overwritten."""

    link: LinkKind = "symlink"
    overwrite: bool = False
    effort: Effort = field(default_factory=Effort)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one model got to its place; `source` where it was fetched from, `aside` what was moved out of the way."""

    pin: ModelPin
    path: Path
    state: State
    digest: Digest
    size_bytes: int
    source: str | None = None
    failed_sources: tuple[str, ...] = ()
    aside: Path | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """What `--json` prints of it."""
        return {
            "model": self.pin.name,
            "path": str(self.path),
            "state": self.state,
            "sha256": self.digest.hex,
            "size_bytes": self.size_bytes,
            "pinned": self.pin.sha256 is not None,
            "source": self.source,
            "failed_sources": list(self.failed_sources),
            "aside": str(self.aside) if self.aside else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PullReport:
    """What became of every model, and what failed."""

    outcomes: tuple[Outcome, ...]
    failures: tuple[ModelError, ...]

    def raise_failures(self) -> None:
        """Raise `ModelsFailed` (or the one failure itself) unless all is well."""
        if len(self.failures) == 1 and not self.outcomes:
            raise self.failures[0]
        if self.failures:
            raise ModelsFailed(failures=self.failures, total=len(self.failures) + len(self.outcomes))


class _Busy(Exception):
    """Another process works on this blob."""


class Puller:
    """Brings models to their places. One instance a command; its budget holds for all the files together."""

    def __init__(
        self,
        store: BlobStore,
        sources: Sequence[ModelSource],
        budget: Budget,
        *,
        options: PullOptions | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._store = store
        self._sources = sources
        self._budget = budget
        self._options = options or PullOptions()
        self._watcher = watcher or Unwatched()
        self._stop = Stop()

    def pull(self, models: Sequence[tuple[ModelPin, Path]]) -> PullReport:
        """Bring every model; one that fails does not keep the others. Raises `DiskTooSmall` before it fetches."""
        self._require_space(models)
        self._watcher.plan_files({pin.target_path: pin.size_bytes for pin, _ in models})
        outcomes: list[Outcome] = []
        failures: list[ModelError] = []
        try:
            busy = self._round(models, self._bring_if_free, outcomes, failures)
            self._round(busy, self._bring_when_free, outcomes, failures)
        finally:
            self._stop.set()
        self._store.sweep()
        order = {id(pin): position for position, (pin, _) in enumerate(models)}
        outcomes.sort(key=lambda outcome: order[id(outcome.pin)])
        return PullReport(outcomes=tuple(outcomes), failures=tuple(failures))

    # -- many

    def _round(
        self,
        models: Iterable[tuple[ModelPin, Path]],
        bring: Callable[[ModelPin, Path], Outcome],
        outcomes: list[Outcome],
        failures: list[ModelError],
    ) -> list[tuple[ModelPin, Path]]:
        """One pass over models, the largest first; returns those that another process is bringing."""
        busy = []
        large = ThreadPoolExecutor(LARGE_AT_ONCE, thread_name_prefix="large")
        small = ThreadPoolExecutor(self._budget.connections, thread_name_prefix="small")
        futures: list[tuple[ModelPin, Path, Future[Outcome]]] = []
        with self._stopping_on_error(), large, small:
            for pin, path in sorted(models, key=lambda model: -(model[0].size_bytes or 0)):
                pool = large if (pin.size_bytes or 0) > LARGE_BYTES else small
                futures.append((pin, path, pool.submit(bring, pin, path)))
            for pin, path, future in futures:
                try:
                    outcomes.append(future.result())
                except _Busy:
                    busy.append((pin, path))
                except ModelError as error:
                    self._watcher.end_file(pin.target_path, "failed")
                    failures.append(error)
        return busy

    @contextlib.contextmanager
    def _stopping_on_error(self) -> Iterator[None]:
        """Leaving by an exception (an interrupt) stops the threads, which the pools would otherwise wait for."""
        try:
            yield
        except BaseException:
            self._stop.set()
            raise

    def _require_space(self, models: Sequence[tuple[ModelPin, Path]]) -> None:
        copies = self._options.link == "copy"
        needed: dict[Digest, int] = {}
        for pin, path in models:
            if pin.sha256 is None or pin.size_bytes is None or _size(path) == pin.size_bytes:
                continue
            if _size(self._store.blob(pin.sha256)) == pin.size_bytes:
                needed[pin.sha256] = pin.size_bytes if copies else 0
            else:
                there = self._store.partial(pin.sha256.hex).allocated_bytes()
                needed[pin.sha256] = max(0, pin.size_bytes - there) + (pin.size_bytes if copies else 0)
        if sum(needed.values()):
            self._store.require_space(sum(needed.values()))

    # -- one

    def _bring_if_free(self, pin: ModelPin, path: Path) -> Outcome:
        def lease(key: str) -> Lease:
            held = self._store.try_lease(key)
            if held is None:
                raise _Busy
            return held

        return self._bring(pin, path, lease)

    def _bring_when_free(self, pin: ModelPin, path: Path) -> Outcome:
        def lease(key: str) -> Lease:
            return acquire(self._store.lease_path(key), purpose=f"bring {pin.name}", on_wait=self._give_up)

        return self._bring(pin, path, lease)

    def _give_up(self, holder: object) -> None:
        if self._stop.is_set():
            raise StoreFailed(path=str(self._store.root), reason=f"stopped while waiting for {holder}")

    def _bring(self, pin: ModelPin, path: Path, lease: Callable[[str], Lease]) -> Outcome:
        try:
            refusal = pickle_by_name(pin)
            if refusal is not None:
                raise refusal
            if self._stop.is_set():
                raise StoreFailed(path=str(path), reason="the pull was stopped")
            if path.is_dir() and not path.is_symlink():
                raise TargetRefused(name=pin.name, target=pin.target_path, reason="a folder is there")
            if pin.sha256 is None:
                return self._bring_unpinned(pin, path, lease)
            return self._bring_pinned(pin, pin.sha256, path, lease)
        except LeaseError as error:
            raise StoreFailed(path=str(path), reason=error.message.rstrip(".")) from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                root = self._store.root
                if pin.size_bytes is None:
                    raise StoreFailed(path=str(root), reason="the disk is full (comfypin models gc)") from error
                raise DiskTooSmall(folder=root, needed_bytes=pin.size_bytes, free_bytes=free_bytes(root)) from error
            raise StoreFailed(
                path=str(error.filename2 or error.filename or path), reason=error.strerror or str(error)
            ) from error

    def _bring_pinned(self, pin: ModelPin, digest: Digest, path: Path, lease: Callable[[str], Lease]) -> Outcome:
        store = self._store
        if store.has(digest) and self._in_place(digest, path):
            return self._present(pin, path, digest)
        with lease(digest.hex) as held:
            state: State = "linked"
            source: str | None = None
            failed: tuple[str, ...] = ()
            if not store.check(digest):
                if path.is_file() and store.digest_of(path.resolve()) == digest:
                    _raise(format_problem(path, pin))
                    store.adopt(path.resolve(), digest)
                    state = "adopted"
                elif (source := self._link_cached(pin, digest)) is not None:
                    state = "adopted"
                else:
                    source, failed = self._fetch(pin, digest, held)
                    state = "fetched"
            elif self._in_place(digest, path):
                return self._present(pin, path, digest)
            _raise(format_problem(store.blob(digest), pin))
            held.check()
            aside = self._put(digest, path)
        return self._ended(pin, path, state, digest, source=source, failed_sources=failed, aside=aside)

    def _bring_unpinned(self, pin: ModelPin, path: Path, lease: Callable[[str], Lease]) -> Outcome:
        """A pin without sha256: what is there is taken as it is, what is fetched is only checked for its size."""
        store = self._store
        if path.is_file() and pin.size_bytes in {None, path.stat().st_size}:
            return self._present(pin, path, store.digest_of(path.resolve()))
        key = "unpinned-" + Digest.of("\n".join(pin.sources).encode()).hex
        with lease(key) as held:
            partial = store.partial(key)
            source, digest, failed = self._from_sources(pin, partial)
            _raise(format_problem(partial.data, pin))
            held.check()
            if store.has(digest):
                partial.discard()
            else:
                with store.lease(digest.hex):
                    store.publish(partial, digest)
            aside = self._put(digest, path)
        return self._ended(pin, path, "fetched", digest, source=source, failed_sources=failed, aside=aside)

    def _fetch(self, pin: ModelPin, digest: Digest, held: Lease) -> tuple[str, tuple[str, ...]]:
        partial = self._store.partial(digest.hex)
        source, _, failed = self._from_sources(pin, partial)
        problem = format_problem(partial.data, pin)
        if problem is not None:
            partial.discard()
            raise problem
        held.check()
        self._store.publish(partial, digest)
        return source, failed

    def _link_cached(self, pin: ModelPin, digest: Digest) -> str | None:
        """The source that has the file on this machine and on the store's file system already: hashed, not copied."""
        wanted = Wanted(sha256=digest, size_bytes=pin.size_bytes)
        for uri in pin.sources:
            with contextlib.suppress(UnknownSource):
                source = find_source(self._sources, uri)
                cached = source.cached(uri, wanted) if isinstance(source, CachedSource) else None
                if cached is not None and self._store.link(cached.resolve(), digest):
                    return shown(uri)
        return None

    def _from_sources(self, pin: ModelPin, partial: Partial) -> tuple[str, Digest, tuple[str, ...]]:
        """Try the sources in their order; the one that gave the file, its digest, and why the others did not."""
        wanted = Wanted(sha256=pin.sha256, size_bytes=pin.size_bytes)
        offers, reasons = self._offers(pin, wanted)
        for source, uri in offers:
            try:
                digest = fetch(
                    source,
                    uri,
                    partial,
                    wanted=wanted,
                    budget=self._budget,
                    effort=self._options.effort,
                    stop=self._stop,
                    begun=lambda size, resumed: self._begun(pin, partial, size, resumed),
                    advanced=lambda count: self._watcher.advance_file(pin.target_path, count),
                )
            except (SourceFailed, ComfypinError) as error:
                if isinstance(error, DiskTooSmall):
                    raise
                reasons.append(error.message)
                if self._stop.is_set():
                    break
                continue
            return shown(uri), digest, tuple(reasons)
        raise ModelUnavailable(name=pin.name, target=pin.target_path, reasons=reasons)

    def _offers(self, pin: ModelPin, wanted: Wanted) -> tuple[list[tuple[ModelSource, str]], list[str]]:
        """Where the bytes may be had, what lies on this machine before where it is from; and why not elsewhere."""
        offers: list[tuple[ModelSource, str]] = []
        reasons = []
        for uri in pin.sources:
            try:
                source = find_source(self._sources, uri)
                if isinstance(source, CachedSource) and (cached := source.cached(uri, wanted)) is not None:
                    offers.append((LocalSource(), str(cached)))
                offers.append((source, uri))
            except UnknownSource as error:
                reasons.append(error.message)
        return offers, reasons

    def _begun(self, pin: ModelPin, partial: Partial, size: int | None, resumed: int) -> None:
        if size is not None:
            self._store.require_space(max(0, size - partial.allocated_bytes()))
        self._watcher.start_file(pin.target_path, size, resumed)

    def _put(self, digest: Digest, path: Path) -> Path | None:
        """Place the blob; a file with other bytes that is in the way is kept aside, or overwritten where asked."""
        aside = None
        store = self._store
        if self._options.link == "symlink" and store.placed(digest, path):
            return None
        in_the_way = path.is_file() and not path.is_symlink() and store.digest_of(path) != digest
        if in_the_way and not self._options.overwrite:
            aside = store.put_aside(path)
        store.place(digest, path, self._options.link)
        return aside

    def _in_place(self, digest: Digest, path: Path) -> bool:
        """Whether the path has the blob's bytes in the way that was asked for."""
        if self._store.placed(digest, path):
            return self._options.link not in {"copy", "reflink"} or path.is_symlink() is False
        own_file = self._options.link in {"copy", "reflink"} and path.is_file() and not path.is_symlink()
        return own_file and self._store.digest_of(path) == digest

    def _present(self, pin: ModelPin, path: Path, digest: Digest) -> Outcome:
        _raise(format_problem(path, pin))
        return self._ended(pin, path, "present", digest)

    def _ended(
        self,
        pin: ModelPin,
        path: Path,
        state: State,
        digest: Digest,
        *,
        source: str | None = None,
        failed_sources: tuple[str, ...] = (),
        aside: Path | None = None,
    ) -> Outcome:
        self._watcher.end_file(pin.target_path, state)
        return Outcome(
            pin=pin,
            path=path,
            state=state,
            digest=digest,
            size_bytes=path.stat().st_size,
            source=source,
            failed_sources=failed_sources,
            aside=aside,
        )


def find_source(sources: Sequence[ModelSource], uri: str) -> ModelSource:
    """The source that understands an address. Raises `UnknownSource`."""
    for source in sources:
        if source.accepts(uri):
            return source
    raise UnknownSource(uri=shown(uri), reason="no source understands it; docs/models.md lists those that there are")


def _raise(problem: ModelError | None) -> None:
    if problem is not None:
        raise problem


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
