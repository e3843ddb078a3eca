"""Numbers in outputs' names go on from job to job, each prefix by itself."""

from dataclasses import replace
from pathlib import Path

from comfypin.jobs.output_numbers import OutputNumbers
from comfypin.outputs.interface import Delivery
from tests.support.outputs import an_output


def delivered(folder: Path, *names: str, subfolder: str = "") -> tuple[Delivery, ...]:
    return tuple(Delivery(output=an_output(folder, b"x", filename=name, subfolder=subfolder)) for name in names)


def names_after(numbers: OutputNumbers, deliveries: tuple[Delivery, ...]) -> list[str]:
    return [delivery.output.filename for delivery in numbers.count_up(deliveries)]


def test_each_prefix_of_each_folder_counts_by_itself(tmp_path: Path) -> None:
    numbers = OutputNumbers()
    assert names_after(numbers, delivered(tmp_path, "a_00001_.png", "a_00002_.png")) == ["a_00001_.png", "a_00002_.png"]
    assert names_after(numbers, delivered(tmp_path, "a_00001_.png", "b_00001.mp4")) == ["a_00003_.png", "b_00001.mp4"]
    assert names_after(numbers, delivered(tmp_path, "a_00001_.png", subfolder="s")) == ["a_00001_.png"]
    assert names_after(numbers, delivered(tmp_path, "b_00001-audio.mp4")) == ["b_00002-audio.mp4"]


def test_a_name_without_a_number_stays(tmp_path: Path) -> None:
    numbers = OutputNumbers()
    for _ in range(2):
        names = ["plain.png", "a_0001.png", "00001.png", "x_1234567890_.png"]
        assert names_after(numbers, delivered(tmp_path, *names)) == names


def test_previews_keep_their_names(tmp_path: Path) -> None:
    (preview,) = delivered(tmp_path, "p_00001_.png")
    previews = (Delivery(output=replace(preview.output, temporary=True)),)
    numbers = OutputNumbers()
    assert [names_after(numbers, previews) for _ in range(2)] == [["p_00001_.png"]] * 2


def test_a_number_grows_beyond_five_digits(tmp_path: Path) -> None:
    numbers = OutputNumbers()
    names_after(numbers, delivered(tmp_path, "a_99999_.png"))
    assert names_after(numbers, delivered(tmp_path, "a_00001_.png")) == ["a_100000_.png"]
