"""Puts together what the server's page shows: the gallery, and the report of this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.wiring.network import http_transport

if TYPE_CHECKING:
    from comfypin.lock.model import Lock
    from comfypin.queue.sqlite import JobStore
    from comfypin.server.comfy_api.assets import Assets
    from comfypin.server.comfy_api.own_bucket import OwnBucket
    from comfypin.server.fleet_routes import ReadFleet
    from comfypin.server.page_routes import Page
    from comfypin.server.server_state import Site
    from comfypin.settings.environment import Settings


def open_page(
    site: "Site",
    store: "JobStore",
    assets: "Assets",
    *,
    bucket: "OwnBucket | None",
    lock: "Lock | None",
    settings: "Settings",
    state_folder: Path,
    engine_kind: str,
    engine_url: str | None,
    sync_destination: str | None,
    prefix: str,
    clock: Callable[[], float],
    read_fleet: "ReadFleet | None" = None,
    private_addresses: bool = False,
) -> "Page":
    """Return what the page shows; `private_addresses` lets it fetch outputs from them. Raises `JobsUnusable`."""
    from comfypin.http.client import HttpClient
    from comfypin.models.target_paths import TargetRoots
    from comfypin.server.fleet_outputs import FleetOutputs
    from comfypin.server.fleet_routes import FleetReader
    from comfypin.server.output_files import OutputFiles
    from comfypin.server.output_index import OutputIndex
    from comfypin.server.output_routes import Gallery
    from comfypin.server.page_routes import Page
    from comfypin.server.system_report import SyncPlace, SystemFacts, SystemReport
    from comfypin.server.thumbnails import Thumbnails
    from comfypin.server.url_relay import UrlRelay
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
        engine_address=None if engine_url is None else _shown_address(engine_url),
    )
    transport = http_transport(settings)

    def open_client() -> HttpClient:
        # A new one each time, since a client resolves a host once in its life.
        return HttpClient(transport=transport, public_only=not private_addresses)

    async def read_result(job_id: str) -> str | None:
        return (await site.queue.read_record(job_id)).output

    runs_here = site.queue.runs_here
    index = OutputIndex(store, read_result=None if runs_here else read_result)
    gallery = Gallery(
        index=index,
        files=OutputFiles(index, assets, site.outputs, bucket=bucket, relay=UrlRelay(open_client)),
        thumbnails=Thumbnails(state_folder / "thumbnails"),
        folder=site.outputs,
    )
    return Page(
        gallery=gallery,
        system=SystemReport(facts, site, store, clock=clock),
        fleet=None if read_fleet is None else FleetReader(read_fleet),
        fleet_outputs=None if runs_here else FleetOutputs(store, site.queue),
        prefix=prefix,
    )


def _shown_address(engine_url: str) -> str:
    """Return an engine's address without its user, password and query, which may be secrets."""
    from comfypin.engine.http_transport import parse_engine_url

    return str(parse_engine_url(engine_url).with_user(None).with_query(None))
