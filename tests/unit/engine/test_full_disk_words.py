"""What is said of a node that found the engine's disk full: the path only to whoever has a command line there."""

from pathlib import Path

from comfypin.engine.client import node_failure
from comfypin.engine.errors import NodeFailed
from comfypin.engine.host import LocalFolders
from comfypin.engine.prompt_history import Raised
from comfypin.jobs.result_json import failure_to_json

FOLDERS = LocalFolders(
    input=Path("/srv/engine/input"), output=Path("/srv/engine/output"), temp=Path("/srv/engine/temp")
)


def failure_of(message: str) -> NodeFailed:
    raised = Raised(node_id="9", class_type="SaveImage", exception_type="OSError", message=message, traceback=())
    return node_failure(raised, mark=None, folders=FOLDERS)


def test_a_jobs_result_shows_no_path_of_the_server() -> None:
    failure = failure_of("[Errno 28] No space left on device")
    result = str(failure_to_json(failure))
    assert "The engine's disk is full" in result
    assert "/srv" not in result
    assert "TMPDIR" not in result


def test_a_command_names_the_disk() -> None:
    failure = failure_of("[Errno 28] No space left on device")
    assert failure.command_message.endswith(
        "The engine writes below /srv/engine: make room on that disk, or set TMPDIR to another."
    )


def test_another_failure_says_nothing_of_disks() -> None:
    failure = failure_of("out of ideas")
    assert "disk" not in failure.command_message
