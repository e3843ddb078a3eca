"""`python -m tools.record_comfyui`: record what a running ComfyUI does, for the tests (docs/contributing.md)."""

import argparse
import json
import sys
from pathlib import Path

from tools.record_comfyui.server import ComfyUI, record_answers, record_catalogue, record_pixels

_CHROMIUM = Path("/usr/bin/chromium")


def main() -> int:
    """Do what the command line says."""
    asked = _parser().parse_args()
    match asked.command:
        case "catalogue":
            record_catalogue(ComfyUI(asked.url), asked.out)
        case "pixels":
            record_pixels(ComfyUI(asked.url), asked.out, asked.prompts, asked.inputs)
        case "answers":
            record_answers(ComfyUI(asked.url), json.loads(asked.prompts.read_text()), asked.out)
        case "conversions":
            return _record_conversions(asked)
        case "compare":
            return _compare(asked)
    return 0


def _record_conversions(asked: argparse.Namespace) -> int:
    from tools.record_comfyui.conversions import record_conversions, workflows
    from tools.record_comfyui.page import open_page

    server = ComfyUI(asked.url)
    record_catalogue(server, asked.out)
    with open_page(server.url, asked.chromium) as page:
        count = record_conversions(page, workflows(asked.workflows), asked.out / "cases")
        if asked.templates:
            templates = ((f"tpl_{name}", workflow) for name, workflow in server.templates())
            count += record_conversions(page, templates, asked.out / "cases")
    print(f"{count} conversions in {asked.out / 'cases'}")
    return 0 if count else 1


def _compare(asked: argparse.Namespace) -> int:
    from tools.record_comfyui.conversions import compare_recordings, compare_with_ours

    if asked.against is not None:
        found = compare_recordings(asked.recordings / "cases", asked.against)
    else:
        catalogue = json.loads((asked.recordings / "object_info.json").read_text())
        found = compare_with_ours(asked.recordings / "cases", catalogue)
    others = {name: difference for name, difference in found.items() if difference}
    lines = [f"{name}: {difference}" for name, difference in others.items()]
    print("\n".join([*lines, f"{len(found) - len(others)} of {len(found)} are equal"]))
    return 1 if others or not found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.record_comfyui", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = argparse.ArgumentParser(add_help=False)
    running.add_argument("--url", default="http://127.0.0.1:8188", help="the ComfyUI (default: %(default)s)")
    running.add_argument("--out", type=Path, required=True, help="where the recordings go")
    commands.add_parser("catalogue", parents=[running], help="record /object_info")
    pixels = commands.add_parser("pixels", parents=[running], help="run prompts and record their pictures")
    pixels.add_argument("--inputs", type=Path, help="a folder of files to upload first")
    pixels.add_argument("prompts", type=Path, nargs="+", help="prompts, or earlier recordings")
    answers = commands.add_parser("answers", parents=[running], help="submit prompts and record the answers")
    answers.add_argument("prompts", type=Path, help='a file of {"name": prompt}, good and bad ones')
    conversions = commands.add_parser("conversions", parents=[running], help="record what the page makes of workflows")
    conversions.add_argument("--chromium", type=Path, default=_CHROMIUM, help="the browser (default: %(default)s)")
    conversions.add_argument("--templates", action="store_true", help="also every template that the page offers")
    conversions.add_argument(
        "workflows", type=Path, nargs="*", help="workflows, earlier recordings, or folders of them"
    )
    compare = commands.add_parser("compare", help="compare recordings with what comfypin does, or with others")
    compare.add_argument("recordings", type=Path, help="a folder that `conversions` wrote")
    compare.add_argument("--against", type=Path, help="a folder of other recordings, instead of comfypin")
    return parser


if __name__ == "__main__":
    sys.exit(main())
