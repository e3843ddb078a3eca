"""What a typed workflow takes: described once, and anew when its files or the engine's classes change."""

import json
from pathlib import Path
from typing import Any

from comfypin.jobs.handler import Handler
from comfypin.jobs.metrics import Metrics
from comfypin.lock.model import UNPINNED
from comfypin.server.server_state import Site
from tests.support.services import a_service
from tests.support.workflows import picture


class NoQueue:
    metrics = Metrics()


def a_site(folder: Path) -> tuple[Site, Any]:
    queue: Any = NoQueue()
    site, service = Site(queue, folder / "outputs", release=UNPINNED), a_service(folder=folder)
    site.open_for_jobs(service, Handler(service))
    return site, service.engine


def write_workflow(folder: Path, width: object) -> None:
    graph = picture(1)
    graph["1"]["inputs"]["width"] = width
    (folder / "w.json").write_text(json.dumps(graph))


async def test_a_description_is_kept_until_a_file_or_the_engine_changes(tmp_path: Path) -> None:
    site, engine = a_site(tmp_path)
    write_workflow(tmp_path, 1)
    first = await site.describe_workflow("w")
    assert await site.describe_workflow("w") is first
    # Python takes 1 and true for the same.
    write_workflow(tmp_path, True)
    second = await site.describe_workflow("w")
    assert second is not first
    (tmp_path / "w.inputs.toml").write_text('title = "A title"\n')
    titled = await site.describe_workflow("w")
    assert titled.title == "A title"
    engine._catalogue = dict(await engine.catalogue())
    assert await site.describe_workflow("w") is not titled
