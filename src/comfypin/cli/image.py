"""Build a release's container image, and push it.

comfypin image build --release wan22 --tag ghcr.io/you/wan22:1.0
comfypin image push ghcr.io/you/wan22:1.0
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.image.interface import Hear
    from comfypin.lock.model import Lock

_BUILDERS = ("auto", "docker", "buildah")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    build = verbs.add_parser(
        "build",
        help="build the image of a release",
        description="Build the image of a release. Prints the plan first: layers, sizes, the disk needed.",
    )
    build.add_argument("--release", metavar="NAME|FILE", help="the release, or its lock file (default: LOCK_PATH)")
    build.add_argument("--tag", action="append", required=True, metavar="TAG", help="the image's name; repeatable")
    build.add_argument(
        "--bake",
        choices=["env", "env+models", "nothing"],
        default="env",
        help="what is put into the image; the rest is realized when a container starts (env)",
    )
    build.add_argument("--base", metavar="IMAGE", help="what it stands on (default: python:<lock's>-slim-bookworm)")
    build.add_argument("--platform", metavar="P", help="such as linux/amd64 (default: this machine's)")
    build.add_argument("--vendor", type=Path, metavar="DIR", help="build from a folder of `comfypin lock vendor`")
    build.add_argument(
        "--workflows", type=Path, metavar="DIR", help="the image's /app/workflows (default: ./workflows)"
    )
    build.add_argument("--secret", action="append", default=[], metavar="id=ID,src=FILE", help="for the build only")
    build.add_argument("--network", metavar="MODE", help="the network of build steps, such as host")
    build.add_argument("--no-cache", action="store_true", help="build every layer anew")
    build.add_argument("--dry-run", action="store_true", help="print the plan and build nothing")
    build.add_argument("--context-dir", type=Path, metavar="DIR", help="write the build context here and keep it")
    build.set_defaults(act=_build)
    for verb in (build,):
        verb.add_argument("--builder", choices=_BUILDERS, default="auto", help="what builds (what is here)")
        verb.add_argument("--json", action="store_true", help="print JSON")
        verb.add_argument("--verbose", action="store_true", help="show all that the builder says")


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.verb is None:
        raise UsageError("Say what to do with images; see comfypin image --help.")
    return int(arguments.act(arguments))


def _build(arguments: argparse.Namespace) -> int:
    from comfypin.image.context import Wish, compute_context
    from comfypin.image.interface import BuildRequest
    from comfypin.image.names import require_tags
    from comfypin.image.parts import own_files, write_context
    from comfypin.wiring import open_builder

    tags = require_tags(arguments.tag)
    lock = _release(arguments.release)
    wish = Wish(
        bake=arguments.bake, base=arguments.base, vendor=arguments.vendor, workflows=_workflows(arguments.workflows)
    )
    with tempfile.TemporaryDirectory(prefix="comfypin-image-") as scratch:
        context = compute_context(lock, own_files(Path(scratch)), wish)
        builder = open_builder(arguments.builder)
        folder = arguments.context_dir or Path(scratch, "context")
        write_context(context, folder)
        request = BuildRequest(
            context=folder,
            tags=tags,
            arguments=context.arguments,
            secrets=tuple(arguments.secret),
            platform=arguments.platform,
            network=arguments.network,
            fresh=arguments.no_cache,
        )
        with _hearing(verbose=arguments.verbose, what=f"Building {tags[0]}") as hear:
            built = builder.build(request, hear)
    facts = {"image": built.image_id, "tags": list(tags), "size_bytes": built.size_bytes, "layers": list(built.layers)}
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        print(f"{tags[0]}  {built.image_id}  {built.size_bytes / 1e6:.0f} MB in {len(built.layers)} layers")
    return 0


def _release(wanted: str | None) -> "Lock":
    from comfypin.cli.lock import read_named_lock

    _, reading = read_named_lock(wanted)
    for finding in reading.warnings:
        print(f"comfypin: {finding}", file=sys.stderr)
    return reading.lock


def _workflows(folder: Path | None) -> dict[str, bytes]:
    if folder is None:
        folder = Path("workflows")
    elif not folder.is_dir():
        raise UsageError(f"The folder of workflows {folder} does not exist.")
    if not folder.is_dir():
        return {}
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@contextlib.contextmanager
def _hearing(*, verbose: bool, what: str) -> "Iterator[Hear]":
    """Tell a builder's lines: all of them, or the last one on a terminal, or only that it begins."""
    if verbose:
        yield lambda line: print(line, file=sys.stderr, flush=True)
    elif sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(what) as status:
            yield lambda line: status.update(f"{what}: {_plain(line)}")
    else:
        print(f"{what}.", file=sys.stderr, flush=True)
        yield lambda line: None


def _plain(line: str) -> str:
    from rich.markup import escape

    return escape(line[:100])
