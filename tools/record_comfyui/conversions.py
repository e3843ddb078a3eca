"""Recording conversions of workflows by the page, and comparing them with ours and with earlier recordings."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from comfypin.workflow.convert.build_prompt import convert_workflow
from comfypin.workflow.errors import WorkflowInvalid
from tools.record_comfyui.page import RECORDED_AT, ComfyPage


def workflows(paths: Iterable[Path]) -> Iterator[tuple[str, Any]]:
    """Yield the name and the workflow of each file; an earlier recording stands for the workflow in it."""
    for path in paths:
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            document = json.loads(file.read_text())
            if isinstance(document, dict) and "ui" in document:
                yield file.stem, document["ui"]
            elif isinstance(document, dict) and "nodes" in document:
                yield file.stem, document


def record_conversions(page: ComfyPage, cases: Iterable[tuple[str, Any]], folder: Path) -> int:
    """Write one file for each workflow; return how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, workflow in cases:
        case = {"name": name, "ui": workflow, **page.convert(workflow)}
        (folder / f"{name}.json").write_text(json.dumps(case, indent=1) + "\n")
        count += 1
        print(f"{name}: {_said(case)}", flush=True)
    return count


def _said(case: dict[str, Any]) -> str:
    if case["api"] is None:
        return f"the page failed: {case['page_error']}"
    loading = f", with an error while loading: {case['load_error']}" if case["load_error"] else ""
    return f"{len(case['api'])} nodes{loading}"


def compare_with_ours(cases: Path, object_info: dict[str, Any]) -> dict[str, str | None]:
    """Return for each recording how comfypin converts it otherwise than the page; None if it does not."""
    return {
        file.stem: _ours_against(json.loads(file.read_text()), object_info) for file in sorted(cases.glob("*.json"))
    }


def _ours_against(case: dict[str, Any], object_info: dict[str, Any]) -> str | None:
    try:
        conversion = convert_workflow(case["ui"], object_info, choose=lambda options: options[0])
        ours = conversion.to_api(RECORDED_AT.replace(tzinfo=None))
    except WorkflowInvalid as problem:
        return None if case["api"] is None else f"refused: {problem}"
    if case["api"] is None:
        return f"converted, and the page failed: {case['page_error']}"
    return first_difference(case["api"], ours)


def compare_recordings(new: Path, old: Path) -> dict[str, str | None]:
    """Return for each workflow in both folders how its prompt is another one; None if it is not."""
    found = {}
    for file in sorted(new.glob("*.json")):
        other = old / file.name
        if other.is_file():
            now, before = (json.loads(each.read_text())["api"] for each in (file, other))
            found[file.stem] = first_difference(before, now)
    return found


def first_difference(expected: Any, found: Any, place: str = "") -> str | None:
    """Return where two JSON values differ first, and how; None if they are equal."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in dict.fromkeys((*expected, *found)):
            where = f"{place}/{key}"
            if key not in found or key not in expected:
                return f"{where} is {'missing' if key in expected else 'too much'}"
            if difference := first_difference(expected[key], found[key], where):
                return difference
        return None
    # The page's numbers have no kinds: 1 and 1.0 are one value. A boolean is another.
    if expected == found and isinstance(expected, bool) is isinstance(found, bool):
        return None
    return f"{place}: {json.dumps(expected)[:200]} expected, {json.dumps(found)[:200]} found"
