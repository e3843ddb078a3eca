"""Outputs in a folder: by their names, whole, none replaced, none outside."""

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from comfypin.outputs.errors import FolderUnusable, OutputChanged, OutputNotWritten, OutputUnreadable
from comfypin.outputs.folder import FileSink, FolderSink
from comfypin.outputs.inline import InlineSink
from tests.support.outputs import FACTS, an_output


async def test_an_output_is_written_by_its_name_and_subfolder(tmp_path: Path) -> None:
    output = an_output(tmp_path / "spool", b"one", filename="cat.png", subfolder="2025/cats")
    (delivery,) = await FolderSink(tmp_path / "out").deliver(FACTS, (output,))
    assert delivery.uri == str(tmp_path / "out/2025/cats/cat.png")
    assert Path(delivery.uri).read_bytes() == b"one"


async def test_outputs_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    outputs = tuple(an_output(tmp_path / "spool", b"same", index=index) for index in range(3))
    deliveries = await FolderSink(tmp_path / "out").deliver(FACTS, outputs)
    assert [Path(str(delivery.uri)).name for delivery in deliveries] == ["a.png", "a-2.png", "a-3.png"]


async def test_what_lies_in_the_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "cat_00001_.png").write_bytes(b"older")
    output = an_output(tmp_path / "spool", b"newer", filename="cat_00001_.png")
    (delivery,) = await FolderSink(tmp_path).deliver(FACTS, (output,))
    assert delivery.uri == str(tmp_path / "cat_00002_.png")
    assert (tmp_path / "cat_00001_.png").read_bytes() == b"older"


async def test_the_same_delivery_again_gives_the_same_places(tmp_path: Path) -> None:
    outputs = (
        an_output(tmp_path / "spool", b"one"),
        an_output(tmp_path / "spool", b"one", index=1),
        an_output(tmp_path / "spool", b"two", index=2),
    )
    sink = FolderSink(tmp_path / "out")
    assert await sink.deliver(FACTS, outputs) == await sink.deliver(FACTS, outputs)
    assert len(list((tmp_path / "out").iterdir())) == 3


async def test_a_hostile_name_stays_in_the_folder(tmp_path: Path) -> None:
    output = an_output(tmp_path / "spool", b"x", filename="../../../evil", subfolder="/etc")
    (delivery,) = await FolderSink(tmp_path / "out").deliver(FACTS, (output,))
    assert delivery.uri == str(tmp_path / "out/etc/evil")


async def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/sub").symlink_to(tmp_path / "elsewhere")
    output = an_output(tmp_path / "spool", b"x", subfolder="sub")
    with pytest.raises(OutputNotWritten, match="link"):
        await FolderSink(tmp_path / "out").deliver(FACTS, (output,))
    assert not list((tmp_path / "elsewhere").iterdir())


async def test_bytes_that_changed_since_they_were_hashed_are_not_delivered(tmp_path: Path) -> None:
    output = an_output(tmp_path / "spool", b"hashed")
    output.path.write_bytes(b"other!")
    with pytest.raises(OutputChanged):
        await FolderSink(tmp_path / "out").deliver(FACTS, (output,))
    assert not list((tmp_path / "out").iterdir())


async def test_an_output_that_is_gone_is_named(tmp_path: Path) -> None:
    output = an_output(tmp_path / "spool", b"x", filename="cat.png")
    output.path.unlink()
    with pytest.raises(OutputUnreadable, match=r"cat\.png of node 9"):
        await FolderSink(tmp_path / "out").deliver(FACTS, (output,))


async def test_nothing_but_the_outputs_is_left_in_the_folder(tmp_path: Path) -> None:
    await FolderSink(tmp_path / "out").deliver(FACTS, (an_output(tmp_path / "spool", b"x"),))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


async def test_a_file_is_replaced_and_further_outputs_lie_beside_it(tmp_path: Path) -> None:
    wanted = tmp_path / "picture.png"
    wanted.write_bytes(b"older")
    first = an_output(tmp_path / "spool", b"one")
    second = replace(an_output(tmp_path / "spool", b"two", index=1), filename="b.webp")
    deliveries = await FileSink(wanted).deliver(FACTS, (first, second))
    assert [delivery.uri for delivery in deliveries] == [str(wanted), str(tmp_path / "picture-2.webp")]
    assert wanted.read_bytes() == b"one"
    assert (tmp_path / "picture-2.webp").read_bytes() == b"two"


def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(FolderUnusable, match="it is a folder"):
        FileSink.open_usable(tmp_path)


def test_a_file_in_the_place_of_a_folder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderUnusable, match="a file is in the way"):
        FolderSink.open_usable(tmp_path / "file")
    with pytest.raises(FolderUnusable, match="a file is in the way"):
        FolderSink.open_usable(tmp_path / "file" / "below")


def test_a_folder_that_takes_no_files_is_refused_before_anything_runs() -> None:
    with pytest.raises(FolderUnusable, match="/proc/self/nothing"):
        FolderSink.open_usable(Path("/proc/self/nothing"))


async def test_inline_outputs_are_their_bytes_in_base64(tmp_path: Path) -> None:
    outputs = (an_output(tmp_path, b"one"), an_output(tmp_path, bytes(range(256)) * 8192, index=1))
    small, big = await InlineSink().deliver(FACTS, outputs)
    assert small.data_base64 == "b25l"
    assert base64.b64decode(big.data_base64 or "") == outputs[1].path.read_bytes()
