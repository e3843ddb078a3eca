"""The record of a fleet's job, and what may become of it."""

from dataclasses import replace

import pytest

from comfypin.queue.interface import JobRow
from comfypin.queue.job_description import JobDescription, JobEnd
from comfypin.queue.job_notes import ComfyNote, JobNotes
from comfypin.queue.nats import fleet_job
from comfypin.queue.nats.connection import parse_queue_address
from comfypin.queue.nats.errors import QueueAddressInvalid
from comfypin.queue.nats.fleet_job import MOST_ATTEMPTS, NOT_DEAD, Body, FleetJob
from comfypin.queue.nats.names import Lane, is_class_name, job_of_ticket, lanes_of_worker, release_of_ticket

RELEASE = "0123456789abcdef"


def a_job(**more: object) -> FleetJob:
    row = JobRow(id="a-1", state="IN_QUEUE", created_at=1.0, webhook="http://hook.test/")
    job = FleetJob(
        row=row,
        lane=Lane(release=RELEASE),
        description=JobDescription(api="runpod", workflow="demo", release="demo", shape="s", texts="t"),
        input=Body(key="a-1.x", size=100),
    )
    return replace(job, **more)  # type: ignore[arg-type]


def begun(job: FleetJob, worker_id: str = "one") -> FleetJob:
    started = fleet_job.started(job, run=job.run, at=2.0, worker_id=worker_id)
    assert started is not None
    return started


def test_a_record_is_read_as_it_was_written() -> None:
    job = a_job(
        end=JobEnd(outputs=1),
        result=Body(key="r", size=1, sealed=True, address="s3://b/k"),
        webhook_events=("started",),
        notes=JobNotes(comfy=ComfyNote(labels={"a": "b"}), assets=("blake3:1",), key="k"),
    )
    assert FleetJob.load(job.dump()) == job


def test_a_job_ends_once() -> None:
    ended = fleet_job.ended(begun(a_job()), "COMPLETED", at=3.0)
    assert ended is not None
    assert ended.owes_webhook
    assert fleet_job.ended(ended, "FAILED", at=4.0) is None
    assert fleet_job.started(ended, run=0, at=4.0, worker_id="two") is None


def test_a_ticket_delivered_again_lets_another_worker_begin() -> None:
    again = begun(begun(a_job()), "two")
    assert (again.row.attempts, again.worker_id) == (2, "two")


def test_a_job_whose_workers_died_as_often_as_may_be_does_not_begin() -> None:
    job = a_job()
    for _ in range(MOST_ATTEMPTS):
        job = begun(job)
    assert fleet_job.started(job, run=0, at=9.0, worker_id="six") is None


def test_handing_a_job_back_is_no_attempt() -> None:
    back = fleet_job.given_back(begun(a_job()), run=0, worker_id="one")
    assert back is not None
    assert (back.row.attempts, back.row.state, back.row.started_at) == (0, "IN_QUEUE", None)


def test_a_worker_hands_back_only_what_it_runs() -> None:
    assert fleet_job.given_back(begun(begun(a_job()), "two"), run=0, worker_id="one") is None


def test_the_ticket_of_an_earlier_run_is_worth_nothing() -> None:
    failed = fleet_job.ended(begun(a_job()), "FAILED", at=3.0)
    assert failed is not None
    again = fleet_job.queued_again(failed, at=4.0)
    assert again is not None
    assert fleet_job.started(again, run=0, at=5.0, worker_id="one") is None
    assert fleet_job.ended(again, "FAILED", at=5.0, run=0) is None
    assert begun(again).row.attempts == 1


@pytest.mark.parametrize(("secret", "size", "state", "kept"), [
    (False, 100, "COMPLETED", True),
    (False, 300_000, "COMPLETED", False),
    (False, 300_000, "FAILED", True),
    (True, 100, "FAILED", False),
])  # fmt: skip
def test_an_input_stays_if_somebody_may_want_it(secret: bool, size: int, state: str, kept: bool) -> None:
    job = a_job(secret=secret, input=Body(key="x", size=size))
    ended = fleet_job.ended(job, state, at=3.0)  # type: ignore[arg-type]
    assert ended is not None
    assert (ended.input is not None) == kept


def test_the_address_of_a_webhook_goes_once_it_was_told() -> None:
    ended = fleet_job.ended(begun(a_job()), "COMPLETED", at=3.0)
    assert ended is not None
    told = fleet_job.webhook_delivered(ended, run=0)
    assert told is not None
    assert (told.owes_webhook, told.row.webhook) == (False, None)


def test_a_ticket_names_its_job_run_and_release() -> None:
    subject = Lane(release=RELEASE, gpu_class="rtx4090", priority="high").ticket_subject("a-1", 3)
    assert job_of_ticket(subject) == ("a-1", 3)
    assert release_of_ticket(subject) == RELEASE


def test_a_worker_looks_for_urgent_jobs_of_its_class_first() -> None:
    lanes = lanes_of_worker(RELEASE, "rtx4090")
    assert [(lane.priority, lane.gpu_class) for lane in lanes] == [
        ("high", "rtx4090"),
        ("high", "any"),
        ("normal", "rtx4090"),
        ("normal", "any"),
    ]


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">", "x" * 41])
def test_what_names_of_nats_may_not_hold_is_no_class(name: str) -> None:
    assert not is_class_name(name)


def test_several_servers_are_read() -> None:
    assert parse_queue_address("nats://a:4222, tls://[::1]:4223") == ("nats://a:4222", "tls://[::1]:4223")


@pytest.mark.parametrize("text", ["", "a:4222", "redis://a", "nats://me:secret@a:4222", "nats://a:4222/x"])
def test_what_is_no_address_or_holds_a_login_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(QueueAddressInvalid) as caught:
        parse_queue_address(text)
    assert "secret" not in caught.value.message


def test_bytes_tell_a_job_that_was_given_up_whatever_texts_say() -> None:
    alive = a_job(description=JobDescription(api="runpod", texts=NOT_DEAD.decode(), workflow='"dead":null'))
    given_up = replace(alive, dead='it said "dead":null')
    assert NOT_DEAD in alive.dump()
    assert NOT_DEAD not in given_up.dump()
