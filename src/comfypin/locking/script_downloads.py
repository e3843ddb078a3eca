"""Finds what an install.py downloads, by reading it: such bytes are in no lock (pure)."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

# The last part of a call's name says it, whatever it was imported as.
_DOWNLOADS = re.compile(
    r"urlopen|urlretrieve|hf_hub_download|snapshot_download|from_pretrained|clone_from|load_state_dict_from_url"
    r"|load_file_from_url|\w*download\w*"
)
_HTTP_CALLS = re.compile(r"(?:requests|httpx|session|client|urllib3|aiohttp)\.(?:get|post|stream|request)")
# Programs that a script starts, as one text or as a list of words.
_PROGRAMS = re.compile(
    r"\b(?:git(?:\.exe)?\s+(?:clone|lfs\s+pull|submodule)|wget|curl|aria2c|huggingface-cli\s+download)\b"
)
_ADDRESS = re.compile(r"https?://[^\s\"'<>{}]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptDownload:
    """A line of an install script that fetches something: what it calls, and the address if the line has it."""

    line: int
    call: str
    address: str | None = None

    def __str__(self) -> str:
        return f"line {self.line}: {self.call}{f' of {self.address}' if self.address else ''}"


def find_downloads(script: bytes) -> tuple[ScriptDownload, ...]:
    """Return the downloads of a script, by line; pip's are left out, because realize holds them to the lock."""
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return tuple(_find_in_text(script.decode(errors="replace")))
    called_downloads = (
        download for node in ast.walk(tree) if isinstance(node, ast.Call) and (download := _read_call(node))
    )
    return tuple(sorted(called_downloads, key=lambda download: (download.line, download.call)))


def _read_call(call: ast.Call) -> ScriptDownload | None:
    function_name = _dotted_name(call.func)
    texts = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    address = next((match[0] for argument_text in texts if (match := _ADDRESS.search(argument_text))), None)
    if _DOWNLOADS.fullmatch(function_name.rpartition(".")[2]) or _HTTP_CALLS.search(function_name):
        return ScriptDownload(line=call.lineno, call=function_name, address=address)
    started = _PROGRAMS.search(" ".join(texts)) if _starts_programs(function_name) else None
    return None if started is None else ScriptDownload(line=call.lineno, call=started[0], address=address)


def _starts_programs(function_name: str) -> bool:
    return function_name.startswith("subprocess.") or function_name in {
        "os.system",
        "os.popen",
        "run",
        "call",
        "check_call",
        "Popen",
    }


def _dotted_name(function: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if isinstance(function, ast.Name):
        parts.append(function.id)
    return ".".join(reversed(parts))


def _find_in_text(script_text: str) -> Iterator[ScriptDownload]:
    """Yield what looks like a download in a script that this Python cannot parse."""
    for number, line in enumerate(script_text.splitlines(), start=1):
        code = line.partition("#")[0]
        if program_match := _PROGRAMS.search(code) or re.search(
            r"\b(?:urlopen|urlretrieve|\w*download\w*)(?=\()", code
        ):
            address = _ADDRESS.search(line)
            yield ScriptDownload(line=number, call=program_match[0], address=address[0] if address else None)
