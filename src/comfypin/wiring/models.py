"""Model files: their sources, their store, what is missing of a lock."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.wiring.network import http_transport
from comfypin.wiring.stores import open_bucket

if TYPE_CHECKING:
    from comfypin.lock.model import Lock, ModelPin
    from comfypin.lock.model_spec import DescribeModel
    from comfypin.models.interface import ModelSource, PullWatcher
    from comfypin.models.store import BlobStore
    from comfypin.models.verify import ModelFinding
    from comfypin.settings.environment import Settings


def bring_models(lock: "Lock", settings: "Settings", *, offline: bool, watcher: "PullWatcher | None" = None) -> int:
    """Bring those of the lock's models that are not in their places as pinned, and say how many they were.

    Raises `ModelError`; offline, for the first one that would have to be fetched.
    """
    if not lock.models:
        return 0
    from comfypin.models.errors import ModelsFailed
    from comfypin.models.pull import Puller
    from comfypin.models.pull_limits import PullBudget
    from comfypin.models.target_paths import TargetRoots, list_targets
    from comfypin.models.verify import Present, finding_failure, inspect_models

    models_dir = settings.machine.models_dir.absolute()
    models = list_targets(lock, TargetRoots(models_dir=models_dir, comfy_home=settings.machine.comfy_home.absolute()))
    store = model_store(models_dir, settings)
    findings = list(zip(models, inspect_models(models, store), strict=True))
    wrong = [(model, finding) for model, finding in findings if not isinstance(finding, Present)]
    if wrong and offline:
        problems = [problem for (pin, _), finding in wrong if (problem := finding_failure(pin, finding)) is not None]
        raise ModelsFailed(failures=problems, total=len(models))
    if wrong:
        store.remember_release(lock.version_name, lock.models)
        puller = Puller(store, model_sources(settings), PullBudget(settings.models.connections), watcher=watcher)
        puller.pull_models([model for model, _ in wrong]).raise_failures()
    return len(wrong)


def model_findings(lock: "Lock", settings: "Settings") -> "list[tuple[ModelPin, ModelFinding]]":
    """Each of the lock's models and what is in its place, every byte read where anything changed."""
    from comfypin.models.target_paths import TargetRoots, list_targets
    from comfypin.models.verify import inspect_models

    models_dir = settings.machine.models_dir.absolute()
    models = list_targets(lock, TargetRoots(models_dir=models_dir, comfy_home=settings.machine.comfy_home.absolute()))
    store = model_store(models_dir, settings)
    return [(pin, finding) for (pin, _), finding in zip(models, inspect_models(models, store), strict=True)]


def model_describer(settings: "Settings") -> "DescribeModel":
    """How `lock create` learns a model's digest and size: from the source's own words, else by reading it once."""
    from comfypin.lock.model_spec import ModelFacts
    from comfypin.models.describe import describe_model

    sources = model_sources(settings)

    def facts_of(source: str) -> ModelFacts:
        described = describe_model(source, sources)
        facts = described.facts
        return ModelFacts(
            source=source if source.startswith("file:") else facts.uri,
            filename=facts.filename,
            sha256=described.sha256,
            size_bytes=described.size_bytes,
            folder=facts.folder,
        )

    return facts_of


def model_sources(settings: "Settings", *, timeout_s: float = 30.0) -> "list[ModelSource]":
    """The kinds of places that models come from, with the environment's tokens, each for its own host only."""
    from comfypin.http.client import Credentials
    from comfypin.models.http_file import HttpSource
    from comfypin.models.http_responses import make_model_client
    from comfypin.models.sources.bucket import BucketSource
    from comfypin.models.sources.civitai import CivitaiSource
    from comfypin.models.sources.huggingface import HubSource
    from comfypin.models.sources.local import LocalSource

    models = settings.models
    owners = ((models.hub_endpoint, models.hub_token), (models.civitai_endpoint, models.civitai_token))
    tokens = {endpoint: token for endpoint, token in owners if token}
    client = make_model_client(
        credentials=Credentials(tokens=tokens), transport=http_transport(settings, timeout_s=timeout_s)
    )
    return [
        HttpSource(client),
        HubSource(client, endpoint=models.hub_endpoint, caches=models.hub_caches),
        CivitaiSource(client, endpoint=models.civitai_endpoint),
        BucketSource(partial(open_bucket, settings)),
        LocalSource(),
    ]


def model_store(models_dir: Path, settings: "Settings", *, store: Path | None = None) -> "BlobStore":
    """The store of a models' folder: the one that is named, else the environment's, else the folder's own."""
    from comfypin.models.store import BlobStore, Durability
    from comfypin.models.target_paths import STORE_FOLDER

    root = store or settings.models.store or models_dir / STORE_FOLDER
    return BlobStore(root.absolute(), durability=Durability(always=settings.models.durable))
