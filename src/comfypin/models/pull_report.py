"""Reports a pull: how each model got to its path, and what failed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from comfypin.digest import Digest, JsonValue
from comfypin.errors import ModelError
from comfypin.lock.model import ModelPin
from comfypin.models.errors import ModelsFailed

PullState = Literal["present", "linked", "adopted", "fetched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOutcome:
    """How one model got to its path: `source` if it was fetched, `aside` if a file was moved out of the way."""

    pin: ModelPin
    path: Path
    state: PullState
    digest: Digest
    size_bytes: int
    source: str | None = None
    failed_sources: tuple[str, ...] = ()
    aside: Path | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return what `--json` prints."""
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

    outcomes: tuple[PullOutcome, ...]
    failures: tuple[ModelError, ...]

    def raise_failures(self) -> None:
        """Raise `ModelsFailed` (or the one failure itself) unless all is well."""
        if len(self.failures) == 1 and not self.outcomes:
            raise self.failures[0]
        if self.failures:
            raise ModelsFailed(failures=self.failures, total=len(self.failures) + len(self.outcomes))
