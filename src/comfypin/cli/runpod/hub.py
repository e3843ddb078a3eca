"""Write a repository that Runpod's Hub takes, or check one: .runpod/hub.json, tests.json, Dockerfile, handler."""

import argparse
import json
import re
import sys
from pathlib import Path, PurePosixPath

from comfypin.cli.common import print_on_stderr
from comfypin.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = __doc__
    parser.add_argument("--check", action="store_true", help="only check the files that are there")
    parser.add_argument("--release", default="demo", metavar="NAME|FILE", help="the release, or its lock file (demo)")
    parser.add_argument(
        "--image", metavar="NAME@sha256:...", help="its public image, as `comfypin image push` prints it"
    )
    parser.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="the repository's folder (here)")
    parser.add_argument("--title", help="the listing's name (the release's)")
    parser.add_argument("--description", help="what it does, in a sentence")
    parser.add_argument(
        "--category", choices=["audio", "embedding", "language", "video", "image"], default="image", help="(image)"
    )
    parser.add_argument("--icon-url", metavar="URL", help="the address of its icon")
    parser.add_argument(
        "--gpu-pool",
        action="append",
        default=[],
        metavar="ID",
        help="a pool of the GPU catalog, or -GPU to leave one out of it; repeatable (ADA_24)",
    )
    parser.add_argument("--test-gpu", default="NVIDIA GeForce RTX 4090", metavar="ID", help="the tests' GPU")
    parser.add_argument("--cpu", metavar="FLAVOR", help="run on CPUs of this flavor, such as cpu5c, without a GPU")
    parser.add_argument(
        "--test", action="append", default=[], metavar="NAME", help="test a workflow of the image too; repeatable"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the worker; never a secret"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def execute(arguments: argparse.Namespace) -> int:
    """Write the files, or check them."""
    from comfypin.atomic_files import write_atomically
    from comfypin.runpod.hub_files import check_hub_file
    from comfypin.runpod.hub_repository import FOLDER

    if arguments.check:
        paths = [arguments.dir / FOLDER / file_name for file_name in ("hub.json", "tests.json")]
        for path in paths:
            check_hub_file(path, _read_file(path))
        return _print_paths(arguments, "checked", paths)
    written = []
    for relative_path, content in _make_files(arguments).items():
        path = arguments.dir / relative_path
        # A README of one's own is worth more than ours; the others are made from the release each time.
        if path.name == "README.md" and path.exists():
            continue
        if path.suffix == ".json":
            check_hub_file(path, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        written.append(path)
    print_on_stderr("Commit these, and make a GitHub release: the Hub builds and tests releases, not commits.")
    return _print_paths(arguments, "written", written)


def _make_files(arguments: argparse.Namespace) -> dict[PurePosixPath, bytes]:
    from comfypin.image.image_variables import read_variables
    from comfypin.lock.codec import lock_digest, read_lock
    from comfypin.lock.lookup import find_lock
    from comfypin.runpod.hub_repository import HubOptions, hub_repository
    from comfypin.runpod.release_facts import release_facts

    if arguments.image is None:
        raise UsageError("comfypin runpod hub needs --image NAME@sha256:..., which `comfypin image push` prints.")
    # A tag could change between the Hub's tests and its users.
    if not re.search(r"@sha256:[0-9a-f]{64}$", arguments.image):
        raise UsageError(f"--image {arguments.image} is not pinned by digest; give NAME@sha256:...")
    lock = read_lock(find_lock(arguments.release)).lock
    options = HubOptions(
        title=arguments.title or lock.version_name,
        description=arguments.description or f"The ComfyUI release {lock.version_name}, pinned by its lock.",
        image=arguments.image,
        category=arguments.category,
        icon_url=arguments.icon_url,
        gpu_pools=tuple(arguments.gpu_pool) or ("ADA_24",),
        test_gpu=arguments.test_gpu,
        cpu_flavor=arguments.cpu,
        test_workflows=tuple(arguments.test),
        variables=read_variables(arguments.env),
    )
    return hub_repository(release_facts(lock, lock_digest(lock)), options)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise UsageError(f"{path} cannot be read: {reason}; `comfypin runpod hub --image ...` writes it.") from exc


def _print_paths(arguments: argparse.Namespace, verb: str, paths: list[Path]) -> int:
    if arguments.json:
        print(json.dumps({verb: [str(path) for path in paths]}))
    else:
        print("\n".join(str(path) for path in paths), file=sys.stdout)
    return 0
