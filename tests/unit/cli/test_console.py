"""What is told while a job runs: JSON lines, plain lines, and logs."""

import json
import logging

import pytest

from comfypin.cli.console import JsonFormatter, JsonReporter, LineReporter, PlainFormatter
from comfypin.cli.transfer_progress import describe_elapsed
from comfypin.engine.interface import NodeFinished, NodeProgress, NodeStarted, Queued, Started, Warned
from comfypin.jobs.events import PhaseStarted, Requeued
from comfypin.outputs.bucket import UploadFinished, UploadMoved, UploadStarted
from comfypin.workflow.graph import ApiGraph, ApiNode

GRAPH = ApiGraph(
    nodes={
        "1": ApiNode(id="1", class_type="KSampler", inputs={"steps": 20}, title="Main [red]"),
        "2": ApiNode(id="2", class_type="SaveImage", inputs={}),
    }
)


class Clock:
    """A clock that stands where it is put."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_json_events_have_names_and_a_fraction_that_reaches_one() -> None:
    lines: list[str] = []
    reporter = JsonReporter(lines.append, Clock())
    reporter.attach_graph(GRAPH)
    for event in (
        Started(),
        NodeStarted(node_id="1", at_s=0),
        NodeFinished(node_id="1", at_s=1),
        PhaseStarted(phase="collect"),
    ):
        reporter.report_event(event)
    told = [json.loads(line) for line in lines]
    assert told[1] == {"event": "node_started", "node": "1", "name": "Main [red]", "fraction": 0.0}
    fractions = [line["fraction"] for line in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_json_steps_are_throttled_but_for_the_last() -> None:
    lines: list[str] = []
    reporter = JsonReporter(lines.append, Clock())
    for step in range(1, 21):
        reporter.report_event(NodeProgress(node_id="1", value=step, maximum=20))
    assert [json.loads(line)["value"] for line in lines] == [1, 20]


def test_plain_lines_tell_what_matters_and_now_and_then_how_far_it_is() -> None:
    lines: list[str] = []
    clock = Clock()
    reporter = LineReporter(lines.append, clock)
    reporter.attach_graph(GRAPH)
    reporter.report_event(Queued(ahead=3))
    reporter.report_event(NodeStarted(node_id="1", at_s=0))
    clock.now = 10
    reporter.report_event(NodeProgress(node_id="1", value=10, maximum=20))
    reporter.report_event(NodeProgress(node_id="1", value=11, maximum=20))
    reporter.report_event(Warned(message="careful"))
    reporter.report_event(Requeued(reason="exit code 1"))
    assert lines[0] == "Waiting behind 3 prompts.\n"
    assert "Main [red] 10/20" in lines[1]
    assert lines[2] == "Warning: careful\n"
    assert lines[3] == "The engine died (exit code 1); the job is queued once more.\n"
    assert len(lines) == 4


def test_a_node_has_no_percent_as_long_as_nothing_is_done_that_counts() -> None:
    lines: list[str] = []
    clock = Clock()
    reporter = LineReporter(lines.append, clock)
    reporter.attach_graph(GRAPH)
    clock.now = 10
    reporter.report_event(NodeStarted(node_id="2", at_s=0))
    assert lines == ["SaveImage\n"]


def test_json_tells_of_uploads_at_most_once_a_second_each() -> None:
    lines: list[str] = []
    clock = Clock()
    reporter = JsonReporter(lines.append, clock)
    reporter.report_upload(UploadStarted(key="a.mp4", size_bytes=10))
    reporter.report_upload(UploadMoved(key="a.mp4", sent_bytes=4))
    clock.now = 1.5
    reporter.report_upload(UploadMoved(key="a.mp4", sent_bytes=4))
    clock.now = 3
    reporter.report_upload(UploadMoved(key="a.mp4", sent_bytes=4))  # some of it for the second time
    reporter.report_upload(UploadFinished(key="a.mp4"))
    assert [json.loads(line) for line in lines] == [
        {"event": "upload_started", "key": "a.mp4", "size_bytes": 10},
        {"event": "upload_moved", "key": "a.mp4", "sent_bytes": 8, "size_bytes": 10},
        {"event": "upload_moved", "key": "a.mp4", "sent_bytes": 10, "size_bytes": 10},
        {"event": "upload_finished", "key": "a.mp4"},
    ]


def test_plain_lines_tell_of_uploads_that_last() -> None:
    lines: list[str] = []
    clock = Clock()
    reporter = LineReporter(lines.append, clock)
    reporter.report_upload(UploadStarted(key="a.mp4", size_bytes=4_000_000))
    reporter.report_upload(UploadMoved(key="a.mp4", sent_bytes=1_000_000))
    clock.now = 12
    reporter.report_upload(UploadMoved(key="a.mp4", sent_bytes=1_000_000))
    clock.now = 15
    reporter.report_upload(UploadMoved(key="a.mp4", sent_bytes=1_000_000))
    reporter.report_upload(UploadFinished(key="a.mp4"))
    assert lines == ["Uploading a.mp4: 2.0 MB of 4.0 MB, 0.2 MB/s, 12 s left\n", "Uploading a.mp4: 100%\n"]


def test_a_log_hears_every_ten_seconds_of_what_says_nothing() -> None:
    lines: list[str] = []
    clock = Clock()
    reporter = LineReporter(lines.append, clock)
    reporter.report_step("Building me/x:1.")
    reporter.note_detail("#7 RUN pip install")
    for clock.now in (5, 10, 15, 20):
        reporter.report_waiting()
    assert lines == [
        "Building me/x:1.\n",
        "Building me/x:1: 10 s so far. #7 RUN pip install\n",
        "Building me/x:1: 20 s so far. #7 RUN pip install\n",
    ]


def test_a_log_hears_of_a_packs_bytes_rate_and_time_left() -> None:
    lines: list[str] = []
    clock = Clock()
    reporter = LineReporter(lines.append, clock)
    for clock.now in range(21):
        reporter.report_bytes("Packing", 10_000_000 * int(clock.now), 400_000_000)
    reporter.report_bytes("Packing", 400_000_000, 400_000_000)
    reporter.report_bytes("Next", 1, 1)
    assert lines == [
        "Packing: 100.0 MB of 400.0 MB, 10.0 MB/s, 30 s left\n",
        "Packing: 200.0 MB of 400.0 MB, 10.0 MB/s, 20 s left\n",
        "Packing: 100%\n",
    ]


def a_record(name: str = "comfypin.x") -> logging.LogRecord:
    record = logging.makeLogRecord({"name": name, "levelname": "INFO", "msg": "model fetched"})
    record.path = "vae/x.safetensors"
    return record


def test_a_log_line_holds_its_facts() -> None:
    assert PlainFormatter().format(a_record()).endswith("info model fetched path=vae/x.safetensors")
    assert json.loads(JsonFormatter().format(a_record())) == {
        "event": "log",
        "level": "info",
        "message": "model fetched",
        "path": "vae/x.safetensors",
    }


def test_the_engines_own_lines_are_told_apart() -> None:
    assert PlainFormatter().format(a_record("comfypin.engine.log")) == "engine | model fetched"


@pytest.mark.parametrize(("seconds", "text"), [(40.4, "40 s"), (59.7, "1:00"), (125, "2:05"), (3725, "1:02:05")])
def test_what_goes_on_is_timed_to_the_second(seconds: float, text: str) -> None:
    assert describe_elapsed(seconds) == text
