"""What prompts leave on a worker's disk goes: by the submission's mark, and from the temp folder between jobs."""

from pathlib import Path

import pytest

from comfypin.engine.cleanup import PromptCleanup
from comfypin.engine.host import LocalFolders
from comfypin.workflow.filename_mark import SubmissionMark

MARK, OTHER = SubmissionMark.for_submission("one submission").text, SubmissionMark.for_submission("another").text


@pytest.fixture
def folders(tmp_path: Path) -> LocalFolders:
    made = LocalFolders(input=tmp_path / "input", output=tmp_path / "output", temp=tmp_path / "temp")
    for folder in (made.input, made.output, made.temp):
        folder.mkdir()
    return made


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def there(folders: LocalFolders) -> set[str]:
    return {path.name for root in (folders.input, folders.output, folders.temp) for path in root.rglob("*.*")}


def test_all_that_bears_the_mark_goes_with_its_prompt(folders: LocalFolders) -> None:
    write(folders.output / "od" / f"{MARK}cat_1.png")
    write(folders.output / f"{MARK}clip" / "1.png")
    write(folders.temp / f"{MARK}a.png")
    write(folders.input / f"{MARK}b.png")
    (folders.output / f"{MARK}link.png").symlink_to("/etc/hostname")
    write(folders.output / f"{OTHER}dog_1.png")
    PromptCleanup().clear_prompt(folders, "1", MARK)
    assert there(folders) == {f"{OTHER}dog_1.png"}


def test_what_is_written_after_the_end_goes_with_the_next_prompt(folders: LocalFolders) -> None:
    cleanup = PromptCleanup()
    cleanup.clear_prompt(folders, "1", MARK)
    write(folders.output / f"{MARK}late.png")
    cleanup.clear_prompt(folders, "2", OTHER)
    assert there(folders) == set()


def test_a_submission_that_runs_once_more_keeps_what_it_writes(folders: LocalFolders) -> None:
    cleanup = PromptCleanup()
    cleanup.clear_prompt(folders, "1", MARK)
    cleanup.begin_prompt("2", MARK)
    write(folders.output / f"{MARK}cat.png")
    cleanup.clear_prompt(folders, "3", OTHER)
    assert there(folders) == {f"{MARK}cat.png"}


def test_unreported_files_in_temp_outlive_their_prompt_by_one_other(folders: LocalFolders) -> None:
    cleanup = PromptCleanup()
    cleanup.begin_prompt("1", MARK)
    write(folders.temp / "frames" / "0001.png")
    cleanup.clear_prompt(folders, "1", MARK)
    assert there(folders) == {"0001.png"}
    cleanup.begin_prompt("2", OTHER)
    write(folders.temp / "0002.png")
    cleanup.clear_prompt(folders, "2", OTHER)
    assert there(folders) == {"0002.png"}


def test_files_of_a_prompt_that_runs_are_never_removed(folders: LocalFolders) -> None:
    cleanup = PromptCleanup()
    cleanup.begin_prompt("slow", None)
    write(folders.temp / "slow.png")
    for number in range(5):
        cleanup.begin_prompt(str(number), None)
        cleanup.clear_prompt(folders, str(number), None)
    assert there(folders) == {"slow.png"}


def test_reported_previews_stay_while_the_engine_may_report_them_again(folders: LocalFolders) -> None:
    cleanup = PromptCleanup()
    preview = write(folders.temp / "preview.png")
    cleanup.keep_previews([preview])
    for number in range(3):
        cleanup.clear_prompt(folders, str(number), None)
    assert there(folders) == {"preview.png"}


def test_nothing_is_removed_for_debugging(folders: LocalFolders) -> None:
    cleanup = PromptCleanup(keep=True)
    write(folders.output / f"{MARK}cat.png")
    write(folders.temp / "a.png")
    for number in range(3):
        cleanup.clear_prompt(folders, str(number), MARK)
    assert there(folders) == {f"{MARK}cat.png", "a.png"}


def test_a_thousand_jobs_leave_no_more_than_one(folders: LocalFolders) -> None:
    cleanup = PromptCleanup()
    for number in range(1000):
        mark = SubmissionMark.for_submission(str(number)).text
        cleanup.begin_prompt(str(number), mark)
        write(folders.output / f"{mark}clip.png")
        write(folders.temp / f"{number}.png")
        cleanup.clear_prompt(folders, str(number), mark)
    assert there(folders) == {"999.png"}
