"""Downloads of models tell followers how they stand."""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from comfypin.jobs.job_input import parse_model_wish
from comfypin.models.job_models import JobModels
from comfypin.server.model_downloads import ModelDownloads


class Models:
    """Brings nothing, when it may."""

    def __init__(self) -> None:
        self.may_come = threading.Event()

    def begin_use(self) -> Any:
        return self

    def end(self) -> None:
        pass

    def bring(self, wanted: Any, use: Any, report: Any) -> Any:
        self.may_come.wait(30)


async def test_a_download_is_told_of_when_it_begins_and_when_it_ends() -> None:
    told, models = list[Mapping[str, Any]](), Models()
    downloads = ModelDownloads(tell=lambda _id, stands: told.append(stands))
    wish = parse_model_wish({"source": "https://example.com/a.safetensors", "folder": "loras"})
    begun = downloads.begin(wish, _as_models(models))
    while not told:  # noqa: ASYNC110 - the task that tells has just been made
        await asyncio.sleep(0)
    assert (told[0]["id"], told[0]["status"]) == (begun["id"], "IN_PROGRESS")
    models.may_come.set()
    while told[-1]["status"] == "IN_PROGRESS":  # noqa: ASYNC110 - a thread ends it
        await asyncio.sleep(0.01)
    assert told[-1]["status"] == "COMPLETED"


def _as_models(models: Any) -> JobModels:
    return models  # type: ignore[no-any-return]
