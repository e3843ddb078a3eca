"""What /system tells people of this machine: its release, engine, memory, disk, models, and what is owed."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfypin import __version__
from comfypin.digest import JsonValue
from comfypin.errors import ComfypinError
from comfypin.jobs.metrics import GpuMemory
from comfypin.lock.model import Lock, ModelPin
from comfypin.models.target_paths import TargetRoots
from comfypin.queue.errors import JobsNotStored
from comfypin.queue.sqlite import JobStore
from comfypin.queue.status_bodies import health_body, shown_time
from comfypin.server.day_series import DaySeries, Sample
from comfypin.server.server_state import Site
from comfypin.sync.outbox import Outbox

# If everything fails, twenty say why.
_SHOWN_FAILURES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPlace:
    """The outbox of the sync that this server runs, and where it delivers to."""

    outbox: Path
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFacts:
    """What does not change while a server runs. `folders` are those whose disks are shown, by what they hold.

    `engine_address` is that of a ComfyUI that somebody else looks after, without secrets.
    """

    lock: Lock | None
    engine_kind: str
    model_roots: TargetRoots
    folders: Mapping[str, Path]
    sync: SyncPlace | None = None
    engine_address: str | None = None
    started_at: float = field(default_factory=time.time)


class SystemReport:
    """Reads the figures when somebody asks."""

    def __init__(self, facts: SystemFacts, site: Site, store: JobStore, *, clock: Callable[[], float]) -> None:
        self._facts = facts
        self._site = site
        self._store = store
        self._gpus = GpuMemory()
        self._engine_version: str | None = None
        self.series = DaySeries(store, self._take_sample, clock=clock)

    async def to_json(self) -> dict[str, JsonValue]:
        """Return the answer. Raises `JobsNotStored`."""
        queue = self._site.queue
        on_disk = await asyncio.to_thread(self._read_machine)
        health = health_body(await queue.count_jobs(), trouble=queue.trouble, ready=self._site.is_ready)
        return {
            "comfypin": __version__,
            "started_at": shown_time(self._facts.started_at),
            "release": self._release(),
            "engine": await self.describe_engine(),
            "jobs": health["jobs"],
            "problems": health["problems"],
            **on_disk,
            "webhooks": await self._count_webhooks(),
            "series": await self.series.to_json(),
        }

    def _release(self) -> dict[str, JsonValue]:
        release = self._site.release
        doubt: dict[str, JsonValue] = {} if release.doubt is None else {"reason": release.doubt}
        return {"name": release.name, "digest": release.digest_text, **doubt}

    async def describe_engine(self) -> dict[str, JsonValue]:
        """Return which engine runs the jobs; `answers` says whether one elsewhere still does, if that is known."""
        lock = self._facts.lock
        read_version = self._site.require_service().read_engine_version if self._site.is_ready else None
        answers: bool | None = None
        # What is somebody else's to start may have gone, or be another one now.
        if read_version is not None and (self._engine_version is None or self._facts.engine_address is not None):
            told_version = await read_version()
            answers = None if self._engine_version is None else told_version is not None
            self._engine_version = told_version or self._engine_version
        comfyui = None if lock is None else lock.comfyui
        return {
            # Of a fleet's server the engines are elsewhere.
            "kind": self._facts.engine_kind if self._site.queue.runs_here else "workers",
            "ready": self._site.is_ready,
            "answers": answers,
            # What it says of itself; a lock may have been changed since it was started.
            "comfyui": self._engine_version or (None if comfyui is None else comfyui.ref or comfyui.commit),
            "address": self._facts.engine_address,
            "commit": None if comfyui is None else comfyui.commit,
            "custom_nodes": None if lock is None else len(lock.custom_nodes),
            "restarts": self._site.engine_restarts,
        }

    def _read_machine(self) -> dict[str, JsonValue]:
        """Read how full the disks are, and ask the driver; slow."""
        memory = self._gpus.read_usage()
        return {
            "gpus": [{"used_bytes": used_bytes, "total_bytes": total_bytes} for used_bytes, total_bytes in memory],
            "disks": self._disks(),
            "models": self._models(),
            "sync": self._sync(),
        }

    def _disks(self) -> list[JsonValue]:
        by_device: dict[int, dict[str, Any]] = {}
        for disk_name, folder in self._facts.folders.items():
            with contextlib.suppress(OSError):
                usage, device = shutil.disk_usage(folder), folder.stat().st_dev
                # Folders on one device share its space, so a disk is shown once.
                disk = by_device.setdefault(device, {"holds": [], "free_bytes": usage.free, "total_bytes": usage.total})
                disk["holds"].append(disk_name)
        return list(by_device.values())

    def _models(self) -> list[JsonValue]:
        workflows = self._workflow_texts()
        models: list[JsonValue] = []
        for model_pin in self._model_pins():
            size_bytes: int | None = None
            with contextlib.suppress(ComfypinError, OSError):
                size_bytes = self._facts.model_roots.target_path(model_pin).stat().st_size
            file_name = model_pin.target_path.rpartition("/")[2]
            used_by = [
                workflow
                for workflow, workflow_text in workflows.items()
                # As JSON spells it: letters beyond ASCII and backslashes are escaped there.
                if json.dumps(file_name)[1:-1] in workflow_text
            ]
            models.append(
                {
                    "name": model_pin.name,
                    # Without its variable: what people see in a loader's list.
                    "path": model_pin.target_path.partition("/")[2],
                    "size_bytes": model_pin.size_bytes if size_bytes is None else size_bytes,
                    "present": size_bytes is not None if self._site.queue.runs_here else None,
                    "used_by": list(used_by),
                }
            )
        return models

    def _model_pins(self) -> tuple[ModelPin, ...]:
        return () if self._facts.lock is None else self._facts.lock.models

    def _workflow_texts(self) -> dict[str, str]:
        if not self._model_pins() or not self._site.is_ready:
            return {}
        library = self._site.require_service().workflows
        texts: dict[str, str] = {}
        for workflow_name in library.list_names():
            with contextlib.suppress(ComfypinError, OSError):
                texts[workflow_name] = library.find_path(workflow_name).read_text(encoding="utf-8", errors="replace")
        return texts

    def _sync(self) -> JsonValue:
        sync_place = self._facts.sync
        if sync_place is None:
            return None
        state: dict[str, JsonValue] = {"destination": sync_place.destination, "done": 0, "owed": 0, "owed_bytes": 0}
        state |= {"oldest_owed_at": None, "failing": 0, "failures": []}
        if not sync_place.outbox.exists():
            return state
        with contextlib.suppress(ComfypinError, sqlite3.Error):
            outbox = Outbox(sync_place.outbox, read_only=True)
            try:
                counts, failing = outbox.count_rows(), outbox.failing_rows(_SHOWN_FAILURES)
            finally:
                outbox.close()
            failures: Sequence[JsonValue] = [
                {"path": row.path, "failures": row.failures, "reason": row.reason} for row in failing
            ]
            state |= {"done": counts.done, "owed": counts.owed, "owed_bytes": counts.owed_bytes}
            state |= {"failing": counts.failing, "failures": list(failures)}
            state["oldest_owed_at"] = None if counts.oldest_owed_at is None else shown_time(counts.oldest_owed_at)
        return state

    async def _count_webhooks(self) -> dict[str, JsonValue]:
        """Count what webhooks are still to be told, and what was given up."""
        query = (
            "SELECT (SELECT COUNT(*) FROM jobs WHERE webhook_owed) + (SELECT COUNT(*) FROM webhook_events), "
            "(SELECT COUNT(*) FROM webhook_failures)"
        )
        try:
            owed, failed = (await self._store.query_rows(query))[0]
        except JobsNotStored:
            return {"owed": None, "failed": None}
        return {"owed": owed, "failed": failed}

    def _take_sample(self, at: float) -> Sample:
        memory = self._gpus.read_usage()
        return Sample(
            at=at,
            waiting=self._site.queue.waiting_count,
            running=self._site.queue.running_count,
            gpu_used_bytes=sum(used_bytes for used_bytes, _ in memory) if memory else None,
        )
