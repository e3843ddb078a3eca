"""The import probe: a new env must start ComfyUI and load every node before it is kept."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comfypin.digest import Digest
from comfypin.env.errors import ProbeFailed
from comfypin.env.layout import COMFYUI, CUSTOM_NODES, VENV, venv_python
from comfypin.env.package_selection import normalized
from comfypin.lock.requirements import decode_requirements
from comfypin.temp_folders import temp_folder
from comfypin.tools.process import Finished, run
from comfypin.tools.uv import clean_environment

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
class Probed:
    """What a probe that went well learned: the model folders ComfyUI and its nodes look into."""

    model_folders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def probe(build: Path, nodes: Sequence[str], markers: Mapping[str, str]) -> Probed:
    """Start the env's ComfyUI without serving. Raises `ProbeFailed` naming every node and requirement that fails."""
    comfyui = build / COMFYUI
    with temp_folder("probe") as scratch:
        for folder in ("output", "input", "user"):
            Path(scratch, folder).mkdir()
        report = Path(scratch, "report.jsonl")
        arguments = start_arguments(comfyui, str(scratch))
        request = {
            "comfyui": str(comfyui),
            "nodes": sorted(node for node in nodes if (build / CUSTOM_NODES / node).is_dir()),
            "requirements": required(comfyui / "requirements.txt", markers),
            "start": bool(arguments),
            "arguments": arguments,
            "report": str(report),
        }
        done = run(
            [venv_python(build), _SCRIPT, json.dumps(request)],
            cwd=comfyui,
            env=_environment(build, str(scratch)),
            timeout_s=PROBE_TIMEOUT_S,
        )
        return _judge(report.read_text(encoding="utf-8") if report.exists() else "", done)


def way_of_probing() -> Digest:
    """One digest of all that we do to probe: a probe of another kind may find other things."""
    return Digest.of(_SCRIPT.read_bytes() + Path(__file__).read_bytes())


def start_arguments(comfyui: Path, scratch: str) -> list[str]:
    """The switches that make this ComfyUI load everything and end; none where it has no such switch."""
    try:
        known = (comfyui / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    except OSError:
        return []
    if "--quick-test-for-ci" not in known or not (comfyui / "main.py").is_file():
        return []
    arguments = []
    for switch, value in _SWITCHES:
        if re.search(rf"[\"']{switch}[\"']", known):
            arguments += [switch] if value is None else [switch, value.format(scratch)]
    return arguments


def required(path: Path, markers: Mapping[str, str]) -> list[str]:
    """The distributions that a requirements file asks for on this machine; lines that are not PEP 508 are left out."""
    from packaging.requirements import InvalidRequirement, Requirement

    names = []
    lines = decode_requirements(path.read_bytes()).splitlines() if path.is_file() else []
    for line in lines:
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if not text or text.startswith("-"):
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate(dict(markers)):
            names.append(normalized(requirement.name))
    return sorted(set(names))


def _environment(build: Path, scratch: str) -> dict[str, str]:
    """Nothing of the user's Python, no GPU work, nothing written to the user's home by what is imported."""
    path = f"{build / VENV / 'bin'}:{clean_environment().get('PATH', '')}"
    quiet = {"PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    return {**clean_environment(), **quiet, "PATH": path, "VIRTUAL_ENV": str(build / VENV), "TMPDIR": scratch}


def _judge(report: str, done: Finished) -> Probed:
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
    if not ended and not failures:
        failures.append((begun, f"the interpreter ended with exit code {done.exit_code} while it was loaded"))
    if failures:
        raise ProbeFailed(failures=failures, log=tuple(line for line in done.stderr.splitlines() if line.strip())[-12:])
    return Probed(model_folders=folders)
