"""Pull the models of a lock, verify, list, stage and collect them.

Each model is stored once, in a store (MODELS_DIR/.comfypin, or --store), named by sha256, with links from ComfyUI's
folders. docs/models.md says more.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import read_named_lock, report_progress
from comfypin.cli.flag_values import parse_size, seconds_below, whole_number
from comfypin.cli.model_reports import blob_to_json, format_blob, print_findings, print_pull_report, print_removed
from comfypin.errors import UsageError
from comfypin.plurals import format_count, format_size

if TYPE_CHECKING:
    from comfypin.lock.model import Lock, ModelPin
    from comfypin.models.pull_report import PullReport
    from comfypin.models.store import BlobStore
    from comfypin.models.target_paths import TargetRoots

_LINKS = ("symlink", "hardlink", "reflink", "copy")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    verb_parsers = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    pull_parser = _add_verb(
        verb_parsers, "pull", _pull_models, "bring every model of a lock to its place", takes_lock=True
    )
    _add_pull_flags(pull_parser)
    pull_parser.add_argument("--stage", type=Path, metavar="DIR", help="then copy them to DIR, a fast local disk")
    pull_parser.add_argument("--budget", type=parse_size, metavar="SIZE", help="how much may be staged, such as 80GB")
    verify_parser = _add_verb(
        verb_parsers,
        "verify",
        _verify_models,
        "compare the models with their pins (exit code 50 if one differs)",
        takes_lock=True,
    )
    verify_parser.add_argument("--deep", action="store_true", help="read every byte, even of files that did not change")
    verify_parser.add_argument(
        "--repair", action="store_true", help="pull what is missing or corrupt, then verify again"
    )
    _add_pull_flags(verify_parser)
    stage_parser = _add_verb(
        verb_parsers,
        "stage",
        _stage_models,
        "copy a lock's models to a fast local disk, the largest first",
        takes_lock=True,
    )
    stage_parser.add_argument("--to", type=Path, metavar="DIR", required=True, help="the folder on the fast disk")
    stage_parser.add_argument("--budget", type=parse_size, metavar="SIZE", help="how much may be copied, such as 80GB")
    _add_verb(verb_parsers, "ls", _list_blobs, "list what is in the store: size, releases that use it, last use")
    gc_parser = _add_verb(
        verb_parsers, "gc", _collect_garbage, "remove models that no kept release names, the least recently used first"
    )
    _add_gc_flags(gc_parser)
    add_parser = _add_verb(
        verb_parsers, "add", _add_model, "pin a model in a lock, with its sha256 and size", takes_lock=True
    )
    add_parser.add_argument("source", metavar="[TARGET=]SOURCE", help="vae/x.safetensors=hf://org/repo/x.safetensors")
    add_parser.add_argument(
        "--allow-pickle", action="store_true", help="let this model be a pickle (.ckpt .pt .pth .bin)"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.verb is None:
        raise UsageError("comfypin models needs a verb, such as pull, verify or ls; see comfypin models --help.")
    return int(arguments.act(arguments))


def _add_verb(
    verb_parsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    verb_name: str,
    run_verb: object,
    summary: str,
    *,
    takes_lock: bool = False,
) -> argparse.ArgumentParser:
    verb_parser: argparse.ArgumentParser = verb_parsers.add_parser(
        verb_name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    if takes_lock:
        verb_parser.add_argument(
            "--lock", metavar="FILE|NAME", help="a lock file, or a release's name (default: LOCK_PATH)"
        )
    verb_parser.add_argument("--models-dir", type=Path, metavar="DIR", help="the models folder (default: MODELS_DIR)")
    verb_parser.add_argument("--store", type=Path, metavar="DIR", help="the blob store (default: DIR/.comfypin)")
    verb_parser.add_argument("--json", action="store_true", help="print JSON")
    verb_parser.add_argument("--verbose", action="store_true", help="show the cause of failures")
    verb_parser.set_defaults(act=run_verb)
    return verb_parser


def _add_pull_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--link",
        choices=_LINKS,
        default="symlink",
        help="how a file in ComfyUI's folders refers to the store (symlink)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace wrong files instead of moving them aside")
    parser.add_argument(
        "--timeout",
        type=seconds_below(86_400),
        default=30.0,
        metavar="S",
        help="the stall timeout of a download, in seconds (30)",
    )
    parser.add_argument(
        "--connections", type=whole_number(1, 128), metavar="N", help="at once, for all files together (16)"
    )


def _add_gc_flags(gc_parser: argparse.ArgumentParser) -> None:
    gc_parser.add_argument(
        "--keep-releases", metavar="NAME,...", action="append", default=[], help="releases to keep; repeatable"
    )
    gc_parser.add_argument(
        "--budget", type=parse_size, metavar="SIZE", help="remove only until the store fits, such as 200GB"
    )
    gc_parser.add_argument("--even-kept", action="store_true", help="with --budget: if needed, remove kept models too")
    gc_parser.add_argument("--dry-run", action="store_true", help="print what would be removed and remove nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class _LockModels:
    """Holds what most verbs need: the lock, its models with their paths, and the store."""

    lock: "Lock"
    places: "TargetRoots"
    store: "BlobStore"
    models: "list[tuple[ModelPin, Path]]"


def _read_lock_models(arguments: argparse.Namespace) -> _LockModels:
    from comfypin.models.target_paths import list_targets

    lock_path, reading = read_named_lock(arguments.lock, arguments.settings)
    for finding in reading.warnings:
        print(f"comfypin: {lock_path}: {finding}", file=sys.stderr)
    target_places, store = _open_store(arguments)
    return _LockModels(
        lock=reading.lock, places=target_places, store=store, models=list_targets(reading.lock, target_places)
    )


def _open_store(arguments: argparse.Namespace) -> "tuple[TargetRoots, BlobStore]":
    from comfypin.models.target_paths import TargetRoots
    from comfypin.wiring import open_model_store

    settings = arguments.settings.with_flags(models_dir=arguments.models_dir)
    # Links to blobs must hold whatever the working directory is.
    models_dir = settings.machine.models_dir.absolute()
    target_places = TargetRoots(models_dir=models_dir, comfy_home=settings.machine.comfy_home.absolute())
    return target_places, open_model_store(models_dir, settings, store=arguments.store)


# -- pull and verify


def _pull_models(arguments: argparse.Namespace) -> int:
    lock_models = _read_lock_models(arguments)
    began_s = time.monotonic()
    pull_report = _bring_models(arguments, lock_models, lock_models.models)
    stage_report = None
    if arguments.stage is not None and not pull_report.failures:
        stage_report = _stage_to_folder(arguments, lock_models, arguments.stage)
    if not arguments.json or stage_report is None or not stage_report.failures:  # a failure is an object of its own
        print_pull_report(pull_report, time.monotonic() - began_s, as_json=arguments.json)
    pull_report.raise_failures()
    if stage_report is not None:
        if not arguments.json:
            print(f"{len(stage_report.outcomes)} of them staged in {arguments.stage}", file=sys.stderr)
        stage_report.raise_failures()
    return 0


def _bring_models(
    arguments: argparse.Namespace,
    lock_models: _LockModels,
    models: "list[tuple[ModelPin, Path]]",
    *,
    overwrite: bool = False,
) -> "PullReport":
    from comfypin.cli.model_progress import open_watcher
    from comfypin.models.pull import Puller, PullOptions
    from comfypin.models.pull_limits import FetchPolicy, PullBudget
    from comfypin.wiring import open_model_sources

    settings = arguments.settings
    budget = PullBudget(arguments.connections or settings.models.connections)
    pull_options = PullOptions(
        link=arguments.link,
        overwrite=arguments.overwrite or overwrite,
        fetch_policy=FetchPolicy(stall_s=arguments.timeout),
    )
    # Before the download, so that a gc meanwhile keeps these blobs.
    lock_models.store.remember_release(lock_models.lock.version_name, lock_models.lock.models)
    with open_watcher(as_json=arguments.json) as watcher:
        sources = open_model_sources(settings, timeout_s=arguments.timeout)
        return Puller(lock_models.store, sources, budget, options=pull_options, watcher=watcher).pull_models(models)


def _verify_models(arguments: argparse.Namespace) -> int:
    from comfypin.models.errors import ModelsFailed
    from comfypin.models.verify import Present, finding_failure, inspect_models

    lock_models = _read_lock_models(arguments)
    began_s = time.monotonic()
    findings = inspect_models(lock_models.models, lock_models.store, read_all_bytes=arguments.deep)
    wrong_models = [
        model for model, finding in zip(lock_models.models, findings, strict=True) if not isinstance(finding, Present)
    ]
    if wrong_models and arguments.repair:
        pull_report = _bring_models(arguments, lock_models, wrong_models)
        pull_report.raise_failures()
        # Not deep: what was just fetched was hashed on the way.
        findings = inspect_models(lock_models.models, lock_models.store)
    else:
        # A check must not create a store.
        lock_models.store.remember_release(lock_models.lock.version_name, lock_models.lock.models, create=False)
    problems = [
        problem
        for (pin, _), finding in zip(lock_models.models, findings, strict=True)
        if (problem := finding_failure(pin, finding)) is not None
    ]
    print_findings(lock_models.models, findings, time.monotonic() - began_s, as_json=arguments.json and not problems)
    if problems:
        raise ModelsFailed(failures=problems, total=len(findings))
    return 0


# -- stage


def _stage_models(arguments: argparse.Namespace) -> int:
    stage_report = _stage_to_folder(arguments, _read_lock_models(arguments), arguments.to)
    print_pull_report(stage_report, 0.0, as_json=arguments.json)
    stage_report.raise_failures()
    return 0


def _stage_to_folder(arguments: argparse.Namespace, lock_models: _LockModels, stage_folder: Path) -> "PullReport":
    from comfypin.cli.model_progress import open_watcher
    from comfypin.models.pull import Puller
    from comfypin.models.pull_limits import PullBudget
    from comfypin.models.stage import choose_staged
    from comfypin.wiring import open_model_sources, open_model_store

    stage_folder = stage_folder.absolute()
    # Staging is only of use on another, faster disk.
    if stage_folder.is_relative_to(lock_models.places.models_dir):
        raise UsageError(
            f"{stage_folder} is inside the models folder {lock_models.places.models_dir}; stage to another disk."
        )
    models = choose_staged(
        lock_models.models, models_dir=lock_models.places.models_dir, to=stage_folder, budget_bytes=arguments.budget
    )
    with open_watcher(as_json=arguments.json) as watcher:
        store = open_model_store(stage_folder, arguments.settings, store=stage_folder / ".comfypin")
        return Puller(store, open_model_sources(arguments.settings), PullBudget(8), watcher=watcher).pull_models(models)


# -- ls, gc, add


def _list_blobs(arguments: argparse.Namespace) -> int:
    from comfypin.models.gc import list_blob_uses

    _, blob_store = _open_store(arguments)
    blob_uses = list_blob_uses(blob_store)
    if arguments.json:
        print(
            json.dumps(
                {"store": str(blob_store.root), "blobs": list(map(blob_to_json, blob_uses))}, indent=2, sort_keys=True
            )
        )
        return 0
    for blob_use in sorted(blob_uses, key=lambda blob: -blob.size_bytes):
        print(format_blob(blob_use))
    size_text = format_size(sum(blob.size_bytes for blob in blob_uses))
    print(f"{format_count(len(blob_uses), 'blob')}, {size_text} in {blob_store.root}", file=sys.stderr)
    return 0


def _collect_garbage(arguments: argparse.Namespace) -> int:
    from comfypin.models.gc import choose_blobs, collect_garbage, list_blob_uses

    target_places, blob_store = _open_store(arguments)
    kept_releases = {
        release_name.strip()
        for release_text in arguments.keep_releases
        for release_name in release_text.split(",")
        if release_name.strip()
    }
    # Without a rule, everything would go.
    if not kept_releases and arguments.budget is None:
        raise UsageError("Say what to keep: --keep-releases NAME,... or --budget SIZE; see comfypin models gc --help.")
    if arguments.even_kept and arguments.budget is None:
        raise UsageError("--even-kept needs --budget SIZE: it removes kept models only until the store fits.")
    blob_uses = list_blob_uses(blob_store)
    known_releases = {release.name for release in blob_store.releases.list_releases()}
    # A misspelt name would remove the very release that should stay.
    if kept_releases - known_releases:
        unknown_text, known_text = (
            ", ".join(sorted(kept_releases - known_releases)),
            ", ".join(sorted(known_releases)) or "none",
        )
        raise UsageError(f"--keep-releases names {unknown_text}, but the store only knows {known_text}.")
    chosen_blobs = choose_blobs(
        blob_uses, kept_releases=kept_releases, budget_bytes=arguments.budget, even_kept=arguments.even_kept
    )
    if arguments.dry_run:
        print_removed(chosen_blobs, "would be removed", as_json=arguments.json)
        return 0
    gc_report = collect_garbage(
        blob_store, target_places, chosen_blobs, kept_releases=set() if arguments.even_kept else kept_releases
    )
    print_removed(list(gc_report.removed), "removed", as_json=arguments.json)
    for blob_use in gc_report.busy:
        print(f"comfypin: {blob_use.digest.hex[:16]} is in use, so it was kept", file=sys.stderr)
    if not arguments.json:
        print(
            f"{format_size(gc_report.freed_bytes)} freed, {format_size(gc_report.kept_bytes)} remain", file=sys.stderr
        )
    return 0


def _add_model(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from comfypin.atomic_files import write_atomically
    from comfypin.lock.codec import model_to_json, render_lock
    from comfypin.lock.model_spec import parse_model_spec, pin_models
    from comfypin.models.file_formats import pickle_by_name
    from comfypin.wiring import make_model_describer

    lock_path, reading = read_named_lock(arguments.lock, arguments.settings)
    model_spec = replace(parse_model_spec(arguments.source), allow_pickle=arguments.allow_pickle)
    (model_pin,) = pin_models(
        [model_spec],
        make_model_describer(arguments.settings),
        report=report_progress,
    )
    # A pickle runs code when it is loaded.
    refusal = pickle_by_name(model_pin)
    if refusal is not None:
        raise refusal
    # A model at the same path is replaced.
    other_models = [model for model in reading.lock.models if model.target_path != model_pin.target_path]
    write_atomically(Path(lock_path), render_lock(replace(reading.lock, models=(*other_models, model_pin))))
    if arguments.json:
        print(json.dumps({"lock": lock_path, "model": model_to_json(model_pin)}, indent=2, sort_keys=True))
    else:
        size = "size unknown" if model_pin.size_bytes is None else format_size(model_pin.size_bytes)
        print(f"{lock_path}: {model_pin.target_path}, {size}, {model_pin.sha256}")
    return 0
