"""What brings the models of jobs, over a store of the test's own and sources on loopback."""

from pathlib import Path

from comfypin.http.client import HttpTransport
from comfypin.http.connections import Network, SystemNetwork
from comfypin.http.deadline import Deadline
from comfypin.http.proxies import Proxies
from comfypin.lock.model import Lock
from comfypin.models.allowed_sources import AllowedSources
from comfypin.models.http_file import HttpSource
from comfypin.models.http_responses import make_model_client
from comfypin.models.interface import ModelSource
from comfypin.models.job_models import BroughtModel, JobModelLimits, JobModels, WantedModel
from comfypin.models.pull_limits import PullBudget
from comfypin.models.sources.civitai import CivitaiSource
from comfypin.models.sources.huggingface import HubSource
from comfypin.models.store import BlobStore
from comfypin.models.target_paths import TargetRoots
from tests.support.services import LOCK


def job_models(
    models_dir: Path,
    *,
    allowed: tuple[str, ...] = ("127.0.0.1",),
    lock: Lock = LOCK,
    hub: str = "https://hub.invalid",
    civitai: str = "https://civitai.invalid",
    private: bool = True,
    file_bytes: int = 64 << 20,
    total_bytes: int = 256 << 20,
    network: Network | None = None,
) -> JobModels:
    """Bring models into this folder, from 127.0.0.1 unless the test says otherwise."""

    def open_sources(deadline: Deadline) -> list[ModelSource]:
        transport = HttpTransport(network=network or SystemNetwork(), proxies=Proxies(), timeout_s=5.0)
        client = make_model_client(transport=transport, public_only=not private, deadline=deadline)
        return [HttpSource(client), HubSource(client, endpoint=hub, caches=()), CivitaiSource(client, endpoint=civitai)]

    return JobModels(
        BlobStore(models_dir / ".comfypin"),
        TargetRoots(models_dir=models_dir),
        lock.models,
        allowed=AllowedSources.parse(allowed, setting="--allow-models", hub=hub, civitai=civitai, http=private),
        open_sources=open_sources,
        limits=JobModelLimits(file_bytes=file_bytes, total_bytes=total_bytes),
        budget=PullBudget(4),
    )


def bring_one(models: JobModels, source: str | None = None, *, folder: str = "loras", **more: object) -> BroughtModel:
    """Bring one model for a job that ends at once."""
    use = models.begin_use()
    try:
        wanted = WantedModel(label="models[0]", folder=folder, source=source, **more)  # type: ignore[arg-type]
        return models.bring(wanted, use, lambda done, total: None)
    finally:
        use.end()
