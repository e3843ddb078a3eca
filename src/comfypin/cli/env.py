"""Look after realized envs: is one still what its lock says, pack it for other machines, throw old ones away."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import add_home_flag, read_named_lock
from comfypin.errors import EnvError, UsageError

if TYPE_CHECKING:
    from comfypin.env.layout import Home
    from comfypin.env.status import Drift
    from comfypin.lock.model import Lock


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    status = verbs.add_parser(
        "status",
        help="say what differs from the lock",
        description="Check every file of the current env by sha256, and name what differs: a moved commit, an edited "
        "file, a package changed by hand, a model. Exit code 40 when anything does.",
    )
    status.add_argument("--lock", metavar="FILE|NAME", help="compare with this lock (default: the one realized last)")
    status.add_argument("--models-dir", type=Path, metavar="DIR", help="where models lie (default: MODELS_DIR)")
    status.add_argument("--no-models", action="store_true", help="do not look at models")
    status.set_defaults(act=_status)
    pack = verbs.add_parser(
        "pack",
        help="write the env as one file",
        description="Write the current env, with byte-code, as one file that is named by what is in it, for other "
        "machines to unpack in seconds: comfypin realize --packs PLACE finds it.",
    )
    pack.add_argument("place", metavar="DIR|BUCKET", help="a folder, a volume's folder, or a bucket such as s3://...")
    pack.set_defaults(act=_pack)
    gc = verbs.add_parser(
        "gc",
        help="remove envs and cached packages that no kept lock needs",
        description="Print what no kept lock needs and how much becomes free; remove it with --yes. The current env "
        "and what it needs are always kept, and so are cached packages that any env on this disk shares. Models are "
        "`comfypin models gc`.",
    )
    gc.add_argument("--keep", metavar="LOCK", action="append", default=[], help="a lock whose env stays; repeatable")
    gc.add_argument("--yes", action="store_true", help="remove it")
    gc.set_defaults(act=_gc)
    for verb in (status, pack, gc):
        add_home_flag(verb)
        verb.add_argument("--json", action="store_true", help="print JSON")
        verb.add_argument("--verbose", action="store_true", help="say more about failures")


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    if arguments.verb is None:
        raise UsageError("Say what to do with envs; see comfypin env --help.")
    return int(arguments.act(arguments))


def _home(arguments: argparse.Namespace) -> "Home":
    from comfypin.env.layout import Home

    settings = arguments.settings.machine.overridden(comfy_home=arguments.home)
    return Home(root=settings.comfy_home.absolute())


def _status(arguments: argparse.Namespace) -> int:
    from comfypin.env.status import env_status

    home = _home(arguments)
    lock = _lock(arguments, home)
    status = env_status(home, lock)
    if lock is not None and not arguments.no_models:
        status = replace(status, drifts=(*status.drifts, *_model_drifts(lock, arguments)))
    if arguments.json:
        print(json.dumps(status.to_json(), indent=2, sort_keys=True))
    else:
        for drift in status.drifts:
            print(f"{drift.kind:18} {drift.text}")
        files = f"{status.receipt.files} files" if status.receipt else "no receipt"
        count = len(status.drifts)
        found = f"{count} difference{'s' if count > 1 else ''}" if count else "what its lock says"
        print(f"{status.folder}: {found} ({files})")
    return EnvError.exit_code if status.drifts else 0


def _model_drifts(lock: "Lock", arguments: argparse.Namespace) -> "list[Drift]":
    from comfypin.env.status import Drift
    from comfypin.models.verify import Missing, Present, describe
    from comfypin.wiring import model_findings

    settings = arguments.settings.overridden(comfy_home=arguments.home, models_dir=arguments.models_dir)
    found = []
    for pin, finding in model_findings(lock, settings):
        if not isinstance(finding, Present):
            kind = "model-missing" if isinstance(finding, Missing) else "model-changed"
            text = f"Model {pin.name} ({pin.target_path}) {describe(finding)}."
            found.append(Drift(kind=kind, subject=f"model {pin.name}", text=text, paths=(pin.target_path,)))
    return found


def _pack(arguments: argparse.Namespace) -> int:
    from comfypin.env.errors import NothingRealized
    from comfypin.env.realize_plan import pack_name
    from comfypin.env.receipt import read_receipt
    from comfypin.wiring import open_shelf

    home = _home(arguments)
    receipt = read_receipt(home.current)
    if receipt is None:
        raise NothingRealized(home=home.root)
    build = home.build(receipt.key)
    address = open_shelf(arguments.place, arguments.settings).publish(build, pack_name(receipt.key, receipt.platform))
    print(json.dumps({"pack": address}) if arguments.json else address)
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    from comfypin.env.gc import collect, find_garbage
    from comfypin.lock.codec import read_lock
    from comfypin.wiring import source_places

    home = _home(arguments)
    places = source_places(arguments.settings)
    kept = [read_named_lock(name, arguments.settings)[1].lock for name in arguments.keep]
    if home.lock_copy.is_file():
        kept.append(read_lock(home.lock_copy).lock)
    garbage = find_garbage(home, kept, places)
    total = sum(item.size_bytes for item in garbage)
    freed = collect(home, garbage, places) if arguments.yes else None
    if arguments.json:
        facts = {"garbage": [item.to_json() for item in garbage], "size_bytes": total, "freed_bytes": freed}
        print(json.dumps(facts, indent=2, sort_keys=True))
        return 0
    for item in garbage:
        print(f"{item.size_bytes / 1e6:10.1f} MB  {item.path}: {item.what}")
    done = "removed" if arguments.yes else "would go; --yes removes it"
    print(f"{total / 1e6:10.1f} MB  {len(garbage)} things {done}" if garbage else "Nothing is to be removed.")
    return 0


def _lock(arguments: argparse.Namespace, home: "Home") -> "Lock | None":
    """The lock that was named, else the one that was realized last."""
    from comfypin.lock.codec import read_lock

    if arguments.lock is not None:
        return read_named_lock(arguments.lock, arguments.settings)[1].lock
    return read_lock(home.lock_copy).lock if home.lock_copy.is_file() else None
