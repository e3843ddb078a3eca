"""Work on JSON: small pieces at once, large ones in a thread."""

import json
import threading

import pytest

from comfypin.small_work import SMALL_BYTES, json_size, run_by_size


async def test_small_work_is_done_at_once_and_large_work_in_a_thread() -> None:
    assert await run_by_size(SMALL_BYTES, threading.get_ident) == threading.get_ident()
    assert await run_by_size(SMALL_BYTES + 1, threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize(
    "value", [{"a": "x" * 20_000}, ["x"] * 20_000, {str(number): {} for number in range(9_000)}, [[["y" * 17_000]]]]
)
def test_what_is_large_as_json_is_known_to_be(value: object) -> None:
    assert len(json.dumps(value)) > SMALL_BYTES
    assert json_size(value) > SMALL_BYTES


def test_a_usual_workflow_is_small() -> None:
    graph = {str(number): {"class_type": "KSampler", "inputs": {"seed": 1, "model": ["1", 0]}} for number in range(30)}
    assert json_size({"workflow": graph}) < SMALL_BYTES
