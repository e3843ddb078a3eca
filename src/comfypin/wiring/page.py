"""Puts together what the server's page shows: the gallery, and the report of this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfypin.lock.model import Lock
    from comfypin.queue.sqlite import JobStore
    from comfypin.server.comfy_api.assets import Assets
    from comfypin.server.page_routes import Page
    from comfypin.server.server_state import Site
    from comfypin.settings.environment import Settings


def open_page(
    site: "Site",
    store: "JobStore",
    assets: "Assets",
    *,
    lock: "Lock",
    settings: "Settings",
    state_folder: Path,
    engine_kind: str,
    sync_destination: str | None,
    prefix: str,
    clock: Callable[[], float],
) -> "Page":
    """Return what the page shows. Raises `JobsUnusable`."""
    from comfypin.models.target_paths import TargetRoots
    from comfypin.server.output_files import OutputFiles
    from comfypin.server.output_index import OutputIndex
    from comfypin.server.output_routes import Gallery
    from comfypin.server.page_routes import Page
    from comfypin.server.system_report import SyncPlace, SystemFacts, SystemReport
    from comfypin.server.thumbnails import Thumbnails
    from comfypin.sync.outbox import choose_outbox

    machine = settings.machine
    sync = None
    if sync_destination is not None:
        outbox = choose_outbox(settings.state_dir, site.outputs, sync_destination)
        sync = SyncPlace(outbox=outbox, destination=sync_destination)
    facts = SystemFacts(
        lock=lock,
        engine_kind=engine_kind,
        model_roots=TargetRoots(models_dir=machine.models_dir, comfy_home=machine.comfy_home),
        folders={"outputs": site.outputs, "jobs": state_folder, "models": machine.models_dir},
        sync=sync,
    )
    index = OutputIndex(store)
    gallery = Gallery(
        index=index,
        files=OutputFiles(index, assets, site.outputs),
        thumbnails=Thumbnails(state_folder / "thumbnails"),
        folder=site.outputs,
    )
    return Page(gallery=gallery, system=SystemReport(facts, site, store, clock=clock), prefix=prefix)
