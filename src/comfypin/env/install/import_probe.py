"""The import probe: a new env must start ComfyUI and load every node before it is kept."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.digest import Digest
from comfypin.env.errors import ProbeFailed
from comfypin.env.layout import COMFYUI_FOLDER, CUSTOM_NODES_FOLDER, VENV_FOLDER, venv_python
from comfypin.env.package_selection import normalize_name
from comfypin.lock.requirements import decode_requirements
from comfypin.temp_folders import temp_folder
from comfypin.tools.process import FinishedProcess, run_program
from comfypin.tools.uv import clean_environment

# A first start from a network volume, without byte-code, can take minutes.
PROBE_TIMEOUT_S = 900.0
_SCRIPT = Path(__file__).with_name("import_probe_script.py")
# Switches of main.py and their values; only those that this ComfyUI knows are passed. `{}` is a scratch folder.
_SWITCHES = (
    ("--quick-test-for-ci", None),
    ("--cpu", None),
    ("--disable-auto-launch", None),
    ("--disable-api-nodes", None),
    ("--output-directory", "{}/output"),
    ("--input-directory", "{}/input"),
    ("--temp-directory", "{}"),
    ("--user-directory", "{}/user"),
    ("--database-url", "sqlite:///:memory:"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """Holds what a successful probe learned: the model folders that ComfyUI and its nodes look into."""

    model_folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def probe_env(
    build_folder: Path,
    node_names: Sequence[str],
    markers: Mapping[str, str],
    *,
    skipped_scripts: Sequence[str] = (),
) -> ProbeResult:
    """Start the env's ComfyUI without serving. Raises `ProbeFailed` naming every node and requirement that fails.

    `skipped_scripts` are the nodes whose install.py was not run.
    """
    comfyui_folder = build_folder / COMFYUI_FOLDER
    with temp_folder("probe") as temporary_folder:
        for subfolder in ("output", "input", "user"):
            Path(temporary_folder, subfolder).mkdir()
        report_path = Path(temporary_folder, "report.jsonl")
        arguments = start_arguments(comfyui_folder, str(temporary_folder))
        probe_request = {
            "comfyui": str(comfyui_folder),
            "nodes": sorted(
                node_name for node_name in node_names if (build_folder / CUSTOM_NODES_FOLDER / node_name).is_dir()
            ),
            "requirements": required_distributions(comfyui_folder / "requirements.txt", markers),
            "start": bool(arguments),
            "arguments": arguments,
            "report": str(report_path),
        }
        finished = run_program(
            [venv_python(build_folder), _SCRIPT, json.dumps(probe_request)],
            cwd=comfyui_folder,
            env=_probe_environment(build_folder, str(temporary_folder)),
            timeout_s=PROBE_TIMEOUT_S,
        )
        report_text = report_path.read_text(encoding="utf-8") if report_path.exists() else ""
        return _judge_report(report_text, finished, skipped_scripts)


def probe_digest() -> Digest:
    """Return one digest of all code that probes: a changed probe may find other failures."""
    return Digest.of(_SCRIPT.read_bytes() + Path(__file__).read_bytes())


def start_arguments(comfyui_folder: Path, temporary_folder: str) -> list[str]:
    """Return the switches that make this ComfyUI load everything and exit; none if it has no such switch."""
    try:
        known_arguments = (comfyui_folder / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    except OSError:
        return []
    # Only this switch ends ComfyUI after it has loaded its nodes; without it the nodes are imported one by one.
    if "--quick-test-for-ci" not in known_arguments or not (comfyui_folder / "main.py").is_file():
        return []
    arguments = []
    for switch_name, switch_value in _SWITCHES:
        if re.search(rf"[\"']{switch_name}[\"']", known_arguments):
            arguments += [switch_name] if switch_value is None else [switch_name, switch_value.format(temporary_folder)]
    return arguments


def required_distributions(requirements_path: Path, markers: Mapping[str, str]) -> list[str]:
    """Return the distributions that a requirements file needs on this machine; skips lines that are not PEP 508."""
    from packaging.requirements import InvalidRequirement, Requirement

    distribution_names = []
    requirement_lines = (
        decode_requirements(requirements_path.read_bytes()).splitlines() if requirements_path.is_file() else []
    )
    for requirement_line in requirement_lines:
        requirement_text = re.sub(r"(^|\s)#.*", "", requirement_line).strip()
        if not requirement_text or requirement_text.startswith("-"):
            continue
        try:
            requirement = Requirement(requirement_text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate(dict(markers)):
            distribution_names.append(normalize_name(requirement.name))
    return sorted(set(distribution_names))


def _probe_environment(build_folder: Path, temporary_folder: str) -> dict[str, str]:
    """Return an environment without the user's Python settings, and with a folder for temporary files."""
    search_path = f"{build_folder / VENV_FOLDER / 'bin'}:{clean_environment().get('PATH', '')}"
    # Nodes may download models or send telemetry when they are imported.
    quiet_variables = {"PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    return {
        **clean_environment(),
        **quiet_variables,
        "PATH": search_path,
        "VIRTUAL_ENV": str(build_folder / VENV_FOLDER),
        "TMPDIR": temporary_folder,
    }


def _judge_report(report_text: str, finished: FinishedProcess, skipped_scripts: Sequence[str]) -> ProbeResult:
    failures: list[tuple[str, str]] = []
    model_folders: dict[str, tuple[str, ...]] = {}
    last_begun, has_ended = "the probe", False
    for report_line in report_text.splitlines():
        report_entry = json.loads(report_line)
        last_begun = report_entry.get("begin", last_begun)
        has_ended = has_ended or "done" in report_entry
        if "fail" in report_entry:
            failures.append((report_entry["fail"], report_entry["why"]))
        if "folders" in report_entry:
            model_folders = {
                folder_name: tuple(folder_paths) for folder_name, folder_paths in report_entry["folders"].items()
            }
    # The report stops in the middle: a native module has crashed the interpreter.
    if not has_ended and not failures:
        failures.append((last_begun, f"the interpreter exited with code {finished.exit_code} while loading it"))
    if failures:
        log_tail = tuple(report_line for report_line in finished.stderr.splitlines() if report_line.strip())[-12:]
        raise ProbeFailed(
            failures=[{"subject": subject, "reason": reason} for subject, reason in failures],
            skipped_scripts=[name for name in skipped_scripts if f"node {name}" in dict(failures)],
            _log=log_tail,
        )
    return ProbeResult(model_folders=model_folders)
