"""Who saved which file on an engine, and how long files stay."""

from pathlib import Path

from comfypin.engine.interface import Prompt
from comfypin.engine.prompt_history import ReportedFile
from comfypin.engine.saved_files import SavedFiles
from tests.support.graphs import graph, node

MARK = "cp0123456789abcdef_"


def a_prompt(name: str, *, color: int = 1, owner: str = "me") -> Prompt:
    return Prompt(
        prompt_id=name,
        graph=graph(node("1", "EmptyImage", color=color)),
        mark=MARK,
        extra_data={"extra_pnginfo": {"workflow": owner}},
    )


def saved(filename: str = "Pic_00001_.png") -> ReportedFile:
    return ReportedFile(node_id="2", key="images", filename=filename, subfolder="", folder="output")


def present(folder: Path, *names: str, size: int = 1) -> dict[str, Path]:
    for name in names:
        (folder / name).write_bytes(b"x" * size)
    return {name: folder / name for name in names}


CACHED, RAN = frozenset({"2"}), frozenset[str]()


def test_a_cached_file_of_the_same_prompt_is_the_prompts_own(tmp_path: Path) -> None:
    files, there = SavedFiles(), present(tmp_path, "Pic_00001_.png")
    assert files.note_files(a_prompt("a"), [saved()], RAN, there) == frozenset()
    assert files.note_files(a_prompt("b"), [saved()], CACHED, there) == frozenset()


def test_a_cached_file_of_a_prompt_with_other_metadata_is_foreign(tmp_path: Path) -> None:
    files, there = SavedFiles(), present(tmp_path, "Pic_00001_.png")
    files.note_files(a_prompt("a"), [saved()], RAN, there)
    assert files.note_files(a_prompt("b", owner="you"), [saved()], CACHED, there) == {"2"}
    assert files.note_files(a_prompt("c", color=2), [saved()], CACHED, there) == {"2"}


def test_a_cached_file_of_somebody_else_or_that_is_gone_is_foreign(tmp_path: Path) -> None:
    files = SavedFiles()
    assert files.note_files(a_prompt("a"), [saved()], CACHED, present(tmp_path, "Pic_00001_.png")) == {"2"}
    files.note_files(a_prompt("b"), [saved()], RAN, present(tmp_path, "Pic_00001_.png"))
    assert files.note_files(a_prompt("c"), [saved()], CACHED, {}) == {"2"}


def test_of_an_engine_elsewhere_nothing_cached_is_believed() -> None:
    files = SavedFiles()
    files.note_files(a_prompt("a"), [saved()], RAN, None)
    assert files.note_files(a_prompt("a"), [saved()], CACHED, None) == {"2"}


def test_marked_files_are_not_looked_at(tmp_path: Path) -> None:
    marked = saved(f"{MARK}Pic_00001_.png")
    assert SavedFiles().note_files(a_prompt("a"), [marked], CACHED, present(tmp_path, marked.filename)) == frozenset()


def test_files_stay_until_they_are_delivered_however_many_follow(tmp_path: Path) -> None:
    files = SavedFiles(kept_prompts=1)
    names = [f"Pic_{number:05}_.png" for number in range(1, 4)]
    for name in names:
        files.note_files(a_prompt(name), [saved(name)], RAN, present(tmp_path, name))
    assert files.release_files(names[1]) == ()
    assert files.release_files(names[2]) == (tmp_path / names[1],)
    assert files.kept_files() == {tmp_path / names[0], tmp_path / names[2]}


def test_large_files_go_first_when_they_are_too_many_bytes(tmp_path: Path) -> None:
    files = SavedFiles(kept_bytes=100)
    for name in ("a_00001_.png", "b_00001_.png"):
        files.note_files(a_prompt(name), [saved(name)], RAN, present(tmp_path, name, size=60))
    assert files.release_files("a_00001_.png") == ()
    assert files.release_files("b_00001_.png") == (tmp_path / "a_00001_.png",)


def test_a_file_that_is_being_delivered_again_stays(tmp_path: Path) -> None:
    files, there = SavedFiles(kept_prompts=0), present(tmp_path, "Pic_00001_.png")
    files.note_files(a_prompt("a"), [saved()], RAN, there)
    files.note_files(a_prompt("b"), [saved()], CACHED, there)
    assert files.release_files("a") == ()
    assert files.release_files("b") == (tmp_path / "Pic_00001_.png",)
