"""Runs beside an install, by the env's kind of Python: compiles ahead what starting ComfyUI is going to import.

It gets the site-packages folder, the name of a temporary file, and JSON lines on its standard input:
`{"unpacked": FOLDER}` for each wheel that was unpacked, and `{"comfyui": FOLDER, "first": [FILE, ...], "packages":
[NAME, ...]}` once the sources are there. From the first files on it follows the import statements that a start would
reach, nothing is executed. At the end of its input it ends. Only the standard library may be used here: this is not our
interpreter, and may be older.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import json
import marshal
import os
import queue
import re
import sys
import threading
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Imports, and what tells whether an indented one is reached by importing: only blocks like `try:` and `if` are.
_IMPORT_LINES = re.compile(
    r"^(?P<indent>[ \t]*)(?:"
    r"from[ \t]+(?P<source>[.\w]+)[ \t]+import[ \t]*(?P<names>\([^)]*\)|[^\n#;]*)"
    r"|import[ \t]+(?P<modules>[^\n#;]+)"
    r"|(?P<closed>def |class |async |@|if [\w.]*TYPE_CHECKING\b)"
    r"|(?P<open>(?:try|if|elif|else|except|finally|with|for|while)\b))",
    re.M,
)
_MODULE_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def find_imports(source: str, package: str) -> Iterator[str]:
    """Yield the modules named in the import statements that importing this module executes."""
    is_open = True
    for line in _IMPORT_LINES.finditer(source):
        if not line["indent"] and (line["closed"] or line["open"]):
            is_open = not line["closed"]
        if line["indent"] and not is_open:
            continue
        if line["modules"]:
            for name in line["modules"].split(","):
                yield name.split(" as ")[0].strip()
        elif line["source"]:
            base = _absolute_name(line["source"], package)
            if base is not None:
                yield base
                for name in re.sub(r"#[^\n]*|[()\\]", "", line["names"]).split(","):
                    if name.strip():
                        yield f"{base}.{name.split(' as ')[0].strip()}"


def _absolute_name(name: str, package: str) -> str | None:
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    parts = package.split(".")
    kept = parts[: len(parts) - dots + 1]
    return ".".join([*kept, name[dots:]] if name[dots:] else kept) if kept and kept[0] else None


class Compiler:
    """Follows imports through the folders that it was given, and compiles each module once."""

    def __init__(self, site: str, temporary: str) -> None:
        self._site = site
        self._temporary = temporary
        os.makedirs(os.path.dirname(temporary), exist_ok=True)  # noqa: PTH103, PTH120
        # Where a top-level name lies: the folder it is read from, and the one its byte-code belongs into.
        self._places: dict[str, tuple[str, str]] = {}
        # The top-level names of each distribution, and which distributions are tried first.
        self._packages: dict[str, list[str]] = {}
        self._first: set[str] = set()
        self._wanted: collections.deque[str] = collections.deque()
        self._seen: set[str] = set()
        # What waits for a top-level name, and what was made of it.
        self._waiting: dict[str, list[str]] = {}
        self._made: dict[str, list[str]] = {}

    def add_unpacked(self, folder: str) -> None:
        names = os.listdir(folder)  # noqa: PTH208
        modules = [name[:-3] if name.endswith(".py") else name for name in names if "-" not in name]
        for info in names:
            if info.endswith(".dist-info"):
                package = _normalize_name(info[: -len(".dist-info")].rpartition("-")[0])
                self._packages[package] = modules
                self._wanted.extend(modules if package in self._first else ())
        for name in modules:
            if name in self._places:
                self._leave_package(name)
            else:
                self._places[name] = (folder, self._site)
                self._wanted.extend(self._waiting.pop(name, ()))

    def _leave_package(self, name: str) -> None:
        """Leave a name to the start itself: several wheels have it, as parts of one package or as rivals for a file."""
        self._places[name] = ("", "")
        for path in self._made.pop(name, ()):
            os.unlink(path)  # noqa: PTH108

    def follow_comfyui(self, comfyui: str, first: list[str], packages: list[str]) -> None:
        for name in os.listdir(comfyui):  # noqa: PTH208
            self._places[name[:-3] if name.endswith(".py") else name] = (comfyui, comfyui)
        self._first.update(packages)
        for name in packages:
            self._wanted.extend(self._packages.get(name, ()))
        # A node's install.py may write its files anew, in the same second: only what it imports is followed.
        self._places["custom_nodes"] = ("", "")
        for path in first:
            if path.startswith("custom_nodes/"):
                self._follow_imports(_read_file(f"{comfyui}/{path}"), package="")
            else:
                self._compile_file(f"{comfyui}/{path}", f"{comfyui}/{path}", package="")

    def compile_next(self) -> bool:
        """Compile one module; return False if there is nothing to do now."""
        if not self._wanted:
            return False
        name = self._wanted.popleft()
        top = name.partition(".")[0]
        if top not in self._places:
            self._waiting.setdefault(top, []).append(name)
        elif name not in self._seen:
            self._seen.add(name)
            self._compile_module(name, *self._places[top])
        return True

    def _compile_module(self, name: str, folder: str, target: str) -> None:
        path = name.replace(".", "/")
        for found, package in ((f"{path}/__init__.py", name), (f"{path}.py", name.rpartition(".")[0])):
            if folder and os.path.isfile(f"{folder}/{found}"):  # noqa: PTH113
                self._compile_file(f"{folder}/{found}", f"{target}/{found}", package)
                return

    def _compile_file(self, source: str, target: str, package: str) -> None:
        status = os.stat(source)  # noqa: PTH116
        data = _read_file(source)
        cached = importlib.util.cache_from_source(target)
        if not os.path.exists(cached):  # noqa: PTH110
            self._write_file(cached, _make_bytecode(compile(data, target, "exec", dont_inherit=True), status))
            self._made.setdefault(package.partition(".")[0], []).append(cached)
        self._follow_imports(data, package)

    def _follow_imports(self, data: bytes, package: str) -> None:
        # Examples in texts look like imports too; what is no name is none.
        named = dict.fromkeys(filter(_MODULE_NAME.fullmatch, find_imports(data.decode("utf-8", "replace"), package)))
        found = [name for name in named if name not in self._seen]
        parents = [".".join(name.split(".")[:count]) for name in found for count in range(1, name.count(".") + 2)]
        # First what is imported first: a start that has begun meanwhile goes the same way.
        self._wanted.extendleft(reversed([name for name in parents if name not in self._seen]))

    def _write_file(self, path: str, data: bytes) -> None:
        """Whole or not at all: the start may be looking for it."""
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(self._temporary, "wb") as file:  # noqa: PTH123
            file.write(data)
        os.replace(self._temporary, path)  # noqa: PTH105


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


def _make_bytecode(code: types.CodeType, status: os.stat_result) -> bytes:
    stamp = (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    header = b"".join(part.to_bytes(4, "little") for part in (0, *stamp))
    return importlib.util.MAGIC_NUMBER + header + marshal.dumps(code)


def _normalize_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _read_messages(said: queue.Queue[dict[str, object]]) -> None:
    # A thread reads, so that compiling goes on while no message comes.
    for line in sys.stdin:
        said.put(json.loads(line))
    os._exit(0)


def lower_priority() -> None:
    """Whatever else runs on this machine is what somebody waits for."""
    os.nice(19)
    # Where Linux shares processors out by session, a process is only nice to its own.
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:  # noqa: PTH123
        file.write("19")


def main() -> None:
    lower_priority()
    # Generated modules nest deeper than the default limit allows.
    sys.setrecursionlimit(10_000)
    compiler = Compiler(*sys.argv[1:])
    said: queue.Queue[dict[str, object]] = queue.Queue()
    threading.Thread(target=_read_messages, args=(said,), daemon=True).start()
    busy = False
    while True:
        try:
            line = said.get(block=not busy)
        except queue.Empty:
            line = {}
        try:
            if "unpacked" in line:
                compiler.add_unpacked(str(line["unpacked"]))
            elif "comfyui" in line:
                compiler.follow_comfyui(**line)  # type: ignore[arg-type]
            busy = compiler.compile_next()
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            busy = True  # a template, or a file for another Python: what a start needs of it, it compiles itself


if __name__ == "__main__":
    main()
