"""What tests of models share: files of known bytes, pins of them, and a puller over a store."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comfypin.digest import Digest
from comfypin.http.client import Credentials, HttpTransport
from comfypin.http.connections import Network, SystemNetwork
from comfypin.http.proxies import Proxies
from comfypin.lock.model import ModelPin
from comfypin.models.http_file import HttpSource
from comfypin.models.http_responses import make_model_client
from comfypin.models.interface import ModelSource, PullWatcher
from comfypin.models.pull import Puller, PullOptions
from comfypin.models.pull_limits import FetchPolicy, PullBudget
from comfypin.models.pull_report import PullReport
from comfypin.models.sources.local import LocalSource
from comfypin.models.store import BlobStore
from comfypin.models.target_paths import TargetRoots
from comfypin.retry import RetryPolicy

FAST = FetchPolicy(retry_policy=RetryPolicy(retries=3, base_s=0.02), stall_s=5.0)


def some_bytes(count: int, *, seed: int = 1) -> bytes:
    """The same bytes for the same seed, that do not repeat."""
    return random.Random(seed).randbytes(count)


def safetensors(data: bytes) -> bytes:
    """A valid safetensors file with one tensor of these bytes."""
    header = json.dumps({"t": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


def pin_of(data: bytes, *sources: str, target: str = "$MODELS_DIR/vae/x.safetensors", **more: object) -> ModelPin:
    """A pin of these bytes."""
    facts: dict[str, object] = {"sha256": Digest(hashlib.sha256(data).hexdigest()), "size_bytes": len(data), **more}
    return ModelPin(name=target.rpartition("/")[2], target_path=target, sources=sources, **facts)  # type: ignore[arg-type]


@dataclass
class Home:
    """A models' folder with its store, on a machine of so many processors (None: of this one's)."""

    models_dir: Path
    processors: int | None = None

    @property
    def places(self) -> TargetRoots:
        return TargetRoots(models_dir=self.models_dir, comfy_home=self.models_dir.parent / "comfy")

    @property
    def store(self) -> BlobStore:
        return BlobStore(self.models_dir / ".comfypin")

    def path(self, pin: ModelPin) -> Path:
        return self.places.target_path(pin)

    def pull(
        self,
        *pins: ModelPin,
        sources: Sequence[ModelSource] | None = None,
        options: PullOptions | None = None,
        watcher: PullWatcher | None = None,
        connections: int = 4,
    ) -> PullReport:
        """One process's pull."""
        puller = Puller(
            self.store,
            sources or sources_over(),
            PullBudget(connections, processors=self.processors),
            options=options or PullOptions(fetch_policy=FAST),
            watcher=watcher,
        )
        return puller.pull_models([(pin, self.path(pin)) for pin in pins])


def sources_over(
    *, network: Network | None = None, tokens: dict[str, str] | None = None, timeout_s: float = 5.0
) -> list[ModelSource]:
    """HTTP and local sources, over a network of the test's."""
    transport = HttpTransport(network=network or SystemNetwork(), proxies=Proxies(), timeout_s=timeout_s)
    client = make_model_client(credentials=Credentials(tokens=tokens or {}), transport=transport)
    return [HttpSource(client), LocalSource()]
