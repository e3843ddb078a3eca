"""What a pull tells while it goes."""

import io
import json

from rich.console import Console
from rich.progress import Progress

from comfypin.cli.model_progress import BarWatcher, LineWatcher


def test_a_log_gets_rate_and_time_left_now_and_then() -> None:
    now, lines = 0.0, []
    watcher = LineWatcher(lines.append, as_json=False, clock=lambda: now)
    watcher.start_file("x", 100_000_000, 0)
    watcher.advance_file("x", 1_000_000)
    now = 10.0
    watcher.advance_file("x", 49_000_000)
    watcher.end_file("x", "fetched")
    assert lines == ["50.0 MB of 100.0 MB, 5.0 MB/s, 10 s left\n", "x: fetched\n"]


def test_each_file_has_its_rate_and_time_left_and_the_whole_knows_what_has_not_begun() -> None:
    now, lines = 0.0, []
    watcher = LineWatcher(lines.append, as_json=False, clock=lambda: now)
    watcher.plan_files({"a": 100_000_000, "b": 300_000_000, "there": 900_000_000, "later": 100_000_000})
    watcher.end_file("there", "present")
    watcher.start_file("a", 100_000_000, 0)
    now = 5.0
    watcher.start_file("b", 300_000_000, 50_000_000)
    watcher.advance_file("a", 50_000_000)
    now = 10.0
    watcher.advance_file("b", 50_000_000)
    assert lines[1:] == [
        "a: 50.0 MB of 100.0 MB, 5.0 MB/s, 10 s left\n",
        "b: 100.0 MB of 300.0 MB, 10.0 MB/s, 20 s left\n",
        "150.0 MB of 500.0 MB, 10.0 MB/s, 35 s left\n",
    ]


def test_the_bar_of_the_whole_knows_what_has_not_begun() -> None:
    bars = Progress(console=Console(file=io.StringIO()), disable=True)
    watcher = BarWatcher(bars)
    watcher.plan_files({"a": 100, "b": 300, "there": 50})
    watcher.start_file("a", 100, 0)
    watcher.advance_file("a", 100)
    watcher.end_file("a", "fetched")
    watcher.end_file("there", "present")
    assert {task.description: (task.completed, task.total) for task in bars.tasks} == {"all": (100, 400)}


def test_json_lines_say_the_same() -> None:
    now, lines = 0.0, []
    watcher = LineWatcher(lines.append, as_json=True, clock=lambda: now)
    watcher.start_file("x", 100, 40)
    now = 10.0
    watcher.advance_file("x", 10)
    assert [json.loads(line)["event"] for line in lines] == ["resumed", "progress"]
    assert json.loads(lines[1])["seconds_left"] == 50


def test_a_file_that_was_there_is_not_worth_a_line() -> None:
    lines: list[str] = []
    LineWatcher(lines.append, as_json=False).end_file("x", "present")
    assert lines == []


def test_a_bar_for_each_file_and_one_for_the_whole() -> None:
    bars = Progress(console=Console(file=io.StringIO()), disable=True)
    watcher = BarWatcher(bars)
    watcher.start_file("$MODELS_DIR/a", 100, 0)
    watcher.start_file("$MODELS_DIR/b", 300, 100)
    watcher.advance_file("$MODELS_DIR/b", 50)
    tasks = {task.description: (task.completed, task.total) for task in bars.tasks}
    assert tasks == {"all": (150, 400), "a": (0, 100), "b": (150, 300)}


def test_a_file_that_begins_again_counts_once() -> None:
    bars = Progress(console=Console(file=io.StringIO()), disable=True)
    watcher = BarWatcher(bars)
    watcher.start_file("a", 100, 0)
    watcher.advance_file("a", 60)
    watcher.start_file("a", 100, 0)
    watcher.advance_file("a", 10)
    assert {task.description: task.completed for task in bars.tasks} == {"all": 10, "a": 10}
