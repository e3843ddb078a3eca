"""Runs inside a new env, by its own Python: starts ComfyUI as far as its nodes, and says what cannot be imported.

It gets one JSON argument and appends JSON lines to the report it names: `{"begin": S}`, `{"fail": S, "why": W}`,
`{"folders": {...}}`, and at the end `{"done": true}`. A line that is missing is a crash of what began last.
Only the standard library may be used here: this is not our interpreter.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
import runpy
import sys
import traceback
from typing import Any, Dict, Iterator, List, Optional  # noqa: UP035  (may run on an older Python than ours)

_CANNOT = re.compile(r"Cannot import (?P<path>.+?) module for custom nodes: (?P<why>.*)", re.S)
_SKIPPED = re.compile(r"Skip (?P<path>.+?) module for custom nodes due to (?P<why>.*)", re.S)
_PRESTARTUP = re.compile(r"Failed to execute startup-script: (?P<path>.+?) / (?P<why>.*)", re.S)


class ProbeReport:
    """Writes the report file line by line, flushed so that a crash loses nothing."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115, PTH123
        self.failed: Dict[str, str] = {}  # noqa: UP006

    def write_line(self, **line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")

    def record_failure(self, subject: str, why: str) -> None:
        if subject not in self.failed:
            self.failed[subject] = why
            self.write_line(fail=subject, why=why)


class LogWatch(logging.Handler):
    """Reads ComfyUI's log, which is the only place that names the nodes it could not import."""

    def __init__(self, report: ProbeReport, nodes: List[str]) -> None:  # noqa: UP006
        super().__init__(logging.INFO)
        self._report = report
        self._nodes = nodes

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        for pattern in (_CANNOT, _SKIPPED, _PRESTARTUP):
            match = pattern.search(text)
            subject = self._find_node(match["path"]) if match else None
            if match and subject:
                self._report.record_failure(subject, match["why"].strip())

    def _find_node(self, path: str) -> Optional[str]:  # noqa: UP045
        return node_of_path(path, self._nodes)


def node_of_path(path: str, nodes: List[str]) -> Optional[str]:  # noqa: UP006, UP045
    """Return the node that contains a path, or None."""
    parts = path.replace("\\", "/").split("/")
    return next((f"node {node}" for node in nodes if node in parts), None)


def watch_nodes(report: ProbeReport, nodes: List[str]) -> None:  # noqa: UP006
    """Say which node begins to be loaded: one that brings the interpreter down says nothing itself."""
    begun = [""]

    def note_loading(event: str, details: Any) -> None:
        if event == "exec" and "custom_nodes" in (path := str(getattr(details[0], "co_filename", ""))):
            node = node_of_path(path, nodes)
            if node and node != begun[0]:
                begun[0] = node
                report.write_line(begin=node)

    sys.addaudithook(note_loading)


def main() -> None:
    request = json.loads(sys.argv[1])
    report = ProbeReport(request["report"])
    comfyui, nodes = request["comfyui"], request["nodes"]
    # As `python main.py` would have it: ComfyUI's own modules come first.
    sys.path[0] = comfyui
    os.chdir(comfyui)
    for name in request["requirements"]:
        report.write_line(begin=f"requirement {name}")
        check_requirement(report, name)
    if request["start"]:
        start_comfyui(report, request, nodes)
    else:
        for node in nodes:
            report.write_line(begin=f"node {node}")
            import_node(report, os.path.join(comfyui, "custom_nodes", node), node)  # noqa: PTH118
    report.write_line(folders=model_folders())
    report.write_line(done=True)
    # Threads that a node started, and its exit handlers, are not ours to wait for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def check_requirement(report: ProbeReport, name: str) -> None:
    """Report a requirement that is missing, or whose modules cannot be imported."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        report.record_failure(f"requirement {name}", "ComfyUI requires it, but it is not among the lock's packages")
        return
    reasons, imported = [], False
    for module in top_level_modules(distribution):
        try:
            # Only an import shows that the wheel fits this machine's libraries.
            importlib.import_module(module)
            imported = True
        except BaseException as error:  # noqa: BLE001  (SystemExit too: whatever it is, it is the finding)
            reasons.append(f"import {module}: {describe_error(error)}")
    # Some bring their tests along, which cannot be imported alone: one module that can is enough.
    if reasons and not imported:
        report.record_failure(f"requirement {name}", "; ".join(reasons[:3]))


def top_level_modules(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    """Return the packages and modules that a distribution puts on the path."""
    found = set()
    for file in distribution.files or ():
        parts = file.parts
        if len(parts) == 2 and parts[1] == "__init__.py":
            found.add(parts[0])
        elif len(parts) == 1 and parts[0].endswith(".py"):
            found.add(parts[0][:-3])
    return iter(sorted(name for name in found if name.isidentifier() and not name.startswith("_")))


def start_comfyui(report: ProbeReport, request: Dict[str, Any], nodes: List[str]) -> None:  # noqa: UP006
    """Run main.py with its own switch for tests: everything is loaded, nothing is served."""
    report.write_line(begin="ComfyUI")
    sys.argv = ["main.py", *request["arguments"]]
    logging.getLogger().addHandler(LogWatch(report, nodes))
    watch_nodes(report, nodes)
    try:
        runpy.run_path(os.path.join(request["comfyui"], "main.py"), run_name="__main__")  # noqa: PTH118
    except SystemExit as end:
        if end.code not in (None, 0):
            report.record_failure("ComfyUI", f"it exited with code {end.code}")
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        report.record_failure("ComfyUI", describe_error(error))
    loaded = getattr(sys.modules.get("nodes"), "LOADED_MODULE_DIRS", None)
    if loaded is not None and not report.failed:
        known = {os.path.basename(path) for path in loaded.values()}  # noqa: PTH119
        for node in nodes:
            if node not in known:
                report.record_failure(f"node {node}", "ComfyUI did not load it")


def import_node(report: ProbeReport, path: str, node: str) -> None:
    """Import one node pack under the name that ComfyUI gives it."""
    start = os.path.join(path, "__init__.py")  # noqa: PTH118
    if not os.path.isfile(start):  # noqa: PTH113
        report.record_failure(f"node {node}", "it has no __init__.py")
        return
    name = path.replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, start)
    if spec is None or spec.loader is None:
        report.record_failure(f"node {node}", "its __init__.py cannot be loaded")
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        report.record_failure(f"node {node}", describe_error(error))


def model_folders() -> Dict[str, List[str]]:  # noqa: UP006
    """Return the names that ComfyUI looks models up by, each with its folders relative to the models folder."""
    paths = sys.modules.get("folder_paths")
    root = getattr(paths, "models_dir", None)
    known = getattr(paths, "folder_names_and_paths", None)
    found: Dict[str, List[str]] = {}  # noqa: UP006
    if not isinstance(root, str) or not isinstance(known, dict):
        return found
    for name, (folders, _) in sorted(known.items()):
        if name == "custom_nodes":
            continue
        for folder in folders:
            relative = os.path.relpath(folder, root)
            if not relative.startswith("..") and relative != "." and relative not in found.get(name, []):
                found.setdefault(name, []).append(relative)
    return found


def describe_error(error: BaseException) -> str:
    """Return an exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
