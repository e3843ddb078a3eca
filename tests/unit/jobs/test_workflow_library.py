"""Workflows of an image by name."""

from pathlib import Path

import pytest

from comfypin.jobs.workflow_library import WorkflowLibrary
from comfypin.workflow.errors import WorkflowNotFound


@pytest.mark.parametrize("name", ["x" * 3000, "é" * 200, "a\x00b", "..", ""])
def test_a_name_that_no_file_can_have_is_not_found(name: str, tmp_path: Path) -> None:
    with pytest.raises(WorkflowNotFound):
        WorkflowLibrary([tmp_path]).find_path(name)


def test_a_name_that_is_unknown_is_told_with_those_that_there_are_and_no_folder(tmp_path: Path) -> None:
    library = WorkflowLibrary([tmp_path])
    with pytest.raises(WorkflowNotFound, match="it has none: send the workflow itself"):
        library.find_path("portrait")
    for name in ("portrait.json", "video.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(WorkflowNotFound, match="did you mean portrait") as near:
        library.find_path("portrai")
    with pytest.raises(WorkflowNotFound, match="it has portrait, video") as far:
        library.find_path("zzz")
    assert str(tmp_path) not in near.value.message + far.value.message
