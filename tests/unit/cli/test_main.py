"""The command line itself: groups and examples in --help, the nearest right word for a wrong one, topics."""

import pytest

from comfypin.cli.main import NOUNS, main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--workfow", "x.json"], "There is no flag --workfow; did you mean --workflow?"),
        (["lokc"], "There is no command 'lokc'; did you mean lock?"),
        (["lock", "shwo"], "there is no 'shwo'; did you mean show?"),
        (["lock", "show", "--jsno"], "There is no flag --jsno; did you mean --json?"),
        (["run", "--workflow", "x.json", "--output", "fiel"], "there is no 'fiel'; did you mean file?"),
        (["help", "storge"], "There is no topic 'storge'; did you mean storage?"),
    ],
)
def test_a_misspelt_word_is_told_the_nearest(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 64
    assert said in capsys.readouterr().err


def test_a_value_that_looks_like_a_flag_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--workflow", "nosuch.json", "--output", "file", "--set=1.text=--workfow"]) != 64
    assert "did you mean --workflow" not in capsys.readouterr().err


def test_help_has_groups_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {noun} " in told for noun in NOUNS)
    assert "run workflows:" in told
    assert "examples:\n  comfypin demo" in told


def test_help_of_a_page_and_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "storage"]) == 0
    english = capsys.readouterr().out
    assert main(["help", "storage", "--ru"]) == 0
    russian = capsys.readouterr().out
    assert main(["help", "lock", "show"]) == 0
    assert (english[0], russian[0]) == ("#", "#")
    assert english != russian
    assert "usage: comfypin lock show" in capsys.readouterr().out


def test_help_of_a_tool_that_people_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "worker-comfyui"]) == 0
    english = capsys.readouterr().out
    assert main(["help", "coming-from/worker-comfyui"]) == 0
    assert english == capsys.readouterr().out
    assert english.startswith("# Coming from worker-comfyui")
    assert main(["help", "worker-comfyui", "--ru"]) == 0
    assert capsys.readouterr().out.startswith("# Переход с worker-comfyui")


def test_an_empty_name_is_said_to_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "show", ""]) == 10
    assert "is the variable that should hold it unset?" in capsys.readouterr().err


def test_a_lock_is_named_with_or_without_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "show", "demo"]) == 0
    without = capsys.readouterr().out
    assert main(["lock", "show", "--lock", "demo"]) == 0
    assert capsys.readouterr().out == without
    assert main(["lock", "show", "demo", "--lock", "demo"]) == 64


def test_verbose_names_the_failure_for_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lock", "show", "nosuch", "--verbose"]) == 10
    assert capsys.readouterr().err.endswith("  comfypin explain LockNotFound says what helps\n")
