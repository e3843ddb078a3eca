"""The environment is read once, by the command line; whoever else needs a variable is handed its value."""

import ast
from pathlib import Path

import pytest

import comfypin

PACKAGE = Path(comfypin.__file__).parent
READERS = {
    # The command line itself: the environment becomes `Settings` here.
    "cli/main.py",
    "cli/entry.py",
    # The stop of a pod that has done its work: its own last command, after the other one has ended.
    "cli/self_stop.py",
    # What child processes inherit.
    "tools/git_process.py",
    "tools/uv.py",
    "image/program_output.py",
    "image/docker.py",
    # Notes of what children said hold only as long as they would inherit the same.
    "env/interpreter.py",
    "env/cache/probe_notes.py",
    # Variables that a library reads, set before it is imported.
    "runpod/sdk_import.py",
    "storage/gcs_client.py",
}


def reads_environment(source: str) -> bool:
    """Return whether a module touches the environment of the process."""
    names = {"environ", "environb", "getenv", "putenv"}
    nodes = list(ast.walk(ast.parse(source)))
    attributes = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    imported = {
        alias.name for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "os" for alias in node.names
    }
    return bool(names & (attributes | imported))


def test_nothing_but_the_command_line_reads_the_environment() -> None:
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if reads_environment(path.read_text())}
    assert found == READERS


@pytest.mark.parametrize(
    "source",
    ["import os\nos.environ['A']", "import os\nos.getenv('A')", "from os import environ", "import os\nf(os.environ)"],
)
def test_a_reader_is_found(source: str) -> None:
    assert reads_environment(source)
