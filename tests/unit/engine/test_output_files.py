"""Files of a prompt on the engine's disk: reported, found by the submission's mark, or said to be elsewhere."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comfypin.engine.cleanup import PreviewKeeper
from comfypin.engine.client import HttpEngine
from comfypin.engine.errors import OutputOutside
from comfypin.engine.host import EngineAddress, LocalFolders
from comfypin.engine.http_transport import parse_engine_url
from comfypin.engine.interface import Prompt, PromptOutputs
from comfypin.engine.output_files import find_unreported, locate_file
from comfypin.engine.prompt_history import ReportedFile
from comfypin.engine.remote import RemoteHost
from comfypin.workflow.filename_mark import SubmissionMark
from comfypin.workflow.graph import ApiGraph, ApiLink, ApiNode
from tests.support.fake_comfyui import Canned, fake_comfyui

MARK = SubmissionMark.for_submission("one submission")
GRAPH = ApiGraph(
    nodes={
        "1": ApiNode(id="1", class_type="EmptyImage", inputs={}),
        "2": ApiNode(
            id="2", class_type="Saver", inputs={"filename_prefix": MARK.add_to_prefix("od/cat"), "x": ApiLink("1", 0)}
        ),
        "3": ApiNode(id="3", class_type="Other", inputs={"filename_prefix": MARK.add_to_prefix("dog")}),
    }
)


@pytest.fixture
def folders(tmp_path: Path) -> LocalFolders:
    made = LocalFolders(input=tmp_path / "input", output=tmp_path / "output", temp=tmp_path / "temp")
    for folder in (made.input, made.output, made.temp):
        folder.mkdir()
    return made


def write(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def reported(filename: str, subfolder: str = "", **changes: Any) -> ReportedFile:
    return ReportedFile(
        **{"node_id": "2", "key": "images", "filename": filename, "subfolder": subfolder, "folder": "output", **changes}
    )


async def outputs_of(folders: LocalFolders | None, said: dict[str, Any]) -> PromptOutputs:
    """What the client makes of a prompt whose nodes reported this."""
    async with (
        fake_comfyui(reports=said) as fake,
        aiohttp.ClientSession() as session,
    ):
        fake.say_next("GET /view", *[Canned(400, b"")] * 4)
        engine = HttpEngine(RemoteHost(EngineAddress(url=parse_engine_url(fake.url), folders=folders)), session)
        prompt = Prompt(prompt_id="8c1f9b4e-98a5-4a0f-9f7e-0d3c6f1b2a3c", graph=GRAPH, mark=MARK.text)
        try:
            await engine.submit(prompt)
            [event async for event in engine.events(prompt.prompt_id)]
            found = await engine.outputs(prompt.prompt_id)
            for file in found.files:
                [chunk async for chunk in file.read()]
            return found
        finally:
            await engine.close()


# -- Where a reported file lies -----------------------------------------------------------------------------------


def test_a_name_below_the_output_folder_is_found(folders: LocalFolders) -> None:
    path = write(folders.output / "od" / "a.png")
    assert locate_file(folders, reported("a.png", "od")) == path


def test_an_absolute_name_inside_the_output_folder_is_found(folders: LocalFolders) -> None:
    path = write(folders.output / "od" / "a.png")
    assert locate_file(folders, reported(str(path), "od")) == path
    assert locate_file(folders, reported("a.png", str(path.parent))) == path


def test_a_folder_with_dots_that_stays_inside_is_found(folders: LocalFolders) -> None:
    path = write(folders.output / "a.png")
    assert locate_file(folders, reported("a.png", "../output")) == path
    assert locate_file(folders, reported("a.png", "/")) == path


@pytest.mark.parametrize("name, subfolder", [("secret", "/etc"), ("/etc/secret", ""), ("secret", ".."), ("", "")])
def test_what_lies_outside_is_not_found(name: str, subfolder: str, folders: LocalFolders) -> None:
    write(folders.output.parent / "secret")
    assert locate_file(folders, reported(name, subfolder)) is None


def test_a_link_out_of_the_folder_is_not_followed(folders: LocalFolders) -> None:
    (folders.output / "link.png").symlink_to(write(folders.output.parent / "secret"))
    assert locate_file(folders, reported("link.png")) is None


# -- What nobody reported -----------------------------------------------------------------------------------------


def test_a_file_with_the_mark_that_no_node_reported_is_found_with_its_node(folders: LocalFolders) -> None:
    write(folders.output / f"{MARK.text}dog_00001_.png")
    write(folders.output / "od" / f"{MARK.text}cat" / "0001.png")
    write(folders.output / "another_00001_.png")
    found = find_unreported(folders, MARK.text, GRAPH, ())
    assert [(file.node_id, file.full_name) for file in found.files] == [
        ("3", f"{MARK.text}dog_00001_.png"),
        ("2", f"od/{MARK.text}cat/0001.png"),
    ]
    assert found.companions == ()


def test_what_a_node_made_on_the_way_to_the_reported_file_is_a_companion(folders: LocalFolders) -> None:
    stem = f"{MARK.text}cat_00001"
    for name in (f"{stem}.png", f"{stem}.mp4", f"{stem}-audio.mp4"):
        write(folders.output / "od" / name)
    found = find_unreported(folders, MARK.text, GRAPH, [reported(f"{stem}-audio.mp4", "od")])
    assert found.files == ()
    assert [path.name for path in found.companions] == [f"{stem}.mp4", f"{stem}.png"]


def test_another_number_is_no_companion(folders: LocalFolders) -> None:
    for name in ("cat_1.png", "cat_10.png"):
        write(folders.output / "od" / f"{MARK.text}{name}")
    found = find_unreported(folders, MARK.text, GRAPH, [reported(f"{MARK.text}cat_10.png", "od")])
    assert [file.filename for file in found.files] == [f"{MARK.text}cat_1.png"]


def test_marked_files_in_the_temp_folder_are_only_removed(folders: LocalFolders) -> None:
    path = write(folders.temp / f"{MARK.text}cat_00001.png")
    found = find_unreported(folders, MARK.text, GRAPH, ())
    assert (found.files, found.companions) == ((), (path,))


async def test_a_silent_save_is_delivered_with_a_warning_under_the_users_name(folders: LocalFolders) -> None:
    write(folders.output / f"{MARK.text}dog_00001_.png", b"woof")
    found = await outputs_of(folders, {"2": {"text": ["said something"]}})
    assert [file.filename for file in found.files] == [f"{MARK.text}dog_00001_.png"]
    assert found.warnings == (
        "Node 3 (Other) saved dog_00001_.png without reporting it; the file was found by its name and is delivered.",
    )


async def test_a_save_node_of_which_nothing_was_heard_is_named(folders: LocalFolders) -> None:
    found = await outputs_of(folders, {"2": {"text": ["said something"]}})
    [warning] = found.warnings
    assert warning.startswith("Node 3 (Other) reported no output, and no file of it was found")


async def test_a_path_as_text_is_found_by_its_name_and_told_without_our_folders(folders: LocalFolders) -> None:
    path = write(folders.output / "od" / f"{MARK.text}cat_00001.png")
    found = await outputs_of(folders, {"2": {"files": [str(path)]}, "3": {"text": ["x"]}})
    assert [file.filename for file in found.files] == [path.name]
    assert found.texts["2"] == ("od/cat_00001.png",)
    assert len(found.warnings) == 1


async def test_a_file_that_is_not_where_its_node_says_is_found_by_its_name(folders: LocalFolders) -> None:
    path = write(folders.output / "od" / f"{MARK.text}cat_00001.png")
    item = {"filename": path.name, "subfolder": "../output", "type": "output"}
    found = await outputs_of(folders, {"2": {"images": [item]}, "3": {"text": ["x"]}})
    assert [(file.subfolder, file.path) for file in found.files] == [("od", path)]


async def test_what_is_gone_is_named_without_the_mark(folders: LocalFolders) -> None:
    item = {"filename": f"{MARK.text}cat_00001.png", "subfolder": "../x", "type": "output"}
    with pytest.raises(OutputOutside, match=r"saved \.\./x/cat_00001\.png"):
        await outputs_of(folders, {"2": {"images": [item]}, "3": {"text": ["x"]}})


async def test_a_path_as_text_that_leads_elsewhere_is_said_to(folders: LocalFolders) -> None:
    found = await outputs_of(folders, {"2": {"text": ["/data/out/a.png"]}, "3": {"text": ["not/a/path.png", "/x y"]}})
    [warning] = found.warnings
    assert "Node 2 (Saver) names the file /data/out/a.png in a text" in warning


@pytest.mark.parametrize("local", [True, False], ids=["own", "remote"])
async def test_a_path_as_text_is_said_without_our_mark(local: bool, folders: LocalFolders) -> None:
    texts = {"2": {"text": [f"/data/out/{MARK.text}a.png"]}, "3": {"text": ["x"]}}
    [warning] = (await outputs_of(folders if local else None, texts)).warnings
    assert "the file /data/out/a.png in a text" in warning
    assert ("filename_prefix" in warning) is local


# -- What is said of files elsewhere ------------------------------------------------------------------------------


@pytest.mark.parametrize("local", [True, False], ids=["own", "remote"])
@pytest.mark.parametrize(
    "item",
    [
        {"filename": "a.png", "subfolder": "/data/elsewhere", "type": "output"},
        {"filename": "/data/elsewhere/a.png", "subfolder": "", "type": "output"},
        {"filename": "D:\\elsewhere\\a.png", "subfolder": "", "type": "output"},
        {"filename": "a.png", "subfolder": "../elsewhere", "type": "output"},
    ],
)
async def test_a_file_outside_is_said_to_be_outside(item: dict[str, str], local: bool, folders: LocalFolders) -> None:
    with pytest.raises(OutputOutside, match=r"Node 2 saved .*elsewhere.a\.png, which is outside ComfyUI's output"):
        await outputs_of(folders if local else None, {"2": {"images": [item]}, "3": {"text": ["x"]}})


# -- Previews -----------------------------------------------------------------------------------------------------


def test_previews_of_the_last_prompts_stay_and_older_ones_go() -> None:
    keeper = PreviewKeeper(max_count=2)
    a, b, c = (Path(name) for name in "abc")
    assert keeper.add_prompt([a, b]) == ()
    assert keeper.add_prompt([b]) == ()
    assert keeper.add_prompt([c]) == (a,)
    assert keeper.add_prompt([c]) == (b,)


async def test_a_preview_that_was_removed_is_not_reported_again(folders: LocalFolders) -> None:
    item = {"filename": "gone.png", "subfolder": "", "type": "temp"}
    found = await outputs_of(folders, {"2": {"images": [item]}, "3": {"text": ["x"]}})
    assert found.files == ()
    assert found.warnings == (
        "Temporary files of an earlier job are gone, but the engine's cache reports them again: 1.",
    )
