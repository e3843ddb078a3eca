"""Workflows of an image by name."""

from pathlib import Path

import pytest

from comfypin.jobs.workflow_library import WorkflowLibrary
from comfypin.workflow.errors import WorkflowNotFound


@pytest.mark.parametrize("name", ["x" * 3000, "é" * 200, "a\x00b", "..", ""])
def test_a_name_that_no_file_can_have_is_not_found(name: str, tmp_path: Path) -> None:
    with pytest.raises(WorkflowNotFound):
        WorkflowLibrary([tmp_path]).find_path(name)
