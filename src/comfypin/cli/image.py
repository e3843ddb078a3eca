"""Build a release's container image, and push it.

comfypin image build --release wan22 --tag ghcr.io/you/wan22:1.0
comfypin image push ghcr.io/you/wan22:1.0
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import read_named_lock
from comfypin.errors import UsageError
from comfypin.temp_folders import temp_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comfypin.digest import Digest
    from comfypin.http.proxies import Proxies
    from comfypin.image.build_plan import ImagePlan
    from comfypin.image.context import Context, Wish
    from comfypin.image.image_record import Pushed
    from comfypin.image.interface import ContainerBuilder, Hear
    from comfypin.image.registry_login import Credential
    from comfypin.lock.model import Lock
    from comfypin.settings.environment import Settings

_BUILDERS = ("auto", "docker", "buildah", "podman")


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
    push = verbs.add_parser(
        "push",
        help="push an image, and write its digest beside the lock",
        description="Push an image and print its reference by digest, which is also written beside the lock. Logs in "
        "with the variables that docs/images.md lists, else as docker is configured.",
    )
    push.add_argument("tag", metavar="TAG", help="the image, as it was built")
    push.add_argument("--registry", metavar="HOST/PATH", help="push it there, such as ghcr.io/you (default: as in TAG)")
    push.add_argument("--release", metavar="NAME|FILE", help="the lock it is written beside (default: as in the image)")
    push.add_argument(
        "--scan", action="store_true", help="first look for known holes with trivy, and stop at grave ones"
    )
    push.add_argument("--sign", action="store_true", help="then sign it, and its list of contents, with cosign")
    push.set_defaults(act=_push)
    for verb in (build, push):
        verb.add_argument("--builder", choices=_BUILDERS, default="auto", help="what builds (what is here)")
        verb.add_argument("--json", action="store_true", help="print JSON")
        verb.add_argument("--verbose", action="store_true", help="show all that the builder says")


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.verb is None:
        raise UsageError("Say what to do with images; see comfypin image --help.")
    return int(arguments.act(arguments))


def _build(arguments: argparse.Namespace) -> int:
    from comfypin.image.build_plan import inputs_label
    from comfypin.image.context import Wish, compute_context
    from comfypin.image.image_names import require_tags
    from comfypin.image.interface import BuildRequest
    from comfypin.image.own_files import own_files, write_context
    from comfypin.wiring import http_proxies, open_builder

    tags = require_tags(arguments.tag)
    lock = _release(arguments.release, arguments.settings)
    wish = Wish(
        bake=arguments.bake, base=arguments.base, vendor=arguments.vendor, workflows=_workflows(arguments.workflows)
    )
    with temp_folder("image") as scratch:
        context = compute_context(lock, own_files(Path(scratch)), wish)
        builder = open_builder(arguments.builder)
        plan = _plan(lock, wish, context, builder, tags[0], proxies=http_proxies(arguments.settings))
        _show(plan, arguments)
        if arguments.dry_run:
            return 0
        _require_room(plan, builder)
        folder = arguments.context_dir or Path(scratch, "context")
        write_context(context, folder)
        request = BuildRequest(
            context=folder,
            tags=tags,
            arguments={**context.arguments, "INPUTS": inputs_label(plan)},
            secrets=tuple(arguments.secret),
            platform=arguments.platform,
            network=arguments.network,
            fresh=arguments.no_cache,
        )
        with _hearing(verbose=arguments.verbose, what=f"Building {tags[0]}") as hear:
            built = builder.build(request, hear)
    facts = {"image": built.image_id, "tags": list(tags), "size_bytes": built.size_bytes, "layers": list(built.layers)}
    if arguments.json:
        print(json.dumps({**facts, "plan": plan.to_json()}, indent=2))
    else:
        print(f"{tags[0]}  {built.image_id}  {built.size_bytes / 1e6:.0f} MB in {len(built.layers)} layers")
    return 0


def _plan(
    lock: "Lock", wish: "Wish", context: "Context", builder: "ContainerBuilder", tag: str, *, proxies: "Proxies"
) -> "ImagePlan":
    from comfypin.env.install.wheel_size import unpacked_sizes
    from comfypin.image.build_plan import LABEL, make_plan, read_label
    from comfypin.image.context import bakes_an_env
    from comfypin.image.errors import NoSuchImage

    try:
        known = read_label(builder.inspect(tag).labels.get(LABEL, ""))
    except NoSuchImage:
        known = {}
    packages = lock.python.packages if bakes_an_env(lock, wish.bake) else ()
    unpacked = unpacked_sizes(packages, offline=wish.vendor is not None, proxies=proxies)
    sizes = dict(zip(packages, unpacked, strict=True))
    target = next((name for name in sorted(lock.python.targets) if name.startswith("linux-")), None)
    return make_plan(lock, wish, context, target=target, size_of=lambda pin: sizes[pin], known=known)


def _show(plan: "ImagePlan", arguments: argparse.Namespace) -> None:
    if arguments.json:
        if arguments.dry_run:
            print(json.dumps(plan.to_json(), indent=2))
        return
    out = sys.stdout if arguments.dry_run else sys.stderr
    print(f"{plan.release} on {plan.base}, about {_megabytes(plan.size_bytes)} over it:", file=out)
    for layer in plan.layers:
        size = _megabytes(layer.size_bytes) if layer.size_bytes else ""
        print(f"  {layer.name:<10} {size:>9}  {'(as it is) ' if layer.cached else ''}{layer.text}", file=out)
    print(f"The build takes about {_megabytes(plan.disk_bytes)} of disk.", *plan.remarks, sep="\n", file=out)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def _require_room(plan: "ImagePlan", builder: "ContainerBuilder") -> None:
    from comfypin.image.errors import NoRoomToBuild

    free = builder.free_bytes()
    if free is not None and free < plan.disk_bytes:
        raise NoRoomToBuild(builder=builder.name, need_bytes=plan.disk_bytes, free_bytes=free)


def _push(arguments: argparse.Namespace) -> int:
    from comfypin.image.image_names import on_registry, registry_of, require_tags
    from comfypin.image.image_record import Pushed, record_beside
    from comfypin.image.registry_login import VARIABLES, find_credential, push
    from comfypin.image.supply_chain import require_tools, scan, sign
    from comfypin.wiring import open_builder

    require_tools(wants_scan=arguments.scan, wants_sign=arguments.sign)
    (tag,) = require_tags([arguments.tag])
    reference = on_registry(tag, arguments.registry)
    builder = open_builder(arguments.builder)
    labels = builder.inspect(tag).labels
    path, lock = _lock_of(arguments.release, labels, arguments.settings)
    with _hearing(verbose=arguments.verbose, what=f"Pushing {reference}") as hear:
        if arguments.scan:
            scan(builder, tag, hear)
        credential = find_credential(registry_of(reference), arguments.settings.named(VARIABLES))
        digest = push(builder, tag, reference, credential=credential, hear=hear)
        pushed = Pushed(reference=reference, digest=digest, release=lock.version_name, lock=str(lock_digest_of(lock)))
        written = record_beside(path, pushed, lock)
        contents = _attach_contents(pushed, lock, credential, arguments.settings)
        if arguments.sign:
            sign(pushed.by_digest, lock, hear)
    if arguments.json:
        facts = {**pushed.to_json(), "sbom": contents, "written": [str(file) for file in written]}
        print(json.dumps(facts, indent=2))
    else:
        print(pushed.by_digest)
        print(f"Written: {', '.join(str(file) for file in written)}", file=sys.stderr)
        print(f"Attached: its list of contents, {contents}", file=sys.stderr)
    return 0


def _attach_contents(pushed: "Pushed", lock: "Lock", credential: "Credential | None", settings: "Settings") -> str:
    """Put the list of contents beside the image in its registry; its digest there."""
    from comfypin.image.attachments import CYCLONEDX, attach
    from comfypin.image.image_names import registry_of
    from comfypin.image.logins import VARIABLES, stored_credential
    from comfypin.image.registry_client import Repository
    from comfypin.lock.export import export
    from comfypin.wiring import http_proxies

    if credential is None:
        credential = stored_credential(registry_of(pushed.reference), settings.named(VARIABLES))
    repository = Repository(reference=pushed.reference, credential=credential, proxies=http_proxies(settings))
    data, title = export(lock, "cyclonedx").encode(), f"comfy-{lock.version_name}.cdx.json"
    return attach(repository, pushed.digest, kind=CYCLONEDX, data=data, title=title)


def lock_digest_of(lock: "Lock") -> "Digest":
    """The lock's digest, imported only where it is needed."""
    from comfypin.lock.codec import lock_digest

    return lock_digest(lock)


def _lock_of(wanted: str | None, labels: "Mapping[str, str]", settings: "Settings") -> "tuple[Path, Lock]":
    """The lock that an image was built from, by its labels; another one is not written beside."""
    from comfypin.image.errors import NotThisRelease

    where, reading = read_named_lock(wanted or labels.get("com.comfypin.release"), settings)
    said = labels.get("com.comfypin.lock")
    if said != str(lock_digest_of(reading.lock)):
        raise NotThisRelease(lock=str(where), said=said)
    return Path(where), reading.lock


def _release(wanted: str | None, settings: "Settings") -> "Lock":
    _, reading = read_named_lock(wanted, settings)
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
