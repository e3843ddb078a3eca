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
from comfypin.lock.requirements import decoded
from comfypin.temp_folders import temp_folder
from comfypin.tools.process import FinishedProcess, run_program
from comfypin.tools.uv import clean_environment

# A first start from a network volume, without byte-code, can take minutes.
PROBE_TIMEOUT_S = 900.0
_SCRIPT = Path(__file__).with_name("import_probe_script.py")
# (switch, value) of main.py; those that this ComfyUI knows are given. `{}` is a scratch folder.
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


def probe_env(build: Path, nodes: Sequence[str], markers: Mapping[str, str]) -> ProbeResult:
    """Start the env's ComfyUI without serving. Raises `ProbeFailed` naming every node and requirement that fails."""
    comfyui = build / COMFYUI_FOLDER
    with temp_folder("probe") as scratch:
        for folder in ("output", "input", "user"):
            Path(scratch, folder).mkdir()
        report = Path(scratch, "report.jsonl")
        arguments = start_arguments(comfyui, str(scratch))
        request = {
            "comfyui": str(comfyui),
            "nodes": sorted(node for node in nodes if (build / CUSTOM_NODES_FOLDER / node).is_dir()),
            "requirements": required_distributions(comfyui / "requirements.txt", markers),
            "start": bool(arguments),
            "arguments": arguments,
            "report": str(report),
        }
        done = run_program(
            [venv_python(build), _SCRIPT, json.dumps(request)],
            cwd=comfyui,
            env=_probe_environment(build, str(scratch)),
            timeout_s=PROBE_TIMEOUT_S,
        )
        return _judge_report(report.read_text(encoding="utf-8") if report.exists() else "", done)


def probe_digest() -> Digest:
    """Return one digest of all code that probes: another probe may find other things."""
    return Digest.of(_SCRIPT.read_bytes() + Path(__file__).read_bytes())


def start_arguments(comfyui: Path, scratch: str) -> list[str]:
    """Return the switches that make this ComfyUI load everything and exit; none if it has no such switch."""
    try:
        known = (comfyui / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    except OSError:
        return []
    # Only this switch ends ComfyUI after it has loaded its nodes; without it the nodes are imported one by one.
    if "--quick-test-for-ci" not in known or not (comfyui / "main.py").is_file():
        return []
    arguments = []
    for switch, value in _SWITCHES:
        if re.search(rf"[\"']{switch}[\"']", known):
            arguments += [switch] if value is None else [switch, value.format(scratch)]
    return arguments


def required_distributions(path: Path, markers: Mapping[str, str]) -> list[str]:
    """Return the distributions that a requirements file needs on this machine; skips lines that are not PEP 508."""
    from packaging.requirements import InvalidRequirement, Requirement

    names = []
    lines = decoded(path.read_bytes()).splitlines() if path.is_file() else []
    for line in lines:
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if not text or text.startswith("-"):
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate(dict(markers)):
            names.append(normalize_name(requirement.name))
    return sorted(set(names))


def _probe_environment(build: Path, scratch: str) -> dict[str, str]:
    """Return an environment without the user's Python settings or GPU work, and with a folder for temporary files."""
    path = f"{build / VENV_FOLDER / 'bin'}:{clean_environment().get('PATH', '')}"
    # Nodes may download models or send telemetry when they are imported.
    quiet = {"PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    return {**clean_environment(), **quiet, "PATH": path, "VIRTUAL_ENV": str(build / VENV_FOLDER), "TMPDIR": scratch}


def _judge_report(report: str, done: FinishedProcess) -> ProbeResult:
    failures: list[tuple[str, str]] = []
    folders: dict[str, tuple[str, ...]] = {}
    begun, ended = "the probe", False
    for line in report.splitlines():
        said = json.loads(line)
        begun = said.get("begin", begun)
        ended = ended or "done" in said
        if "fail" in said:
            failures.append((said["fail"], said["why"]))
        if "folders" in said:
            folders = {name: tuple(paths) for name, paths in said["folders"].items()}
    # The report stops in the middle: a native module has crashed the interpreter.
    if not ended and not failures:
        failures.append((begun, f"the interpreter exited with code {done.exit_code} while loading it"))
    if failures:
        log = tuple(line for line in done.stderr.splitlines() if line.strip())[-12:]
        raise ProbeFailed(failures=[{"subject": subject, "reason": reason} for subject, reason in failures], _log=log)
    return ProbeResult(model_folders=folders)
