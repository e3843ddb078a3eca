"""Bring models to their places, verify, list, stage and collect them.

Models lie once in a store (MODELS_DIR/.comfypin, or --store), named by sha256, with links from ComfyUI's folders.
docs/models.md says more.
"""

import argparse
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import read_named_lock
from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.lock.model import Lock, ModelPin
    from comfypin.models.gc import BlobUse
    from comfypin.models.pull import PullReport
    from comfypin.models.store import BlobStore
    from comfypin.models.target_paths import Places
    from comfypin.models.verify import Finding

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(I?)B?", re.IGNORECASE)
_LINKS = ("symlink", "hardlink", "reflink", "copy")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    pull = _verb(verbs, "pull", _pull, "bring every model of a lock to its place", lock=True)
    _pull_flags(pull)
    pull.add_argument("--stage", type=Path, metavar="DIR", help="then copy them to DIR, a fast local disk")
    pull.add_argument("--budget", type=_size, metavar="SIZE", help="how much may be staged, such as 80GB")
    verify = _verb(
        verbs, "verify", _verify, "compare the models with their pins (exit code 50 where one differs)", lock=True
    )
    verify.add_argument("--deep", action="store_true", help="read every byte, whatever is known from earlier")
    verify.add_argument("--repair", action="store_true", help="bring what is missing or corrupt, then verify again")
    _pull_flags(verify)
    stage = _verb(verbs, "stage", _stage, "copy a lock's models to a fast local disk, the largest first", lock=True)
    stage.add_argument("--to", type=Path, metavar="DIR", required=True, help="the folder on the fast disk")
    stage.add_argument("--budget", type=_size, metavar="SIZE", help="how much may be copied, such as 80GB")
    _verb(verbs, "ls", _ls, "list what is in the store: size, releases that use it, last use")
    gc = _verb(verbs, "gc", _gc, "remove models that no kept release names, the least recently used first")
    gc.add_argument(
        "--keep-releases", metavar="NAME,...", action="append", default=[], help="releases to keep; repeatable"
    )
    gc.add_argument("--budget", type=_size, metavar="SIZE", help="remove only until the store fits, such as 200GB")
    gc.add_argument("--even-kept", action="store_true", help="with --budget: after all others, remove kept ones too")
    gc.add_argument("--dry-run", action="store_true", help="print what would be removed and remove nothing")
    add = _verb(verbs, "add", _add, "pin a model in a lock, with its sha256 and size", lock=True)
    add.add_argument("source", metavar="[TARGET=]SOURCE", help="vae/x.safetensors=hf://org/repo/x.safetensors")
    add.add_argument("--allow-pickle", action="store_true", help="let this model be a pickle (.ckpt .pt .pth .bin)")


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.verb is None:
        raise UsageError("Say what to do with models; see comfypin models --help.")
    return int(arguments.act(arguments))


def _verb(  # type: ignore[no-untyped-def]
    verbs, name: str, act: object, summary: str, *, lock: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    if lock:
        parser.add_argument("--lock", metavar="FILE|NAME", help="a lock file, or a release's name (default: LOCK_PATH)")
    parser.add_argument("--models-dir", type=Path, metavar="DIR", help="where models lie (default: MODELS_DIR)")
    parser.add_argument("--store", type=Path, metavar="DIR", help="where blobs lie (default: DIR/.comfypin)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="say more about failures")
    parser.set_defaults(act=act)
    return parser


def _pull_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--link", choices=_LINKS, default="symlink", help="how a file gets to its place (symlink)")
    parser.add_argument("--overwrite", action="store_true", help="do not keep wrong files aside")
    parser.add_argument("--timeout", type=_seconds, default=30.0, metavar="S", help="how long silence is borne (30)")
    parser.add_argument("--connections", type=_count, metavar="N", help="at once, for all files together (16)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What most verbs work on: the lock, its models with their paths, and the store."""

    lock: "Lock"
    places: "Places"
    store: "BlobStore"
    models: "list[tuple[ModelPin, Path]]"


def _work(arguments: argparse.Namespace) -> _Work:
    from comfypin.models.target_paths import targets

    where, reading = read_named_lock(arguments.lock, arguments.settings)
    for finding in reading.warnings:
        print(f"comfypin: {where}: {finding}", file=sys.stderr)
    places, store = _trees(arguments)
    return _Work(lock=reading.lock, places=places, store=store, models=targets(reading.lock, places))


def _trees(arguments: argparse.Namespace) -> "tuple[Places, BlobStore]":
    from comfypin.models.target_paths import Places
    from comfypin.wiring import model_store

    settings = arguments.settings.overridden(models_dir=arguments.models_dir)
    models_dir = settings.machine.models_dir.absolute()
    places = Places(models_dir=models_dir, comfy_home=settings.machine.comfy_home.absolute())
    return places, model_store(models_dir, settings, store=arguments.store)


# -- pull and verify


def _pull(arguments: argparse.Namespace) -> int:
    work = _work(arguments)
    began = time.monotonic()
    report = _bring(arguments, work, work.models)
    staged = None
    if arguments.stage is not None and not report.failures:
        staged = _copy_to(arguments, work, arguments.stage)
    if not arguments.json or staged is None or not staged.failures:  # a failure is an object of its own
        _print_pulled(report, time.monotonic() - began, as_json=arguments.json)
    report.raise_failures()
    if staged is not None:
        if not arguments.json:
            print(f"{len(staged.outcomes)} of them staged in {arguments.stage}", file=sys.stderr)
        staged.raise_failures()
    return 0


def _bring(
    arguments: argparse.Namespace, work: _Work, models: "list[tuple[ModelPin, Path]]", *, overwrite: bool = False
) -> "PullReport":
    from comfypin.cli.model_progress import watching
    from comfypin.models.pull import Puller, PullOptions
    from comfypin.models.pull_limits import Budget, Effort
    from comfypin.wiring import model_sources

    settings = arguments.settings
    budget = Budget(arguments.connections or settings.models.connections)
    options = PullOptions(
        link=arguments.link,
        overwrite=arguments.overwrite or overwrite,
        effort=Effort(stall_s=arguments.timeout),
    )
    work.store.remember_release(work.lock.version_name, work.lock.models)
    with watching(as_json=arguments.json) as watcher:
        sources = model_sources(settings, timeout_s=arguments.timeout)
        return Puller(work.store, sources, budget, options=options, watcher=watcher).pull(models)


def _print_pulled(report: "PullReport", seconds: float, *, as_json: bool) -> None:
    if as_json:
        if not report.failures:
            models = [outcome.to_json() for outcome in report.outcomes]
            print(json.dumps({"models": models, "seconds": round(seconds, 3)}, indent=2, sort_keys=True))
        return
    for outcome in report.outcomes:
        came = f" from {outcome.source}" if outcome.source else ""
        print(f"{outcome.path}: {outcome.state}{came}")
        for reason in outcome.failed_sources:
            print(f"comfypin: {outcome.pin.name}: a source failed: {reason}", file=sys.stderr)
        if outcome.aside is not None:
            print(f"comfypin: the file that was at {outcome.path} is kept as {outcome.aside}", file=sys.stderr)
        if outcome.pin.sha256 is None:
            print(
                f"comfypin: {outcome.pin.name} has no sha256 in the lock, so nothing proves its bytes; "
                f"they have sha256 {outcome.digest.hex}, {outcome.size_bytes} bytes",
                file=sys.stderr,
            )
    fetched = sum(outcome.size_bytes for outcome in report.outcomes if outcome.state == "fetched")
    print(f"{len(report.outcomes)} models in {seconds:.1f} s, {fetched / 1e9:.2f} GB fetched", file=sys.stderr)


def _verify(arguments: argparse.Namespace) -> int:
    from comfypin.models.errors import ModelsFailed
    from comfypin.models.verify import Present, failure, inspect_all

    work = _work(arguments)
    began = time.monotonic()
    findings = inspect_all(work.models, work.store, deep=arguments.deep)
    wrong = [model for model, finding in zip(work.models, findings, strict=True) if not isinstance(finding, Present)]
    if wrong and arguments.repair:
        report = _bring(arguments, work, wrong)
        report.raise_failures()
        findings = inspect_all(work.models, work.store)
    else:
        work.store.remember_release(work.lock.version_name, work.lock.models, create=False)
    problems = [
        problem
        for (pin, _), finding in zip(work.models, findings, strict=True)
        if (problem := failure(pin, finding)) is not None
    ]
    _print_findings(work.models, findings, time.monotonic() - began, as_json=arguments.json and not problems)
    if problems:
        raise ModelsFailed(failures=problems, total=len(findings))
    return 0


def _print_findings(
    models: "list[tuple[ModelPin, Path]]", findings: "list[Finding]", seconds: float, *, as_json: bool
) -> None:
    from comfypin.models.verify import Present, describe

    if as_json:
        found = [
            {"model": pin.name, "path": str(path), "finding": type(finding).__name__, "says": describe(finding)}
            for (pin, path), finding in zip(models, findings, strict=True)
        ]
        print(json.dumps({"models": found, "seconds": round(seconds, 3)}, indent=2, sort_keys=True))
        return
    for (_, path), finding in zip(models, findings, strict=True):
        if isinstance(finding, Present):
            print(f"{path}: {'verified' if finding.proven else describe(finding)}")
    print(f"{len(findings)} models in {seconds:.2f} s", file=sys.stderr)


# -- stage


def _stage(arguments: argparse.Namespace) -> int:
    report = _copy_to(arguments, _work(arguments), arguments.to)
    _print_pulled(report, 0.0, as_json=arguments.json)
    report.raise_failures()
    return 0


def _copy_to(arguments: argparse.Namespace, work: _Work, to: Path) -> "PullReport":
    from comfypin.cli.model_progress import watching
    from comfypin.models.pull import Puller
    from comfypin.models.pull_limits import Budget
    from comfypin.models.stage import stageable
    from comfypin.wiring import model_sources, model_store

    to = to.absolute()
    if to.is_relative_to(work.places.models_dir):
        raise UsageError(f"{to} lies in MODELS_DIR; stage to another disk.")
    models = stageable(work.models, models_dir=work.places.models_dir, to=to, budget_bytes=arguments.budget)
    with watching(as_json=arguments.json) as watcher:
        store = model_store(to, arguments.settings, store=to / ".comfypin")
        return Puller(store, model_sources(arguments.settings), Budget(8), watcher=watcher).pull(models)


# -- ls, gc, add


def _ls(arguments: argparse.Namespace) -> int:
    from comfypin.models.gc import survey

    _, store = _trees(arguments)
    blobs = survey(store)
    if arguments.json:
        print(json.dumps({"store": str(store.root), "blobs": list(map(_blob_json, blobs))}, indent=2, sort_keys=True))
        return 0
    for blob in sorted(blobs, key=lambda blob: -blob.size_bytes):
        print(_blob_line(blob))
    print(f"{len(blobs)} blobs, {sum(blob.size_bytes for blob in blobs) / 1e9:.2f} GB in {store.root}", file=sys.stderr)
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    from comfypin.models.gc import choose, collect, survey

    places, store = _trees(arguments)
    keep = {name.strip() for text in arguments.keep_releases for name in text.split(",") if name.strip()}
    if not keep and arguments.budget is None:
        raise UsageError("Say what to keep: --keep-releases NAME,... or --budget SIZE; see comfypin models gc --help.")
    if arguments.even_kept and arguments.budget is None:
        raise UsageError("--even-kept goes with --budget.")
    blobs = survey(store)
    known = {release.name for release in store.releases.all()}
    if keep - known:
        unknown, there = ", ".join(sorted(keep - known)), ", ".join(sorted(known)) or "none"
        raise UsageError(f"The store knows no release {unknown}; it knows {there}.")
    chosen = choose(blobs, keep=keep, budget_bytes=arguments.budget, even_kept=arguments.even_kept)
    if arguments.dry_run:
        _print_gone(chosen, "would be removed", as_json=arguments.json)
        return 0
    report = collect(store, places, chosen, keep=set() if arguments.even_kept else keep)
    _print_gone(list(report.removed), "removed", as_json=arguments.json)
    for blob in report.busy:
        print(f"comfypin: {blob.digest.hex[:16]} is in use and stays", file=sys.stderr)
    if not arguments.json:
        print(f"{report.freed_bytes / 1e9:.2f} GB freed, {report.kept_bytes / 1e9:.2f} GB remain", file=sys.stderr)
    return 0


def _print_gone(blobs: "list[BlobUse]", what: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({what.replace(" ", "_"): list(map(_blob_json, blobs))}, indent=2, sort_keys=True))
        return
    for blob in blobs:
        print(f"{what}: {_blob_line(blob)}")


def _blob_line(blob: "BlobUse") -> str:
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(blob.used_at))
    names = ", ".join(blob.targets) or "-"
    return f"{blob.size_bytes / 1e9:9.3f} GB  {blob.digest.hex[:16]}  {day}  {', '.join(blob.releases) or '-'}  {names}"


def _blob_json(blob: "BlobUse") -> dict[str, object]:
    return {
        "sha256": blob.digest.hex,
        "size_bytes": blob.size_bytes,
        "used_at": int(blob.used_at),
        "releases": list(blob.releases),
        "targets": list(blob.targets),
    }


def _add(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from comfypin.atomic_files import write_atomically
    from comfypin.lock.codec import model_to_json, render
    from comfypin.lock.model_spec import parse_model_spec, pin_models
    from comfypin.models.file_formats import pickle_by_name
    from comfypin.wiring import model_describer

    where, reading = read_named_lock(arguments.lock, arguments.settings)
    spec = replace(parse_model_spec(arguments.source), allow_pickle=arguments.allow_pickle)
    (pin,) = pin_models(
        [spec], model_describer(arguments.settings), tell=lambda text: print(f"comfypin: {text}", file=sys.stderr)
    )
    refusal = pickle_by_name(pin)
    if refusal is not None:
        raise refusal
    others = [model for model in reading.lock.models if model.target_path != pin.target_path]
    write_atomically(Path(where), render(replace(reading.lock, models=(*others, pin))))
    if arguments.json:
        print(json.dumps({"lock": where, "model": model_to_json(pin)}, indent=2, sort_keys=True))
    else:
        print(f"{where}: {pin.target_path}, {pin.size_bytes} bytes, {pin.sha256}")
    return 0


# -- values of flags


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 200GB, 1.5TB or 80GiB")
    step = 1024 if match[3] else 1000
    return int(float(match[1]) * step ** " KMGT".index(match[2].upper() or " "))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 128:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 128")
    return int(text)
