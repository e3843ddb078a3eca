"""Model files: their sources, their store, and which of a lock are missing."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.wiring.network import http_transport
from comfypin.wiring.stores import open_bucket

if TYPE_CHECKING:
    from comfypin.http.deadline import Deadline
    from comfypin.lock.model import Lock, ModelPin
    from comfypin.lock.model_spec import DescribeModel
    from comfypin.models.interface import ModelSource, PullWatcher
    from comfypin.models.job_models import JobModels
    from comfypin.models.store import BlobStore
    from comfypin.models.verify import ModelFinding
    from comfypin.settings.environment import Settings


def bring_models(lock: "Lock", settings: "Settings", *, offline: bool, watcher: "PullWatcher | None" = None) -> int:
    """Pull the lock's models that are missing or do not match their pins, and return how many they were.

    Raises `ModelError`; offline, for the first one that would have to be fetched.
    """
    # A lock without models imports none of the code for them.
    if not lock.models:
        return 0
    from comfypin.models.errors import ModelsFailed
    from comfypin.models.pull import Puller
    from comfypin.models.pull_limits import PullBudget
    from comfypin.models.target_paths import TargetRoots, list_targets
    from comfypin.models.verify import Present, finding_failure, inspect_models

    models_dir = settings.machine.models_dir.absolute()
    target_models = list_targets(
        lock, TargetRoots(models_dir=models_dir, comfy_home=settings.machine.comfy_home.absolute())
    )
    store = open_model_store(models_dir, settings)
    findings = list(zip(target_models, inspect_models(target_models, store), strict=True))
    wrong_models = [(model, finding) for model, finding in findings if not isinstance(finding, Present)]
    # All at once, instead of one a run.
    if wrong_models and offline:
        problems = [
            problem for (pin, _), finding in wrong_models if (problem := finding_failure(pin, finding)) is not None
        ]
        raise ModelsFailed(failures=problems, total=len(target_models))
    if wrong_models:
        # Before the download, so that a gc meanwhile keeps these blobs.
        store.remember_release(lock.version_name, lock.models)
        puller = Puller(store, open_model_sources(settings), PullBudget(settings.models.connections), watcher=watcher)
        puller.pull_models([model for model, _ in wrong_models]).raise_failures()
    return len(wrong_models)


def inspect_lock_models(lock: "Lock", settings: "Settings") -> "list[tuple[ModelPin, ModelFinding]]":
    """Return each model pin with what is at its path; files that changed since the last check are read in full."""
    from comfypin.models.target_paths import TargetRoots, list_targets
    from comfypin.models.verify import inspect_models

    models_dir = settings.machine.models_dir.absolute()
    target_models = list_targets(
        lock, TargetRoots(models_dir=models_dir, comfy_home=settings.machine.comfy_home.absolute())
    )
    store = open_model_store(models_dir, settings)
    return [
        (pin, finding) for (pin, _), finding in zip(target_models, inspect_models(target_models, store), strict=True)
    ]


def find_model_problem(model_path: Path) -> str | None:
    """Return what is wrong with a file of a format that has a header, or None. Raises `OSError`."""
    from comfypin.models.file_formats import SAFETENSORS_SUFFIXES, safetensors_problem

    return safetensors_problem(model_path) if model_path.suffix.lower() in SAFETENSORS_SUFFIXES else None


def make_model_describer(settings: "Settings") -> "DescribeModel":
    """Return how `lock create` finds a model's digest and size: from the source's metadata, else by reading it once."""
    from comfypin.lock.model_spec import ModelFacts
    from comfypin.models.describe import describe_model
    from comfypin.models.sources.huggingface import find_hub_address

    sources = open_model_sources(settings)

    def describe_source(source: str) -> ModelFacts:
        # A link of the hub's page names a branch; by hf:// it becomes the commit, and the hub tells the digest.
        source = find_hub_address(source, settings.models.hub_endpoint) or source
        described = describe_model(source, sources)
        facts = described.facts
        return ModelFacts(
            # A file keeps its address; other sources resolve theirs to a fixed revision.
            source=source if source.startswith("file:") else facts.uri,
            filename=facts.filename,
            sha256=described.sha256,
            size_bytes=described.size_bytes,
            folder=facts.folder,
        )

    return describe_source


def open_job_models(
    lock: "Lock | None",
    settings: "Settings",
    *,
    allowed: Sequence[str],
    private: bool,
    max_model_gb: int | None = None,
    keep_models_gb: int | None = None,
) -> "JobModels | None":
    """Return what brings the models that jobs name, or None if no host is allowed. `private` allows private addresses.

    Raises `ConfigError` for what is not a host.
    """
    model_settings = settings.models
    allowed_hosts = tuple(allowed) or model_settings.allowed
    if not allowed_hosts:
        return None
    from comfypin.models.allowed_sources import AllowedSources
    from comfypin.models.job_models import JobModelLimits, JobModels
    from comfypin.models.pull_limits import PullBudget
    from comfypin.models.target_paths import TargetRoots

    models_dir = settings.machine.models_dir.absolute()
    allowed_sources = AllowedSources.parse(
        allowed_hosts,
        setting="--allow-models" if allowed else "COMFYPIN_ALLOW_MODELS",
        hub=model_settings.hub_endpoint,
        civitai=model_settings.civitai_endpoint,
        http=private,
    )
    # Before the engine starts: it looks only into folders that it knows then.
    models_dir.mkdir(parents=True, exist_ok=True)

    def open_sources(deadline: "Deadline") -> "list[ModelSource]":
        return open_model_sources(settings, public_only=not private, deadline=deadline)

    return JobModels(
        open_model_store(models_dir, settings),
        TargetRoots(models_dir=models_dir, comfy_home=settings.machine.comfy_home.absolute()),
        () if lock is None else lock.models,
        allowed=allowed_sources,
        open_sources=open_sources,
        limits=JobModelLimits(
            file_bytes=(max_model_gb or model_settings.max_model_gb) * 1_000_000_000,
            total_bytes=(keep_models_gb or model_settings.keep_models_gb) * 1_000_000_000,
        ),
        budget=PullBudget(model_settings.connections),
    )


def open_model_sources(
    settings: "Settings",
    *,
    timeout_s: float = 30.0,
    public_only: bool = False,
    deadline: "Deadline | None" = None,
) -> "list[ModelSource]":
    """Return every kind of model source, with the environment's tokens, each for its own host only.

    `public_only` and `deadline` are for what strangers name: no private address, and an end.
    """
    from comfypin.http.client import Credentials
    from comfypin.models.http_file import HttpSource
    from comfypin.models.http_responses import make_model_client
    from comfypin.models.sources.bucket import BucketSource
    from comfypin.models.sources.civitai import CivitaiSource
    from comfypin.models.sources.huggingface import HubSource
    from comfypin.models.sources.local import LocalSource

    model_settings = settings.models
    token_owners = (
        (model_settings.hub_endpoint, model_settings.hub_token),
        (model_settings.civitai_endpoint, model_settings.civitai_token),
    )
    # A token must never go to another host.
    tokens = {endpoint: token for endpoint, token in token_owners if token}
    client = make_model_client(
        credentials=Credentials(tokens=tokens),
        transport=http_transport(settings, timeout_s=timeout_s),
        public_only=public_only,
        deadline=deadline,
    )
    return [
        HttpSource(client),
        HubSource(client, endpoint=model_settings.hub_endpoint, caches=model_settings.hub_caches),
        CivitaiSource(client, endpoint=model_settings.civitai_endpoint),
        BucketSource(partial(open_bucket, settings)),
        LocalSource(),
    ]


def open_model_store(models_dir: Path, settings: "Settings", *, store: Path | None = None) -> "BlobStore":
    """Return the model store: the given one, else the environment's, else the one inside the models folder."""
    from comfypin.models.store import BlobStore, Durability
    from comfypin.models.target_paths import STORE_FOLDER

    root = store or settings.models.store or models_dir / STORE_FOLDER
    return BlobStore(
        root.absolute(),
        durability=Durability(always=settings.models.durable),
        spare_notes=settings.env.cache_dir.absolute() / "digests",
    )
