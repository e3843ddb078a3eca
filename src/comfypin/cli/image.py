"""Build a release's container image, and push it.

comfypin image build --release wan22 --tag ghcr.io/you/wan22:1.0
comfypin image push ghcr.io/you/wan22:1.0
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr, read_named_lock
from comfypin.cli.transfer_progress import describe_time, ticking
from comfypin.errors import UsageError
from comfypin.plurals import format_count, format_size
from comfypin.temp_folders import temp_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from comfypin.digest import Digest
    from comfypin.http.proxies import Proxies
    from comfypin.image.build_context import BuildContext, ImageOptions
    from comfypin.image.build_plan import ImagePlan
    from comfypin.image.image_record import PushedImage
    from comfypin.image.interface import BuiltImage, ContainerBuilder, Report
    from comfypin.image.registry_login import Credential
    from comfypin.lock.model import Lock
    from comfypin.settings.environment import Settings

_BUILDERS = ("auto", "docker", "buildah", "podman")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    build_parser = verbs.add_parser(
        "build",
        help="build the image of a release",
        description="Build the image of a release. Prints the plan first: layers, sizes, the disk needed.",
    )
    push_parser = verbs.add_parser(
        "push",
        help="push an image, and write its digest beside the lock",
        description="Push an image and print its reference by digest, which is also written beside the lock. Logs in "
        "with the variables that docs/images.md lists, else as docker is configured.",
    )
    _add_build_flags(build_parser)
    _add_push_flags(push_parser)
    for verb_parser in (build_parser, push_parser):
        verb_parser.add_argument(
            "--builder", choices=_BUILDERS, default="auto", help="the program that builds (auto: the first that works)"
        )
        verb_parser.add_argument("--json", action="store_true", help="print JSON")
        verb_parser.add_argument("--verbose", action="store_true", help="show all output of the builder")


def _add_build_flags(build_parser: argparse.ArgumentParser) -> None:
    build_parser.add_argument(
        "--release", metavar="NAME|FILE", help="the release, or its lock file (default: LOCK_PATH)"
    )
    build_parser.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="TAG",
        help="the image's name; repeatable (not needed with --context-dir, which then only writes the context)",
    )
    build_parser.add_argument(
        "--bake",
        choices=["env", "env+models", "nothing"],
        default="env",
        help="what is put into the image; the rest is realized when a container starts (env)",
    )
    build_parser.add_argument("--base", metavar="IMAGE", help="the base image (default: python:<lock's>-slim-bookworm)")
    build_parser.add_argument("--platform", metavar="P", help="such as linux/amd64 (default: this machine's)")
    build_parser.add_argument(
        "--vendor", type=Path, metavar="DIR", help="build from a folder of `comfypin lock vendor`"
    )
    build_parser.add_argument(
        "--workflows", type=Path, metavar="DIR", help="the image's /app/workflows (default: ./workflows)"
    )
    build_parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="id=ID,src=FILE",
        help="a secret for the build only; repeatable",
    )
    build_parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable that the image's containers have; repeatable, and never a secret",
    )
    build_parser.add_argument("--network", metavar="MODE", help="the network of build steps, such as host")
    build_parser.add_argument("--no-cache", action="store_true", help="build every layer again")
    build_parser.add_argument("--dry-run", action="store_true", help="print the plan and build nothing")
    build_parser.add_argument(
        "--context-dir", type=Path, metavar="DIR", help="write the build context here and keep it"
    )
    build_parser.set_defaults(act=_build_image)


def _add_push_flags(push_parser: argparse.ArgumentParser) -> None:
    push_parser.add_argument("tag", metavar="TAG", help="the tag that the image was built with")
    push_parser.add_argument(
        "--registry", metavar="HOST/PATH", help="push it there, such as ghcr.io/you (default: as in TAG)"
    )
    push_parser.add_argument(
        "--release", metavar="NAME|FILE", help="the lock that the digest is written beside (default: the image's)"
    )
    push_parser.add_argument(
        "--scan", action="store_true", help="first scan for known vulnerabilities with trivy, and stop if any is severe"
    )
    push_parser.add_argument("--sign", action="store_true", help="then sign the image and its SBOM with cosign")
    push_parser.set_defaults(act=_push_image)


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.verb is None:
        raise UsageError("comfypin image needs a verb: build or push; see comfypin image --help.")
    return int(arguments.act(arguments))


def _build_image(arguments: argparse.Namespace) -> int:
    from comfypin.image.build_context import ImageOptions, compute_context
    from comfypin.image.build_plan import render_label
    from comfypin.image.image_names import require_tags
    from comfypin.image.image_variables import read_variables
    from comfypin.image.interface import BuildRequest
    from comfypin.image.own_files import collect_own_files, write_context
    from comfypin.wiring import http_proxies

    if not arguments.tag and arguments.context_dir is None and not arguments.dry_run:
        raise UsageError("comfypin image build needs a --tag for the image, or a --context-dir to write to.")
    image_tags = require_tags(arguments.tag)
    lock = _read_release_lock(arguments.release, arguments.settings)
    image_wish = ImageOptions(
        bake=arguments.bake,
        base=arguments.base,
        vendor=arguments.vendor,
        workflows=_read_workflows(arguments.workflows),
        variables=read_variables(arguments.env),
    )
    with temp_folder("image") as temp_path:
        context = compute_context(lock, collect_own_files(Path(temp_path)), image_wish)
        if not image_tags and arguments.context_dir is not None:
            return _write_context_only(lock, image_wish, context, arguments)
        builder = _open_builder(arguments, image_tags)
        plan = _make_image_plan(
            lock,
            image_wish,
            context,
            _known_layers(builder, image_tags[0]) if builder is not None and image_tags else {},
            proxies=http_proxies(arguments.settings),
        )
        _show_plan(plan, arguments)
        if builder is None or arguments.dry_run:
            return 0
        _require_disk_space(plan, builder)
        folder = arguments.context_dir or Path(temp_path, "context")
        write_context(context, folder)
        request = BuildRequest(
            context=folder,
            tags=image_tags,
            # A label keeps what the layers were made of, for the next plan.
            arguments={**context.arguments, "INPUTS": render_label(plan)},
            secrets=tuple(arguments.secret),
            platform=arguments.platform,
            network=arguments.network,
            fresh=arguments.no_cache,
        )
        with _show_builder_lines(verbose=arguments.verbose, description=f"Building {image_tags[0]}") as report_line:
            built_image = builder.build(request, report_line)
    _print_built(built_image, image_tags, plan, as_json=arguments.json)
    return 0


def _open_builder(arguments: argparse.Namespace, image_tags: "Sequence[str]") -> "ContainerBuilder | None":
    """Return the builder; for a plan None if none works here. Raises `NoBuilder`."""
    from comfypin.image.errors import NoBuilder
    from comfypin.wiring import open_builder

    try:
        # A plan asks it for nothing but the layers of the image that has the tag now.
        return open_builder(arguments.builder, report=print_on_stderr) if image_tags else None
    except NoBuilder as nothing_builds:
        if not arguments.dry_run:
            raise
        print_on_stderr(f"comfypin: planned as if nothing was built before. {nothing_builds.message}")
        return None


def _write_context_only(
    lock: "Lock", image_wish: "ImageOptions", context: "BuildContext", arguments: argparse.Namespace
) -> int:
    """Write the context for others to build; it needs no program that builds."""
    from comfypin.image.own_files import write_context
    from comfypin.wiring import http_proxies

    plan = _make_image_plan(lock, image_wish, context, {}, proxies=http_proxies(arguments.settings))
    _show_plan(plan, arguments)
    if arguments.dry_run:
        return 0
    write_context(context, arguments.context_dir)
    if arguments.json:
        print(json.dumps({"context": str(arguments.context_dir), "plan": plan.to_json()}, indent=2))
    else:
        print(arguments.context_dir)
    return 0


def _print_built(built_image: "BuiltImage", image_tags: "Sequence[str]", plan: "ImagePlan", *, as_json: bool) -> None:
    image_facts = {
        "image": built_image.image_id,
        "tags": list(image_tags),
        "size_bytes": built_image.size_bytes,
        "layers": list(built_image.layers),
    }
    if as_json:
        print(json.dumps({**image_facts, "plan": plan.to_json()}, indent=2))
    else:
        layers = f"{format_size(built_image.size_bytes)} in {format_count(len(built_image.layers), 'layer')}"
        print(f"{image_tags[0]}  {built_image.image_id}  {layers}")


def _known_layers(builder: "ContainerBuilder", tag: str) -> "Mapping[str, str]":
    """Return what the layers of the image that has the tag now were made of."""
    from comfypin.image.build_plan import INPUTS_LABEL, read_label
    from comfypin.image.errors import NoSuchImage

    try:
        return read_label(builder.inspect(tag).labels.get(INPUTS_LABEL, ""))
    except NoSuchImage:
        # The first build of this tag: no layer can be reused.
        return {}


def _make_image_plan(
    lock: "Lock",
    image_wish: "ImageOptions",
    context: "BuildContext",
    known_layers: "Mapping[str, str]",
    *,
    proxies: "Proxies",
) -> "ImagePlan":
    from comfypin.env.install.wheel_size import unpacked_sizes
    from comfypin.image.build_context import bakes_an_env
    from comfypin.image.build_plan import make_image_plan

    packages = lock.python.packages if bakes_an_env(lock, image_wish.bake) else ()
    unpacked_bytes = unpacked_sizes(packages, offline=image_wish.vendor is not None, proxies=proxies)
    sizes = dict(zip(packages, unpacked_bytes, strict=True))
    # An image is Linux, whatever this machine is.
    target_name = next(
        (target_name for target_name in sorted(lock.python.targets) if target_name.startswith("linux-")), None
    )
    return make_image_plan(
        lock, image_wish, context, target=target_name, size_of=lambda pin: sizes[pin], known=known_layers
    )


def _show_plan(plan: "ImagePlan", arguments: argparse.Namespace) -> None:
    if arguments.json:
        # A build prints one object at its end; a dry run has nothing else to print.
        if arguments.dry_run:
            print(json.dumps(plan.to_json(), indent=2))
        return
    # The plan is the result of a dry run; otherwise it is progress.
    stream = sys.stdout if arguments.dry_run else sys.stderr
    print(f"{plan.release} on {plan.base}, about {format_size(plan.size_bytes)} on top:", file=stream)
    for layer in plan.layers:
        size_text = format_size(layer.size_bytes) if layer.size_bytes else ""
        print(f"  {layer.name:<10} {size_text:>9}  {'(cached) ' if layer.cached else ''}{layer.text}", file=stream)
    print(f"The build takes about {format_size(plan.disk_bytes)} of disk.", *plan.remarks, sep="\n", file=stream)


def _require_disk_space(plan: "ImagePlan", builder: "ContainerBuilder") -> None:
    from comfypin.image.errors import NoRoomToBuild

    free_space = builder.free_bytes()
    if free_space is not None and free_space < plan.disk_bytes:
        raise NoRoomToBuild(builder=builder.name, need_bytes=plan.disk_bytes, free_bytes=free_space)


def _push_image(arguments: argparse.Namespace) -> int:
    from comfypin.image.image_names import reference_on_registry, registry_host, require_tags
    from comfypin.image.image_record import PushedImage, read_contents, write_image_record
    from comfypin.image.registry_login import VARIABLES, find_credential, push_image
    from comfypin.image.supply_chain import require_tools, scan_image, sign_image
    from comfypin.wiring import open_builder_of

    # First of all: a missing tool should not be noticed after a push of gigabytes.
    require_tools(wants_scan=arguments.scan, wants_sign=arguments.sign)
    (tag,) = require_tags([arguments.tag])
    reference = reference_on_registry(tag, arguments.registry)
    builder = open_builder_of(tag, arguments.builder)
    labels = builder.inspect(tag).labels
    lock_path, lock = _find_image_lock(arguments.release, labels, arguments.settings)
    # Before the push, which takes long: an image without it is told at once.
    contents = read_contents(builder, tag, lock.version_name)
    with _show_builder_lines(verbose=arguments.verbose, description=f"Pushing {reference}") as report_line:
        if arguments.scan:
            scan_image(builder, tag, report_line)
        credential = find_credential(registry_host(reference), arguments.settings.pick_variables(VARIABLES))
        digest = push_image(builder, tag, reference, credential=credential, report=report_line)
        pushed_image = PushedImage(
            reference=reference, digest=digest, release=lock.version_name, lock=str(digest_of_lock(lock))
        )
        record_files = write_image_record(lock_path, pushed_image, contents)
        contents_digest = _attach_contents(pushed_image, contents, credential, arguments.settings)
        # Last: a signature is made for the digest, which the push returns.
        if arguments.sign:
            sign_image(pushed_image.digest_reference, contents, report_line)
    if arguments.json:
        facts = {**pushed_image.to_json(), "sbom": contents_digest, "written": [str(file) for file in record_files]}
        print(json.dumps(facts, indent=2))
    else:
        print(pushed_image.digest_reference)
        print(f"Written: {', '.join(str(file) for file in record_files)}", file=sys.stderr)
        print(f"Attached: its SBOM, {contents_digest}", file=sys.stderr)
    return 0


def _attach_contents(
    pushed_image: "PushedImage", contents: bytes, credential: "Credential | None", settings: "Settings"
) -> str:
    """Attach the SBOM to the image in its registry, and return the SBOM's digest."""
    from comfypin.image.attachments import CYCLONEDX, attach_document
    from comfypin.image.image_names import registry_host
    from comfypin.image.registry_client import ImageRepository
    from comfypin.image.stored_logins import VARIABLES, stored_credential
    from comfypin.wiring import http_proxies

    # The push used the login that docker stores; the attachment goes through the registry's API and needs it too.
    if credential is None:
        credential = stored_credential(registry_host(pushed_image.reference), settings.pick_variables(VARIABLES))
    repository = ImageRepository(
        reference=pushed_image.reference, credential=credential, proxies=http_proxies(settings)
    )
    title = f"comfy-{pushed_image.release}.cdx.json"
    return attach_document(repository, pushed_image.digest, kind=CYCLONEDX, document_bytes=contents, title=title)


def digest_of_lock(lock: "Lock") -> "Digest":
    """Return the lock's digest, importing the codec only when it is needed."""
    from comfypin.lock.codec import lock_digest

    return lock_digest(lock)


def _find_image_lock(
    lock_name: str | None, image_labels: "Mapping[str, str]", settings: "Settings"
) -> "tuple[Path, Lock]":
    """Return the lock that the image was built from. Raises `NotThisRelease` if its label names another digest."""
    from comfypin.image.errors import NotThisRelease

    lock_path, reading = read_named_lock(lock_name or image_labels.get("com.comfypin.release"), settings)
    labelled_digest = image_labels.get("com.comfypin.lock")
    # The lock may have changed since the build.
    if labelled_digest != str(digest_of_lock(reading.lock)):
        raise NotThisRelease(lock=str(lock_path), said=labelled_digest)
    return Path(lock_path), reading.lock


def _read_release_lock(lock_name: str | None, settings: "Settings") -> "Lock":
    _, reading = read_named_lock(lock_name, settings)
    for finding in reading.warnings:
        print(f"comfypin: {finding}", file=sys.stderr)
    return reading.lock


def _read_workflows(folder: Path | None) -> dict[str, bytes]:
    if folder is None:
        # The default folder may be missing, a named one may not.
        folder = Path("workflows")
    elif not folder.is_dir():
        raise UsageError(f"--workflows {folder} is not a folder.")
    if not folder.is_dir():
        return {}
    workflow_files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in workflow_files}


@contextlib.contextmanager
def _show_builder_lines(*, verbose: bool, description: str) -> "Iterator[Report]":
    """Yield a callback for the builder's lines: shows all if `verbose`, the last one on a terminal, else none."""
    if verbose:
        yield lambda line: print(line, file=sys.stderr, flush=True)
    elif sys.stderr.isatty():
        from rich.console import Console

        began_s = time.monotonic()
        with Console(stderr=True).status(description) as status:
            yield lambda line: status.update(
                f"{description} ({describe_time(time.monotonic() - began_s)}): {_escape_markup(line)}"
            )
    else:
        from comfypin.cli.console import LineReporter

        # Builders say what they do, not how much of it is done: a log gets their last line now and then.
        reporter = LineReporter(lambda log_text: print(log_text, end="", file=sys.stderr, flush=True))
        reporter.report_step(f"{description}.")
        with ticking(reporter.report_waiting):
            yield reporter.note_detail


def _escape_markup(line: str) -> str:
    from rich.markup import escape

    # A longer line would wrap and leave remains on the terminal.
    return escape(line[:100])
