"""Brings the models that jobs name into the store and to their places, within limits, for as long as a job uses them.

What jobs brought has a budget of its own: the least recently used goes first, and never what a lock pins or a running
job uses. A name never changes its bytes while it is there: engines keep what they loaded by its name.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from comfypin.digest import Digest
from comfypin.errors import ComfypinError, LeaseError
from comfypin.http.deadline import Deadline
from comfypin.lease import Lease, acquire_lease
from comfypin.lock.model import ModelPin
from comfypin.machine_errors import is_full
from comfypin.models.allowed_sources import AllowedSources
from comfypin.models.errors import (
    DiskTooSmall,
    JobModelUnusable,
    NotSafetensors,
    PickleRefused,
    SourceFailed,
    SourceUnavailable,
    StoreFailed,
    TargetRefused,
    WrongDigest,
)
from comfypin.models.file_formats import format_problem
from comfypin.models.interface import ExpectedFile, ModelSource, SourceFacts, StopSwitch, hide_secrets
from comfypin.models.job_model_names import JobModelPlaces
from comfypin.models.job_model_space import JobModelSpace
from comfypin.models.partial_file import PartialFile
from comfypin.models.pull_limits import FetchPolicy, PullBudget
from comfypin.models.store import BlobStore
from comfypin.models.target_paths import TargetRoots
from comfypin.models.transfer import fetch_with_retries
from comfypin.plurals import format_limit, format_size
from comfypin.retry import Retry, RetryPolicy

# A job waits for its model, so that a source that is away is given up sooner than by a pull.
_RETRIES = RetryPolicy(retries=3, base_s=0.5, longest_s=5.0, longest_asked_s=30.0)
_PICKLE = "a pickle can run code when it is loaded, so send a .safetensors file"

OpenSources = Callable[[Deadline], Sequence[ModelSource]]
"""Opens the sources for one job, whose requests all end with the deadline."""
Report = Callable[[int, int | None], None]
"""Told how many bytes of a model have arrived, and of how many; called from many threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobModelLimits:
    """Limits of what jobs may bring: bytes of one model and of all that stay, and the seconds of one download."""

    file_bytes: int
    total_bytes: int
    seconds: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedModel:
    """A model as a job names it: by source, by digest, or both. `label` is what the job calls it: `models[0]`."""

    label: str
    folder: str
    source: str | None = None
    sha256: Digest | None = None
    filename: str | None = None

    def refuse(self, field_name: str, reason: str) -> JobModelUnusable:
        """Return the failure of one field."""
        return JobModelUnusable(field=f"{self.label}.{field_name}" if self.label else field_name, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class BroughtModel:
    """A model at its place: `folder` and `filename` below MODELS_DIR; `fetched` says whether it came just now."""

    folder: str
    filename: str
    sha256: Digest
    size_bytes: int
    source: str | None
    fetched: bool

    @property
    def name_in_folder(self) -> str:
        """Return the model's path as load nodes name it: below ComfyUI's own folder."""
        return f"{self.folder}/{self.filename}".partition("/")[2]


@dataclass(slots=True)
class JobModelUse:
    """Keeps a job's models while it runs. `end`, from any thread, stops the downloads and lets the models go."""

    seconds: float
    deadline: Deadline = field(init=False)
    stop: StopSwitch = field(default_factory=StopSwitch)
    _leases: list[Lease] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.deadline = Deadline(self.seconds)

    def keep(self, lease: Lease) -> None:
        """Keep a model's lease until the end, which may have come already."""
        with self._lock:
            self._leases.append(lease)
        # `end` may have run between the lease and this line: then nobody else would give it back.
        if self.stop.is_set():
            self.end()

    def end(self) -> None:
        """Stop what is going on, and give the leases back. Repeatable."""
        self.stop.set()
        self.deadline.cancel()
        with self._lock:
            # Taken out under the lock and released outside of it: releasing writes to the disk, and may block.
            leases, self._leases = self._leases, []
        for lease in leases:
            lease.release()


class JobModels:
    """Brings models for jobs; threads share it."""

    def __init__(
        self,
        store: BlobStore,
        roots: TargetRoots,
        pins: Sequence[ModelPin],
        *,
        allowed: AllowedSources,
        open_sources: OpenSources,
        limits: JobModelLimits,
        budget: PullBudget,
    ) -> None:
        self._store = store
        self._allowed = allowed
        self._open_sources = open_sources
        self._limits = limits
        self._budget = budget
        self._places = JobModelPlaces(store, roots, pins)
        self.space = JobModelSpace(store, roots, total_bytes=limits.total_bytes)
        # Which bytes a version of an address had, so that they are not fetched again without a digest.
        self._versions: dict[tuple[str, str, int | None], Digest] = {}

    @property
    def brought_names(self) -> frozenset[str]:
        """Return the paths, below their folders, of all that was brought since this process started."""
        return self._places.bound_names

    def begin_use(self) -> JobModelUse:
        """Return what keeps one job's models; its time begins now."""
        return JobModelUse(self._limits.seconds)

    def bring(self, wanted_model: WantedModel, use: JobModelUse, report: Report) -> BroughtModel:
        """Bring one model to its place and keep it until `use` ends. Blocks. Raises `JobModelUnusable`."""
        try:
            return _OneModel(self, wanted_model, use, report).bring()
        except JobModelUnusable:
            raise
        except (ComfypinError, OSError) as error:
            raise _explain(wanted_model, error) from error


class _OneModel:
    def __init__(self, shared: JobModels, wanted_model: WantedModel, use: JobModelUse, report: Report) -> None:
        self._shared = shared
        self._store = shared._store
        self._limits = shared._limits
        self._wanted = wanted_model
        self._use = use
        self._report = report
        self._arrived = 0
        self._total: int | None = None
        self._counting = threading.Lock()

    def bring(self) -> BroughtModel:
        wanted_model, places = self._wanted, self._shared._places
        places.check_folder(wanted_model)
        if wanted_model.source is None:
            return self._use_stored(wanted_model.refuse("sha256", "the store has no model with it; add its `source`"))
        self._shared._allowed.check(wanted_model.source, lambda reason: wanted_model.refuse("source", reason))
        if (
            wanted_model.sha256 is not None
            and wanted_model.filename is not None
            and self._store.has_blob(wanted_model.sha256)
        ):
            return self._use_stored(wanted_model.refuse("sha256", "it was removed at this moment; send the job again"))
        sources = self._shared._open_sources(self._use.deadline)
        source = next((known for known in sources if known.accepts(wanted_model.source)), None)
        if source is None:
            raise wanted_model.refuse("source", "no source understands this address")
        facts = self._ask_facts(source, wanted_model.source)
        pin = places.pin_for(wanted_model, wanted_model.filename or facts.filename)
        digest = wanted_model.sha256 or facts.sha256 or None
        if digest is None:
            return self._bring_unproven(source, wanted_model.source, pin)
        # Before a byte is fetched: the name may belong to something else.
        places.require_free(wanted_model, pin, digest)
        fetched = False
        with self._wait_for(digest.hex) as lease:
            if not self._store.check_blob(digest):
                partial_file = self._store.partial_file(digest.hex)
                self._fetch(source, wanted_model.source, partial_file, pin, digest)
                lease.check()
                self._store.publish_partial(partial_file, digest)
                fetched = True
            return self._place(pin, digest, fetched=fetched)

    def _use_stored(self, missing: JobModelUnusable) -> BroughtModel:
        """Return the model that the store has already."""
        wanted_model = self._wanted
        digest, filename = wanted_model.sha256, wanted_model.filename
        if digest is None or filename is None:
            raise wanted_model.refuse("filename", "it must be given if there is no `source`")
        pin = self._shared._places.pin_for(wanted_model, filename)
        self._shared._places.require_free(wanted_model, pin, digest)
        with self._wait_for(digest.hex):
            if not self._store.check_blob(digest):
                raise missing
            return self._place(pin, digest, fetched=False)

    def _bring_unproven(self, source: ModelSource, address: str, pin: ModelPin) -> BroughtModel:
        """Bring a model whose digest nobody knows before it has come."""
        key = "unpinned-" + Digest.of(address.encode()).hex
        # Whoever wants the same address at the same time waits here, and finds it fetched.
        with self._wait_for(key) as lease:
            # An ETag or a revision: the same address with the same one has the same bytes.
            version = self._ask_version(source, address)
            digest = self._shared._versions.get(version) if version is not None else None
            if digest is not None and self._store.has_blob(digest):
                self._shared._places.require_free(self._wanted, pin, digest)
                with self._wait_for(digest.hex):
                    if self._store.check_blob(digest):
                        return self._place(pin, digest, fetched=False)
            partial_file = self._store.partial_file(key)
            digest = self._fetch(source, address, partial_file, pin, None)
            lease.check()
            with self._wait_for(digest.hex):
                if self._store.check_blob(digest):
                    partial_file.discard()
                else:
                    self._store.publish_partial(partial_file, digest)
                if version is not None:
                    self._shared._versions[version] = digest
                # On record even if its place is taken: else nobody would ever remove it.
                self._shared.space.record_use(digest, ())
                self._shared._places.require_free(self._wanted, pin, digest)
                return self._place(pin, digest, fetched=True)

    def _place(self, pin: ModelPin, digest: Digest, *, fetched: bool) -> BroughtModel:
        """Put the blob at its place and keep it from the collector; its lease is held."""
        blob_path = self._store.blob_path(digest)
        problem = format_problem(blob_path, pin)
        if problem is not None:
            raise problem
        self._use.keep(self._store.lease_use(digest))
        target = self._shared._places.place(self._wanted, pin, digest)
        # A model of a release's lock is not ours to remove, and not counted among the jobs'.
        if self._shared.space.is_ours(digest, fetched=fetched):
            self._shared.space.record_use(digest, (pin.target_path,))
        # Its size may have been unknown until now.
        self._shared.space.make_room(0, self._refuse_room)
        wanted_model = self._wanted
        return BroughtModel(
            folder=wanted_model.folder,
            filename=pin.name,
            sha256=digest,
            size_bytes=target.stat().st_size,
            source=hide_secrets(wanted_model.source) if wanted_model.source is not None else None,
            fetched=fetched,
        )

    # -- the source

    def _ask_facts(self, source: ModelSource, address: str) -> SourceFacts:
        facts = Retry(policy=_RETRIES, on=SourceUnavailable).call(lambda: self._unless_stopped(source.facts, address))
        if facts.size_bytes is not None:
            self._check_size(facts.size_bytes)
        if self._wanted.sha256 is not None and facts.sha256 not in (None, self._wanted.sha256):
            raise WrongDigest(uri=address, expected=self._wanted.sha256.hex, actual=str(facts.sha256.hex))
        return facts

    def _ask_version(self, source: ModelSource, address: str) -> tuple[str, str, int | None] | None:
        remote_file = source.open(address, ExpectedFile(), length=1)
        try:
            validator = remote_file.validator
            return (address, validator, remote_file.size_bytes) if validator else None
        finally:
            remote_file.close()

    def _fetch(
        self, source: ModelSource, address: str, partial_file: PartialFile, pin: ModelPin, digest: Digest | None
    ) -> Digest:
        actual = fetch_with_retries(
            source,
            address,
            partial_file,
            expected_file=ExpectedFile(sha256=digest),
            budget=self._shared._budget,
            fetch_policy=FetchPolicy(retry_policy=_RETRIES),
            stop_switch=self._use.stop,
            begun=lambda size_bytes, resumed: self._begin(size_bytes, resumed, partial_file),
            advanced=self._advance,
        )
        problem = format_problem(partial_file.data, pin)
        if problem is not None:
            partial_file.discard()
            raise problem
        return actual

    def _begin(self, size_bytes: int | None, resumed: int, partial_file: PartialFile) -> None:
        with self._counting:
            self._arrived, self._total = resumed, size_bytes
        if size_bytes is not None:
            self._check_size(size_bytes)
            # Now, not at the end: a job that cannot have its model should fail before hours of download.
            self._shared.space.make_room(size_bytes, self._refuse_room)
            self._store.require_space(max(0, size_bytes - partial_file.allocated_bytes()))
        self._report(resumed, size_bytes)

    def _advance(self, count: int) -> None:
        with self._counting:
            self._arrived += count
            arrived = self._arrived
        if self._total is None:
            # A stream that does not say its size is measured as it comes.
            self._check_size(arrived)
        if self._use.deadline.has_passed and not self._use.stop.is_set():
            raise self._wanted.refuse("source", f"it did not arrive within {self._limits.seconds:g} s")
        self._report(arrived, self._total)

    def _check_size(self, size_bytes: int) -> None:
        limit = self._limits.file_bytes
        if size_bytes > limit:
            raise self._wanted.refuse("source", f"it is larger than {format_limit(limit)}, the limit for one model")

    def _refuse_room(self, room_bytes: int) -> JobModelUnusable:
        reason = f"it does not fit into the {format_limit(self._limits.total_bytes)} for jobs' models, of which "
        return self._wanted.refuse("source", f"{reason}{format_size(room_bytes)} can be freed now")

    def _unless_stopped(self, ask: Callable[[str], SourceFacts], address: str) -> SourceFacts:
        if self._use.stop.is_set():
            raise self._stopped()
        return ask(address)

    def _wait_for(self, key: str) -> Lease:
        return acquire_lease(
            self._store.lease_path(key), purpose=f"bring {key[:12]}", poll_s=0.1, on_wait=self._give_up_if_stopped
        )

    def _give_up_if_stopped(self, _holder: object) -> None:
        if self._use.stop.is_set() or self._use.deadline.has_passed:
            raise self._stopped()

    def _stopped(self) -> JobModelUnusable:
        return self._wanted.refuse("source", "its download was stopped")


def _explain(wanted_model: WantedModel, error: ComfypinError | OSError) -> JobModelUnusable:
    """Return a failure in a job's words: no path of the server, no advice for its operator."""
    if isinstance(error, WrongDigest):
        return wanted_model.refuse(
            "sha256", f"the file has the sha256 {error.facts['actual']}, not {error.facts['expected']}"
        )
    if isinstance(error, SourceFailed):
        return wanted_model.refuse("source", error.reason.rstrip("."))
    if isinstance(error, PickleRefused):
        return wanted_model.refuse("source", f"{error.reason}; {_PICKLE}")
    if isinstance(error, NotSafetensors):
        return wanted_model.refuse("source", f"it is not a safetensors file: {error.reason}")
    if isinstance(error, TargetRefused):
        return wanted_model.refuse("folder", error.reason)
    if isinstance(error, DiskTooSmall):
        sizes = f"it needs {error.needed}, and {error.free} are free"
        return wanted_model.refuse("source", f"the server's disk is too small: {sizes}")
    if isinstance(error, OSError) and is_full(error):
        return wanted_model.refuse("source", "the server's disk is full")
    if isinstance(error, LeaseError | StoreFailed | OSError):
        return wanted_model.refuse("source", "the server's model store cannot be used at the moment")
    return wanted_model.refuse("source", error.message.rstrip("."))
