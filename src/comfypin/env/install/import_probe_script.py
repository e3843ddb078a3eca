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

    def write_line(self, **report_line: Any) -> None:
        self._file.write(json.dumps(report_line) + "\n")

    def record_failure(self, subject: str, reason: str) -> None:
        if subject not in self.failed:
            self.failed[subject] = reason
            self.write_line(fail=subject, why=reason)


class LogWatch(logging.Handler):
    """Reads ComfyUI's log, which is the only place that names the nodes it could not import."""

    def __init__(self, probe_report: ProbeReport, node_names: List[str]) -> None:  # noqa: UP006
        super().__init__(logging.INFO)
        self._report = probe_report
        self._nodes = node_names

    def emit(self, record: logging.LogRecord) -> None:
        log_text = record.getMessage()
        for pattern in (_CANNOT, _SKIPPED, _PRESTARTUP):
            log_match = pattern.search(log_text)
            subject = self._find_node(log_match["path"]) if log_match else None
            if log_match and subject:
                self._report.record_failure(subject, log_match["why"].strip())

    def _find_node(self, node_path: str) -> Optional[str]:  # noqa: UP045
        return node_of_path(node_path, self._nodes)


def node_of_path(node_path: str, node_names: List[str]) -> Optional[str]:  # noqa: UP006, UP045
    """Return the node that contains a path, or None."""
    path_parts = node_path.replace("\\", "/").split("/")
    return next((f"node {node_name}" for node_name in node_names if node_name in path_parts), None)


def watch_nodes(probe_report: ProbeReport, node_names: List[str]) -> None:  # noqa: UP006
    """Say which node begins to be loaded: one that brings the interpreter down says nothing itself."""
    last_begun = [""]

    def note_loading(event: str, details: Any) -> None:
        if event == "exec" and "custom_nodes" in (node_path := str(getattr(details[0], "co_filename", ""))):
            node_name = node_of_path(node_path, node_names)
            if node_name and node_name != last_begun[0]:
                last_begun[0] = node_name
                probe_report.write_line(begin=node_name)

    sys.addaudithook(note_loading)


def main() -> None:
    probe_request = json.loads(sys.argv[1])
    probe_report = ProbeReport(probe_request["report"])
    comfyui, node_names = probe_request["comfyui"], probe_request["nodes"]
    # As `python main.py` would have it: ComfyUI's own modules come first.
    sys.path[0] = comfyui
    os.chdir(comfyui)
    for requirement_name in probe_request["requirements"]:
        probe_report.write_line(begin=f"requirement {requirement_name}")
        check_requirement(probe_report, requirement_name)
    if probe_request["start"]:
        start_comfyui(probe_report, probe_request, node_names)
    else:
        for node_name in node_names:
            probe_report.write_line(begin=f"node {node_name}")
            import_node(probe_report, os.path.join(comfyui, "custom_nodes", node_name), node_name)  # noqa: PTH118
    probe_report.write_line(folders=model_folders())
    probe_report.write_line(done=True)
    # Threads that a node started, and its exit handlers, are not ours to wait for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def check_requirement(probe_report: ProbeReport, requirement_name: str) -> None:
    """Report a requirement that is missing, or whose modules cannot be imported."""
    try:
        distribution = importlib.metadata.distribution(requirement_name)
    except importlib.metadata.PackageNotFoundError:
        probe_report.record_failure(
            f"requirement {requirement_name}", "ComfyUI requires it, but it is not among the lock's packages"
        )
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
        probe_report.record_failure(f"requirement {requirement_name}", "; ".join(reasons[:3]))


def top_level_modules(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    """Return the packages and modules that a distribution puts on the path."""
    module_names = set()
    for module_file in distribution.files or ():
        path_parts = module_file.parts
        if len(path_parts) == 2 and path_parts[1] == "__init__.py":
            module_names.add(path_parts[0])
        elif len(path_parts) == 1 and path_parts[0].endswith(".py"):
            module_names.add(path_parts[0][:-3])
    return iter(
        sorted(
            module_name
            for module_name in module_names
            if module_name.isidentifier() and not module_name.startswith("_")
        )
    )


def start_comfyui(probe_report: ProbeReport, probe_request: Dict[str, Any], node_names: List[str]) -> None:  # noqa: UP006
    """Run main.py with its own switch for tests: everything is loaded, nothing is served."""
    probe_report.write_line(begin="ComfyUI")
    sys.argv = ["main.py", *probe_request["arguments"]]
    logging.getLogger().addHandler(LogWatch(probe_report, node_names))
    watch_nodes(probe_report, node_names)
    try:
        runpy.run_path(os.path.join(probe_request["comfyui"], "main.py"), run_name="__main__")  # noqa: PTH118
    except SystemExit as system_exit:
        if system_exit.code not in (None, 0):
            probe_report.record_failure("ComfyUI", f"it exited with code {system_exit.code}")
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        probe_report.record_failure("ComfyUI", describe_error(error))
    loaded_folders = getattr(sys.modules.get("nodes"), "LOADED_MODULE_DIRS", None)
    if loaded_folders is not None and not probe_report.failed:
        loaded_names = {os.path.basename(node_path) for node_path in loaded_folders.values()}  # noqa: PTH119
        for node_name in node_names:
            if node_name not in loaded_names:
                probe_report.record_failure(f"node {node_name}", "ComfyUI did not load it")


def import_node(probe_report: ProbeReport, node_path: str, node_name: str) -> None:
    """Import one node pack under the name that ComfyUI gives it."""
    init_path = os.path.join(node_path, "__init__.py")  # noqa: PTH118
    if not os.path.isfile(init_path):  # noqa: PTH113
        probe_report.record_failure(f"node {node_name}", "it has no __init__.py")
        return
    module_name = node_path.replace(".", "_x_")
    module_spec = importlib.util.spec_from_file_location(module_name, init_path)
    if module_spec is None or module_spec.loader is None:
        probe_report.record_failure(f"node {node_name}", "its __init__.py cannot be loaded")
        return
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module
    try:
        module_spec.loader.exec_module(module)
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        probe_report.record_failure(f"node {node_name}", describe_error(error))


def model_folders() -> Dict[str, List[str]]:  # noqa: UP006
    """Return the names that ComfyUI looks models up by, each with its folders relative to the models folder."""
    folder_paths = sys.modules.get("folder_paths")
    models_root = getattr(folder_paths, "models_dir", None)
    known_folders = getattr(folder_paths, "folder_names_and_paths", None)
    folders_by_name: Dict[str, List[str]] = {}  # noqa: UP006
    if not isinstance(models_root, str) or not isinstance(known_folders, dict):
        return folders_by_name
    for folder_name, (folders, _) in sorted(known_folders.items()):
        if folder_name == "custom_nodes":
            continue
        for folder in folders:
            relative = os.path.relpath(folder, models_root)
            if (
                not relative.startswith("..")
                and relative != "."
                and relative not in folders_by_name.get(folder_name, [])
            ):
                folders_by_name.setdefault(folder_name, []).append(relative)
    return folders_by_name


def describe_error(error: BaseException) -> str:
    """Return an exception as one line."""
    error_text = " ".join(str(error).split())
    return f"{type(error).__name__}: {error_text}"[:500] if error_text else type(error).__name__


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
