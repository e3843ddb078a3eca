"""Previews for followers: the newest twice a second, and none if nobody looks."""

import asyncio
import base64

from comfypin.engine.interface import PreviewMade
from comfypin.queue.job_events import JobEvents
from comfypin.queue.preview_relay import PREVIEW_EVERY_S, PreviewRelay


def preview(text: str) -> PreviewMade:
    return PreviewMade(node_id="3", content_type="image/jpeg", data=text.encode())


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def shown(events: JobEvents) -> str | None:
    event = events.newest_preview("a")
    return None if event is None else base64.b64decode(str(event.data["data_base64"])).decode()


async def test_the_newest_is_shown_twice_a_second() -> None:
    events, clock = JobEvents(), Clock()
    relay = PreviewRelay(events, clock=clock)
    with events.subscribe("a"):
        relay.show("a", preview("first"))
        relay.show("a", preview("second"))
        clock.now_s += PREVIEW_EVERY_S - 0.01
        relay.show("a", preview("third"))
        assert shown(events) == "first"
        clock.now_s += 0.01
        await asyncio.sleep(PREVIEW_EVERY_S + 0.05)
        assert shown(events) == "third"
        clock.now_s += PREVIEW_EVERY_S
        relay.show("a", preview("fourth"))
        assert shown(events) == "fourth"


async def test_what_nobody_looks_at_is_not_shown() -> None:
    events = JobEvents()
    relay = PreviewRelay(events)
    relay.show("a", preview("unseen"))
    with events.subscribe(None, with_previews=False), events.subscribe("b", with_previews=False):
        relay.show("a", preview("unseen"))
        assert not relay.is_wanted("a")
    assert shown(events) is None


async def test_the_next_job_is_asked_for_previews_too_after_somebody_followed_one() -> None:
    events = JobEvents()
    relay = PreviewRelay(events)
    with events.subscribe("a"):
        assert relay.is_wanted("b")
    assert relay.is_wanted("c")
    relay.show("c", preview("unseen"))
    assert events.newest_preview("c") is None


async def test_one_that_is_too_large_is_left_out() -> None:
    events = JobEvents()
    with events.subscribe("a"):
        PreviewRelay(events).show("a", preview("x" * 256_001))
    assert shown(events) is None


async def test_nothing_is_shown_of_a_job_that_has_ended() -> None:
    events = JobEvents()
    relay = PreviewRelay(events)
    with events.subscribe("a"):
        relay.show("a", preview("first"))
        relay.show("a", preview("second"))
        relay.forget_job("a")
        events.publish("ended", "a")
        await asyncio.sleep(PREVIEW_EVERY_S + 0.05)
    assert shown(events) is None
