"""Errors that are declared: a constructor of typed fields, a message from a template, facts for JSON."""

from pathlib import Path
from typing import Literal

import pytest

from comfypin.errors import EnvError, declare, indent_lines


@declare
class FolderTaken(EnvError):
    """A folder holds something else."""

    template = "{path} is taken by {listed}; name another {flag}."
    path: Path
    holders: tuple[str, ...]
    flag: Literal["--home", "--out-dir"] = "--home"
    _secret: str = ""

    @property
    def listed(self) -> str:
        return " and ".join(self.holders)


def test_the_message_is_the_template_with_the_facts() -> None:
    error = FolderTaken(path=Path("/a"), holders=("x", "y"))
    assert str(error) == "/a is taken by x and y; name another --home."


def test_the_facts_are_json_and_leave_out_what_is_private() -> None:
    error = FolderTaken(path=Path("/a"), holders=("x",), _secret="s")
    assert error.to_json()["facts"] == {"path": "/a", "holders": ["x"], "flag": "--home"}
    assert (error.exit_code, error.holders, error._secret) == (40, ("x",), "s")


def test_braces_in_a_fact_stay_as_they_are() -> None:
    assert "{path}" in str(FolderTaken(path=Path("{path}"), holders=()))


def test_a_field_too_many_or_too_few_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="unknown \\['colour'\\], missing \\['holders'\\]"):
        FolderTaken(path=Path("/a"), colour="red")  # type: ignore[call-arg]


def test_a_fact_that_knows_its_json_form_is_written_in_it() -> None:
    inner = FolderTaken(path=Path("/a"), holders=())

    @declare
    class Several(EnvError):
        template = "several"
        failures: tuple[EnvError, ...]

    assert Several(failures=(inner,)).to_json()["facts"] == {"failures": [inner.to_json()]}


def test_lines_beyond_the_limit_are_counted() -> None:
    assert indent_lines(["a", "b", "c"], at_most=2) == "\n  a\n  b\n  and 1 more"
    assert indent_lines([]) == ""


def test_only_a_command_says_what_to_type() -> None:
    @declare
    class Unconverted(EnvError):
        """A file in the wrong format."""

        template = "{name} must be converted."
        command_hint = "Type: convert {name}."
        name: str

    error = Unconverted(name="a.json")
    assert "Type" not in str(error.to_json())
    assert error.command_message == "a.json must be converted. Type: convert a.json."
