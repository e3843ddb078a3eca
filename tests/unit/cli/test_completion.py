"""Completion: the scripts know what the parsers know, and shells can read them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from comfypin.cli.completion import read_commands
from comfypin.cli.main import NOUNS, main

_COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_comfypin
echo "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Path:
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "comfypin.bash"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["lo"], "lock"),
        (["lock", "sho"], "show"),
        (["lock", "show", "--js"], "--json"),
        (["run", "--output", "fi"], "file"),
        (["runpod", "volume", "pus"], "push"),
        (["completion", "z"], "zsh"),
        (["run", "--lock", "demo", "--workf"], "--workflow"),
    ],
)
def test_bash_completes(script: Path, words: list[str], found: str, tmp_path: Path) -> None:
    command = ["bash", "-c", _COMPLETE, "bash", str(script), "comfypin", *words]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip() == found


def test_bash_completes_the_value_of_a_flag_with_a_file(script: Path, tmp_path: Path) -> None:
    (tmp_path / "cat.json").touch()
    command = ["bash", "-c", _COMPLETE, "bash", str(script), "comfypin", "run", "--workflow", "ca"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "cat.json\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_that_is_here_can_read_its_script(
    shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["completion", shell]) == 0
    path = tmp_path / "script"
    path.write_text(capsys.readouterr().out)
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not here")
    assert subprocess.run([program, "-n", str(path)], capture_output=True, check=False).returncode == 0


def test_every_command_and_its_flags_are_known() -> None:
    commands = {command.path: command for command in read_commands()}
    assert commands.keys() >= {"", *NOUNS, "lock show", "runpod volume push"}
    assert "--comfy-home" in {name for flag in commands["run"].flags for name in flag.names}
