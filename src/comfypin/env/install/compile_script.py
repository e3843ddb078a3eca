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
    for import_line in _IMPORT_LINES.finditer(source):
        if not import_line["indent"] and (import_line["closed"] or import_line["open"]):
            is_open = not import_line["closed"]
        if import_line["indent"] and not is_open:
            continue
        if import_line["modules"]:
            for imported_name in import_line["modules"].split(","):
                yield imported_name.split(" as ")[0].strip()
        elif import_line["source"]:
            base_name = _absolute_name(import_line["source"], package)
            if base_name is not None:
                yield base_name
                for imported_name in re.sub(r"#[^\n]*|[()\\]", "", import_line["names"]).split(","):
                    if imported_name.strip():
                        yield f"{base_name}.{imported_name.split(' as ')[0].strip()}"


def _absolute_name(module_name: str, package_name: str) -> str | None:
    dot_count = len(module_name) - len(module_name.lstrip("."))
    if not dot_count:
        return module_name
    package_parts = package_name.split(".")
    kept_parts = package_parts[: len(package_parts) - dot_count + 1]
    return (
        ".".join([*kept_parts, module_name[dot_count:]] if module_name[dot_count:] else kept_parts)
        if kept_parts and kept_parts[0]
        else None
    )


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
        entry_names = os.listdir(folder)  # noqa: PTH208
        module_names = [
            top_name[:-3] if top_name.endswith(".py") else top_name for top_name in entry_names if "-" not in top_name
        ]
        for dist_info in entry_names:
            if dist_info.endswith(".dist-info"):
                package_name = _normalize_name(dist_info[: -len(".dist-info")].rpartition("-")[0])
                self._packages[package_name] = module_names
                self._wanted.extend(module_names if package_name in self._first else ())
        for top_name in module_names:
            if top_name in self._places:
                self._leave_package(top_name)
            else:
                self._places[top_name] = (folder, self._site)
                self._wanted.extend(self._waiting.pop(top_name, ()))

    def _leave_package(self, module_name: str) -> None:
        """Leave a name to the start itself: several wheels have it, as parts of one package or as rivals for a file."""
        self._places[module_name] = ("", "")
        for file_path in self._made.pop(module_name, ()):
            os.unlink(file_path)  # noqa: PTH108

    def follow_comfyui(self, comfyui: str, first: list[str], packages: list[str]) -> None:
        for entry_name in os.listdir(comfyui):  # noqa: PTH208
            self._places[entry_name[:-3] if entry_name.endswith(".py") else entry_name] = (comfyui, comfyui)
        self._first.update(packages)
        for entry_name in packages:
            self._wanted.extend(self._packages.get(entry_name, ()))
        # A node's install.py may write its files anew, in the same second: only what it imports is followed.
        self._places["custom_nodes"] = ("", "")
        for file_path in first:
            if file_path.startswith("custom_nodes/"):
                self._follow_imports(_read_file(f"{comfyui}/{file_path}"), package="")
            else:
                self._compile_file(f"{comfyui}/{file_path}", f"{comfyui}/{file_path}", package="")

    def compile_next(self) -> bool:
        """Compile one module; return False if there is nothing to do now."""
        if not self._wanted:
            return False
        module_name = self._wanted.popleft()
        top_name = module_name.partition(".")[0]
        if top_name not in self._places:
            self._waiting.setdefault(top_name, []).append(module_name)
        elif module_name not in self._seen:
            self._seen.add(module_name)
            self._compile_module(module_name, *self._places[top_name])
        return True

    def _compile_module(self, module_name: str, folder: str, target_folder: str) -> None:
        module_path = module_name.replace(".", "/")
        for relative_path, package_name in (
            (f"{module_path}/__init__.py", module_name),
            (f"{module_path}.py", module_name.rpartition(".")[0]),
        ):
            if folder and os.path.isfile(f"{folder}/{relative_path}"):  # noqa: PTH113
                self._compile_file(f"{folder}/{relative_path}", f"{target_folder}/{relative_path}", package_name)
                return

    def _compile_file(self, source_path: str, target_path: str, package: str) -> None:
        source_status = os.stat(source_path)  # noqa: PTH116
        source_bytes = _read_file(source_path)
        cached_path = importlib.util.cache_from_source(target_path)
        if not os.path.exists(cached_path):  # noqa: PTH110
            self._write_file(
                cached_path,
                _make_bytecode(compile(source_bytes, target_path, "exec", dont_inherit=True), source_status),
            )
            self._made.setdefault(package.partition(".")[0], []).append(cached_path)
        self._follow_imports(source_bytes, package)

    def _follow_imports(self, source_bytes: bytes, package: str) -> None:
        # Examples in texts look like imports too; skip what is not a name.
        named_modules = dict.fromkeys(
            filter(_MODULE_NAME.fullmatch, find_imports(source_bytes.decode("utf-8", "replace"), package))
        )
        unseen_names = [module_name for module_name in named_modules if module_name not in self._seen]
        parent_names = [
            ".".join(module_name.split(".")[:part_count])
            for module_name in unseen_names
            for part_count in range(1, module_name.count(".") + 2)
        ]
        # First what is imported first: a start that has begun meanwhile goes the same way.
        self._wanted.extendleft(
            reversed([module_name for module_name in parent_names if module_name not in self._seen])
        )

    def _write_file(self, file_path: str, content: bytes) -> None:
        """Whole or not at all: the start may be looking for it."""
        os.makedirs(os.path.dirname(file_path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(self._temporary, "wb") as open_file:  # noqa: PTH123
            open_file.write(content)
        os.replace(self._temporary, file_path)  # noqa: PTH105


def _read_file(file_path: str) -> bytes:
    with open(file_path, "rb") as open_file:  # noqa: PTH123
        return open_file.read()


def _make_bytecode(module_code: types.CodeType, source_status: os.stat_result) -> bytes:
    source_stamp = (int(source_status.st_mtime) & 0xFFFFFFFF, source_status.st_size & 0xFFFFFFFF)
    pyc_header = b"".join(header_part.to_bytes(4, "little") for header_part in (0, *source_stamp))
    return importlib.util.MAGIC_NUMBER + pyc_header + marshal.dumps(module_code)


def _normalize_name(package_name: str) -> str:
    return re.sub(r"[-_.]+", "-", package_name).lower()


def _read_messages(messages: queue.Queue[dict[str, object]]) -> None:
    # A thread reads, so that compiling goes on while no message comes.
    for message_line in sys.stdin:
        messages.put(json.loads(message_line))
    os._exit(0)


def lower_priority() -> None:
    """Whatever else runs on this machine is what somebody waits for."""
    os.nice(19)
    # Where Linux shares processors out by session, a process is only nice to its own.
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as open_file:  # noqa: PTH123
        open_file.write("19")


def main() -> None:
    lower_priority()
    # Generated modules nest deeper than the default limit allows.
    sys.setrecursionlimit(10_000)
    compiler = Compiler(*sys.argv[1:])
    messages: queue.Queue[dict[str, object]] = queue.Queue()
    threading.Thread(target=_read_messages, args=(messages,), daemon=True).start()
    is_busy = False
    while True:
        try:
            message = messages.get(block=not is_busy)
        except queue.Empty:
            message = {}
        try:
            if "unpacked" in message:
                compiler.add_unpacked(str(message["unpacked"]))
            elif "comfyui" in message:
                compiler.follow_comfyui(**message)  # type: ignore[arg-type]
            is_busy = compiler.compile_next()
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            is_busy = True  # a template, or a file for another Python: what a start needs of it, it compiles itself


if __name__ == "__main__":
    main()
