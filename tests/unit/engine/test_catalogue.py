"""What an engine tells of its classes, and of those that others replaced."""

import json
from collections import deque
from typing import Any

import pytest

from comfypin.engine.remote import open_remote
from comfypin.workflow.object_info import EngineCatalogue
from tests.support.fake_comfyui import Canned, fake_comfyui

ANSWER: dict[str, Any] = {"T2IAdapterLoader": [{"new_node_id": "ControlNetLoader"}]}


@pytest.mark.parametrize(
    ("canned", "replacements"),
    [
        (Canned(body=json.dumps(ANSWER).encode()), ANSWER),
        (Canned(status=404, body=b"404: Not Found", content_type="text/plain"), {}),
        (Canned(body=b"[1]"), {}),
    ],
)
async def test_the_catalogue_holds_what_the_engine_says_of_replaced_classes(
    canned: Canned, replacements: dict[str, Any]
) -> None:
    async with (
        fake_comfyui(canned={"GET /node_replacements": deque([canned])}) as fake,
        open_remote(fake.url) as engine,
    ):
        catalogue = await engine.catalogue()
    assert isinstance(catalogue, EngineCatalogue)
    assert catalogue.replacements == replacements
