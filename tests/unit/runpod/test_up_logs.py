"""Logs of pods and workers as they come: events, cut lines, and what a pod that fills a volume says."""

from comfypin.runpod.up.comfyui_version import named_version, newest_releases, version_finding
from comfypin.runpod.up.fill_report import FillNews, fill_line, parse_fill_line
from comfypin.runpod.up.log_events import LogLine, parse_events


def test_an_event_is_a_line_with_an_id_to_go_on_from() -> None:
    events = ["id: 2026-01-01T00:00:00Z/1", 'data: {"ts": "t", "source": "system", "line": "started"}', ""]
    assert list(parse_events(events)) == [LogLine(id="2026-01-01T00:00:00Z/1", source="system", text="started")]


def test_comments_other_events_and_half_events_are_left_out() -> None:
    events = [": still here", "", "data: no json", "", "data: [1]", "", "id: 2", 'data: {"line": "cut off"}']
    assert list(parse_events(events)) == []


def test_what_a_fill_says_is_read_again() -> None:
    news = FillNews(phase="models", seconds=2.5, detail="3 of 3 fetched")
    assert parse_fill_line(f"2026 info {fill_line(news)}") == news
    assert parse_fill_line("comfypin-fill {broken") is None
    assert parse_fill_line("anything else") is None


def test_one_release_that_a_workflow_names_is_taken_and_two_are_not() -> None:
    assert named_version(["0.3.64"]) == "0.3.64"
    assert named_version(["0.3.64", "0.3.65"]) is None
    assert named_version(["a-commit"]) is None


def test_the_candidates_are_the_newest_releases() -> None:
    refs = ["refs/heads/master", "refs/tags/v0.3.9", "refs/tags/v0.3.64", "refs/tags/v0.33.0", "refs/tags/latest"]
    assert newest_releases(refs) == ["v0.33.0", "v0.3.64", "v0.3.9"]
    assert "ComfyUI@v0.33.0" in version_finding([], newest_releases(refs))
