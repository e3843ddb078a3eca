"""Check realized envs against their locks, pack them for other machines, and remove old ones."""

import argparse
import json
import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import add_home_flag, read_named_lock
from comfypin.errors import EnvError, UsageError
from comfypin.plurals import format_count, format_size

if TYPE_CHECKING:
    from comfypin.env.drift import Drift
    from comfypin.env.layout import Home
    from comfypin.lock.model import Lock


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    status_parser = verbs.add_parser(
        "status",
        help="list the differences from the lock",
        description="Check every file of the current env by sha256, and name what differs: a moved commit, an edited "
        "file, a package changed by hand, a model. Exit code 40 when anything does.",
    )
    _add_status_flags(status_parser)
    status_parser.set_defaults(act=_show_status)
    pack_parser = verbs.add_parser(
        "pack",
        help="write the env as one file",
        description="Write the current env, with byte-code, as one file that is named by what is in it, for other "
        "machines to unpack in seconds: comfypin realize --packs PLACE finds it.",
    )
    pack_parser.add_argument(
        "place", metavar="DIR|BUCKET", help="a folder, a volume's folder, or a bucket such as s3://..."
    )
    pack_parser.set_defaults(act=_pack_env)
    gc_parser = verbs.add_parser(
        "gc",
        help="remove envs and cached packages that no kept lock needs",
        description="Print what no kept lock needs and how much becomes free; remove it with --yes. The current env "
        "and what it needs are always kept, and so are cached packages that any env on this disk shares. Models are "
        "`comfypin models gc`.",
    )
    gc_parser.add_argument(
        "--keep", metavar="LOCK", action="append", default=[], help="a lock whose env stays; repeatable"
    )
    gc_parser.add_argument("--yes", action="store_true", help="remove it; without --yes it is only listed")
    gc_parser.set_defaults(act=_collect_garbage)
    for verb_parser in (status_parser, pack_parser, gc_parser):
        add_home_flag(verb_parser)
        verb_parser.add_argument("--json", action="store_true", help="print JSON")
        verb_parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def _add_status_flags(status_parser: argparse.ArgumentParser) -> None:
    status_parser.add_argument(
        "--lock", metavar="FILE|NAME", help="compare with this lock (default: the one realized last)"
    )
    status_parser.add_argument("--models-dir", type=Path, metavar="DIR", help="the models folder (default: MODELS_DIR)")
    status_parser.add_argument("--no-models", action="store_true", help="do not check models")


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.verb is None:
        raise UsageError("comfypin env needs a verb: status, pack or gc; see comfypin env --help.")
    return int(arguments.act(arguments))


def _make_home(arguments: argparse.Namespace) -> "Home":
    from comfypin.env.layout import Home

    settings = arguments.settings.machine.with_flags(comfy_home=arguments.home)
    return Home(root=settings.comfy_home.absolute())


def _show_status(arguments: argparse.Namespace) -> int:
    from comfypin.env.status import check_env

    home = _make_home(arguments)
    lock = _choose_lock(arguments, home)
    status = check_env(home, lock)
    # The receipt does not list models: several envs share them.
    if lock is not None and not arguments.no_models:
        status = replace(status, drifts=(*status.drifts, *_find_model_drifts(lock, arguments)))
    if arguments.json:
        print(json.dumps(status.to_json(), indent=2, sort_keys=True))
    else:
        for drift in status.drifts:
            print(f"{drift.kind:18} {drift.text}")
        file_count = format_count(status.receipt.files, "file") if status.receipt else "no receipt"
        count = len(status.drifts)
        summary = f"{count} difference{'s' if count > 1 else ''}" if count else "what its lock says"
        print(f"{status.folder}: {summary} ({file_count})")
    return EnvError.exit_code if status.drifts else 0


def _find_model_drifts(lock: "Lock", arguments: argparse.Namespace) -> "list[Drift]":
    from comfypin.env.drift import Drift
    from comfypin.models.verify import Missing, Present, describe_finding
    from comfypin.wiring import inspect_lock_models

    settings = arguments.settings.with_flags(comfy_home=arguments.home, models_dir=arguments.models_dir)
    drifts = []
    for pin, finding in inspect_lock_models(lock, settings):
        if not isinstance(finding, Present):
            kind = "model-missing" if isinstance(finding, Missing) else "model-changed"
            sentence = f"Model {pin.name} ({pin.target_path}) {describe_finding(finding)}."
            drifts.append(Drift(kind=kind, subject=f"model {pin.name}", text=sentence, paths=(pin.target_path,)))
    return drifts


def _pack_env(arguments: argparse.Namespace) -> int:
    from comfypin.cli.console import open_reporter
    from comfypin.env.errors import NothingRealized
    from comfypin.env.realize_plan import pack_name
    from comfypin.env.receipt import read_receipt
    from comfypin.lease import acquire_lease
    from comfypin.wiring import open_pack_store

    home = _make_home(arguments)
    receipt = read_receipt(home.current_link)
    if receipt is None:
        raise NothingRealized(home=home.root)
    env_folder = home.build_folder(receipt.key)
    pack_store = open_pack_store(arguments.place, arguments.settings)
    # Whoever builds it anew, or removes it, waits; on a volume that is read only there is nobody.
    writable = os.access(home.root, os.W_OK)
    lease = acquire_lease(home.lease_path(receipt.key), purpose="pack an env") if writable else nullcontext()
    with lease, open_reporter(as_json=arguments.json) as reporter:
        pack_address = pack_store.publish_env(
            env_folder, pack_name(receipt.key, receipt.platform), report_bytes=reporter.report_bytes
        )
    print(json.dumps({"pack": pack_address}) if arguments.json else pack_address)
    return 0


def _collect_garbage(arguments: argparse.Namespace) -> int:
    from comfypin.env.gc import collect_garbage, find_garbage
    from comfypin.folder_use import alone_with
    from comfypin.lock.codec import read_lock
    from comfypin.wiring import make_source_places

    home = _make_home(arguments)
    source_places = make_source_places(arguments.settings)
    kept_locks = [read_named_lock(lock_name, arguments.settings)[1].lock for lock_name in arguments.keep]
    with alone_with(source_places.cache) as is_alone:
        if not is_alone:
            print("comfypin: an env is made from the caches just now; they are left as they are.", file=sys.stderr)
        # The current env is kept, whether or not --keep names its lock.
        if home.lock_copy.is_file():
            kept_locks.append(read_lock(home.lock_copy).lock)
        garbage = find_garbage(home, kept_locks, source_places, with_caches=is_alone)
        total_bytes = sum(item.size_bytes for item in garbage)
        # Without --yes it is only listed.
        freed_bytes = collect_garbage(home, garbage, source_places) if arguments.yes else None
    if arguments.json:
        facts = {"garbage": [item.to_json() for item in garbage], "size_bytes": total_bytes, "freed_bytes": freed_bytes}
        print(json.dumps(facts, indent=2, sort_keys=True))
        return 0
    for garbage_item in garbage:
        print(f"{format_size(garbage_item.size_bytes):>10}  {garbage_item.path}: {garbage_item.what}")
    consequence = "removed" if arguments.yes else "would be removed; --yes removes it"
    print(
        f"{format_size(total_bytes):>10}  {format_count(len(garbage), 'thing')} {consequence}"
        if garbage
        else "There is nothing to remove."
    )
    return 0


def _choose_lock(arguments: argparse.Namespace, home: "Home") -> "Lock | None":
    """Return the lock named by --lock, else the one realized last, or None if nothing was realized."""
    from comfypin.lock.codec import read_lock

    if arguments.lock is not None:
        return read_named_lock(arguments.lock, arguments.settings)[1].lock
    return read_lock(home.lock_copy).lock if home.lock_copy.is_file() else None
