"""Completion: the scripts know what the parsers know, and bash, zsh and fish complete by them."""

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from comfypin.cli.completion import read_commands
from comfypin.cli.main import NOUNS, main

_IN_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_comfypin
echo "${COMPREPLY[@]}"
"""
# Control-X prints the line as the key Tab left it.
_ZSH_SETUP = """
PROMPT='ready''> '; fpath+={folder}; autoload -Uz compinit; compinit -u -D; \
tell() {{ print -r -- "[$BUFFER]" }}; zle -N tell; bindkey '^X' tell
"""


def complete_in_bash(script: Path, words: list[str]) -> str:
    command = ["bash", "-c", _IN_BASH, "bash", str(script), "comfypin", *words]
    return subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=True).stdout.strip()


def complete_in_zsh(script: Path, words: list[str]) -> str:
    """Return the last word after Tab in a zsh on a terminal; its completion works nowhere else."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(script.parent)
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "HOME": str(script.parent)})
    try:
        os.write(terminal, _ZSH_SETUP.format(folder=script.parent).strip().encode() + b"\n")
        read_until(terminal, b"ready> ")
        os.write(terminal, " ".join(["comfypin", *words]).encode() + b"\t\x18")
        line = read_until(terminal, b"]").decode().partition("]")[0]
    finally:
        os.close(terminal)
        os.waitpid(process, 0)
    return line.split()[-1]


def read_until(terminal: int, mark: bytes) -> bytes:
    """Read to the mark; a zsh that ends before it is an OSError."""
    read = b""
    while mark not in read:
        read += os.read(terminal, 4096)
    return read


def complete_in_fish(script: Path, words: list[str]) -> str:
    line = " ".join(["comfypin", *words])
    command = ["fish", "--no-config", "-c", "source $argv[1]; complete -C $argv[2]", str(script), line]
    environment = {**os.environ, "HOME": str(script.parent)}
    ran = subprocess.run(command, cwd=script.parent, env=environment, capture_output=True, text=True, check=True)
    # A candidate a line, with its summary behind a tab.
    return " ".join(candidate.partition("\t")[0] for candidate in ran.stdout.splitlines())


_SHELLS = {
    "bash": ("comfypin.bash", complete_in_bash),
    "zsh": ("_comfypin", complete_in_zsh),
    "fish": ("comfypin.fish", complete_in_fish),
}
shells = pytest.mark.parametrize(
    "shell",
    [
        "bash",
        pytest.param("zsh", marks=pytest.mark.needs("zsh")),
        pytest.param("fish", marks=pytest.mark.needs("fish")),
    ],
)
Complete = Callable[[list[str]], str]


@pytest.fixture
def complete(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Complete:
    """Return what completes the last of some words in one shell, by the script that is made for it."""
    file_name, complete_in_shell = _SHELLS[shell]
    assert main(["completion", shell]) == 0
    script = tmp_path / file_name
    script.write_text(capsys.readouterr().out)
    (tmp_path / "cat.json").touch()
    return lambda words: complete_in_shell(script, words)


@shells
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
        (["run", "--workflow", "ca"], "cat.json"),
    ],
)
def test_a_shell_completes(complete: Complete, words: list[str], found: str) -> None:
    assert complete(words) == found


@shells
def test_a_shell_finds_no_fault_in_its_script(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", shell]) == 0
    path = tmp_path / "script"
    path.write_text(capsys.readouterr().out)
    assert subprocess.run([shell, "-n", str(path)], capture_output=True, check=False).returncode == 0


def test_every_command_and_its_flags_are_known() -> None:
    commands = {command.path: command for command in read_commands()}
    assert commands.keys() >= {"", *NOUNS, "lock show", "runpod volume push"}
    assert "--comfy-home" in {name for flag in commands["run"].flags for name in flag.names}
