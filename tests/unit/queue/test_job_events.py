"""The hub of job events: nobody is waited for, and whoever comes back misses nothing that is kept."""

import asyncio

import pytest

from comfypin.queue.job_events import FollowerTooSlow, Following, JobEvents


async def unread(following: Following) -> list[tuple[str, str]]:
    found = []
    while (event := await following.next_within(0.01)) is not None:
        found.append((event.job_id, event.kind))
    return found


async def test_a_follower_hears_of_its_job_alone_and_another_of_all() -> None:
    events = JobEvents()
    one, all_ = events.subscribe("a"), events.subscribe(None)
    events.publish("accepted", "a")
    events.publish("accepted", "b")
    assert await unread(one) == [("a", "accepted")]
    assert await unread(all_) == [("a", "accepted"), ("b", "accepted")]


async def test_newer_progress_replaces_what_was_not_read() -> None:
    events = JobEvents()
    following = events.subscribe("a")
    for step in range(5000):
        events.publish("progress", "a", {"step": step})
    event = await following.next_within(0.01)
    assert event is not None
    assert event.data == {"step": 4999}
    assert await following.next_within(0.01) is None


async def test_a_slow_follower_is_cut_off() -> None:
    events = JobEvents()
    following = events.subscribe(None)
    for _ in range(2000):
        events.publish("accepted", "a")
    with pytest.raises(FollowerTooSlow):
        await anext(following)
    assert not events.wants_previews("a")


async def test_a_following_ends_when_it_is_closed() -> None:
    events = JobEvents()
    following = events.subscribe("a")
    reading = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    following.close()
    with pytest.raises(StopAsyncIteration):
        await reading


async def test_a_follower_that_comes_back_gets_what_it_missed() -> None:
    events = JobEvents()
    seen = events.publish("accepted", "a")
    events.publish("started", "a")
    events.publish("progress", "a")
    events.publish("ended", "a")
    after = events.after(events.wire_id(seen))
    assert await unread(events.subscribe(None, after=after)) == [("a", "started"), ("a", "ended")]


def test_an_id_of_another_life_or_of_what_is_gone_cannot_be_resumed() -> None:
    events = JobEvents(max_events=3)
    first = events.publish("accepted", "a")
    assert events.after(events.wire_id(first)) == 1
    for _ in range(5):
        events.publish("accepted", "a")
    assert events.after(events.wire_id(first)) is None
    assert events.after(JobEvents().wire_id(first)) is None
    for odd in (None, "", "x", f"{events.wire_id(first)}x", f"{events.wire_id(first)}{'0' * 40}"):
        assert events.after(odd) is None


def test_the_newest_preview_of_a_job_is_kept_until_it_ends() -> None:
    events = JobEvents()
    events.publish("preview", "a", {"data_base64": "old"})
    events.publish("preview", "a", {"data_base64": "new"})
    preview = events.newest_preview("a")
    assert preview is not None
    assert preview.data == {"data_base64": "new"}
    events.publish("ended", "a")
    assert events.newest_preview("a") is None


async def test_who_missed_more_than_may_wait_unread_begins_anew_instead_of_being_cut_off_for_ever() -> None:
    events = JobEvents()
    seen = events.wire_id(events.publish("accepted", "a"))
    for number in range(1200):
        events.publish("ended", str(number))
    assert events.after(seen) is None
    with events.subscribe(None, after=events.after(events.wire_id(events.publish("accepted", "b")))) as following:
        events.publish("accepted", "c")
        assert (await anext(following)).job_id == "c"
