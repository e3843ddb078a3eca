"""Fill network volumes with a release's models and env pack through their S3 API; no pod runs meanwhile.

comfypin runpod volume push LOCK --volume NAME [--dc EU-RO-1]   only what is missing; a killed push is resumed
comfypin runpod volume ls --volume NAME                         what was pushed
comfypin runpod volume verify --volume NAME [--deep]            is it still there; exit code 70 when not
comfypin runpod volume gc --volume NAME --keep RELEASE          what no kept release needs
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.cli.common import print_on_stderr, read_named_lock
from comfypin.errors import UsageError

if TYPE_CHECKING:
    from comfypin.lock.model import Lock
    from comfypin.models.interface import Watcher
    from comfypin.runpod.volume_bucket import VolumeBucket
    from comfypin.runpod.volume_push import Pushed
    from comfypin.runpod.volume_release import LocalFile, Owed, Record
    from comfypin.runpod.volumes import Destination, Volume
    from comfypin.settings.environment import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    parser.description = __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    push = _verb(verbs, "push", _push, "bring a release's models and env pack to volumes")
    push.add_argument("lock", metavar="LOCK", help="a lock file, or a release's name")
    push.add_argument("--models-dir", type=Path, metavar="DIR", help="where models lie here (default: MODELS_DIR)")
    push.add_argument("--home", type=Path, metavar="DIR", help="where the env is made here (default: COMFY_HOME)")
    push.add_argument("--no-env", action="store_true", help="models only")
    push.add_argument("--overwrite", action="store_true", help="replace files of others that are in the way")
    push.add_argument(
        "--part-size", type=_part_bytes, metavar="MB", help="the size of parts, 5 to 450 (32); small for slow lines"
    )
    _verb(verbs, "ls", _ls, "list the releases on volumes, their files and sizes")
    verify = _verb(verbs, "verify", _verify, "compare volumes with what was pushed there; exit code 70 on a difference")
    verify.add_argument("--deep", action="store_true", help="read every byte back")
    gc = _verb(verbs, "gc", _gc, "remove what was pushed and no kept release needs")
    gc.add_argument(
        "--keep", action="append", default=[], metavar="RELEASE", help="a release that stays; repeatable (all, if none)"
    )
    gc.add_argument("--remove", action="append", default=[], metavar="RELEASE", help="a release that goes; repeatable")
    gc.add_argument("--yes", action="store_true", help="remove it; without, it is only listed")


def _verb(  # type: ignore[no-untyped-def]
    verbs, name: str, act: object, summary: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    parser.add_argument(
        "--volume", action="append", required=True, metavar="NAME", help="its name or id; repeatable for several"
    )
    parser.add_argument("--dc", action="append", default=[], metavar="DC", help="only in this data centre; repeatable")
    parser.add_argument(
        "--file", type=Path, default=Path("runpod.toml"), help="where volumes of that name may be named (runpod.toml)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--verbose", action="store_true", help="say more, with tracebacks")
    parser.set_defaults(act=act)
    return parser


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    return int(arguments.act(arguments))


# -- push


def _push(arguments: argparse.Namespace) -> int:
    from comfypin.cli.model_progress import watching
    from comfypin.models.target_paths import Places
    from comfypin.runpod.volume_release import owed_models
    from comfypin.runpod.volumes import send_all

    began = time.monotonic()
    lock = read_named_lock(arguments.lock, arguments.settings)[1].lock
    settings = arguments.settings.overridden(comfy_home=arguments.home, models_dir=arguments.models_dir)
    machine = settings.machine
    places = Places(models_dir=machine.models_dir.absolute(), comfy_home=machine.comfy_home.absolute())
    owed = owed_models(lock, places)
    volumes = _volumes(arguments)
    with watching(as_json=arguments.json) as watcher:
        destinations = [_destination(arguments, lock, volume, watcher) for volume in volumes]
        missing = [destination.pusher.missing(owed) for destination in destinations]
        models = _local_models(lock, settings, [item for items in missing for item in items], watcher)
        packs = _local_pack(arguments, lock, settings, destinations)
        work = [
            (destination, [*(models[item.key] for item in items), *pack])
            for destination, items, pack in zip(destinations, missing, packs, strict=True)
        ]
        pushed = send_all(work, finish=lambda destination: _finish(lock, owed, destination))
    _print_pushed(destinations, pushed, len(owed), time.monotonic() - began, as_json=arguments.json)
    return 0


def _destination(arguments: argparse.Namespace, lock: "Lock", volume: "Volume", watcher: "Watcher") -> "Destination":
    from comfypin.lock.codec import lock_digest
    from comfypin.runpod.volume_push import PART_BYTES, Pusher, PushOptions
    from comfypin.runpod.volume_release import Record
    from comfypin.runpod.volumes import Destination

    record = Record(release=lock.version_name, lock_digest=str(lock_digest(lock)), complete=False, files={})
    options = PushOptions(
        part_bytes=arguments.part_size or PART_BYTES,
        overwrite=arguments.overwrite,
        notes=arguments.settings.state_dir / "volumes",
    )
    pusher = Pusher(
        _bucket(volume, arguments.settings), record, label=volume.data_center, options=options, watcher=watcher
    )
    return Destination(volume=volume, pusher=pusher)


def _local_models(
    lock: "Lock", settings: "Settings", missing: "list[Owed]", watcher: "Watcher"
) -> "dict[str, LocalFile]":
    """The models that some volume lacks, brought here where they are not, verified; by key."""
    from comfypin.runpod.volume_release import LocalFile
    from comfypin.wiring import bring_models, model_store

    wanted = {item.key: item for item in missing}
    needed = replace(lock, models=tuple(item.pin for item in wanted.values()))
    bring_models(needed, settings, offline=settings.env.offline, watcher=watcher)
    store = model_store(settings.machine.models_dir.absolute(), settings)
    if wanted:
        # Bringing a part of the release has noted that part alone.
        store.remember_release(lock.version_name, lock.models, create=False)
    files = {}
    for key, item in wanted.items():
        path = item.path.resolve()
        digest = item.sha256 or store.digest_of(path)
        files[key] = LocalFile(key=key, path=path, sha256=digest, size_bytes=path.stat().st_size)
    return files


def _local_pack(
    arguments: argparse.Namespace, lock: "Lock", settings: "Settings", destinations: "list[Destination]"
) -> "list[list[LocalFile]]":
    """For each destination the env pack, where the release has one and the volume does not."""
    import platform

    from comfypin.digest import Digest
    from comfypin.env.package_selection import machine_name
    from comfypin.env.realize_plan import key_of
    from comfypin.runpod.errors import PlatformUnfit
    from comfypin.runpod.volume_release import PACKS, LocalFile
    from comfypin.wiring import env_pack

    if arguments.no_env or lock.engine.kind != "comfyui":
        return [[] for _ in destinations]
    machine = machine_name(platform.system(), platform.machine())
    if machine != "linux-x86_64":
        raise PlatformUnfit(platform=machine)
    prefix = f"{PACKS}/{key_of(lock, machine)}."
    lacking = []
    for destination in destinations:
        key = destination.pusher.recorded_key(prefix)
        known = destination.pusher.there(key, None) if key else None
        if known is not None:
            destination.pusher.note(known)
        lacking.append(known is None)
    if not any(lacking):
        return [[] for _ in destinations]
    path = env_pack(lock, settings, tell=print_on_stderr)
    pack = LocalFile(
        key=f"{PACKS}/{path.name}",
        path=path,
        sha256=Digest.of_file(path),
        size_bytes=path.stat().st_size,
        kind="env",
    )
    return [[pack] if lacks else [] for lacks in lacking]


def _finish(lock: "Lock", owed: "list[Owed]", destination: "Destination") -> None:
    """Tell the models' store on the volume of the release, then write that all is there."""
    from comfypin.digest import Digest
    from comfypin.runpod.volume_release import store_record

    pusher = destination.pusher
    files = pusher.recorded_files
    if owed:
        digests = {item.pin.target_path: item.sha256 or Digest(files[item.key].sha256) for item in owed}
        key, data = store_record(replace(lock, models=tuple(item.pin for item in owed)), digests)
        if pusher.bucket.get(key) != data:
            pusher.bucket.put(key, data)
    pusher.finish()


def _print_pushed(
    destinations: "list[Destination]", pushed: "dict[str, list[Pushed]]", models: int, seconds: float, *, as_json: bool
) -> None:
    rows = []
    for destination in destinations:
        done = pushed[destination.volume.identifier]
        files = [
            {
                "key": item.key,
                "state": item.outcome,
                "sha256": item.sha256,
                "size_bytes": item.size_bytes,
                "sent_bytes": item.sent_bytes,
            }
            for item in done
        ]
        sent = sum(item.sent_bytes for item in done)
        total = len(destination.pusher.recorded_files)
        volume = destination.volume
        rows.append(
            {"volume": volume.identifier, "data_center": volume.data_center, "sent_bytes": sent, "pushed": files}
        )
        if not as_json:
            there = f"{_count(total, 'file')} there ({_count(models, 'model')})"
            print(f"{volume}: {there}, {_size(sent)} sent in {seconds:.1f} s")
    if as_json:
        print(json.dumps({"volumes": rows, "seconds": round(seconds, 3)}, indent=2, sort_keys=True))


# -- ls, verify, gc


def _ls(arguments: argparse.Namespace) -> int:
    rows = [(volume, record) for volume, _bucket, records in _recorded(arguments) for record in records]
    if arguments.json:
        print(json.dumps({"releases": [_record_to_json(volume, record) for volume, record in rows]}, indent=2))
        return 0
    for volume, record in rows:
        state = "" if record.complete else "  (push not ended)"
        total = sum(item.size_bytes for item in record.files.values())
        print(f"{volume}: {record.release}, {_size(total)}{state}")
        for item in sorted(record.files.values(), key=lambda item: item.key):
            print(f"  {_size(item.size_bytes):>10}  {item.key}")
    if not rows:
        print("No release was pushed there yet: comfypin runpod volume push LOCK --volume NAME")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.errors import VolumeDiffers
    from comfypin.runpod.volume_care import verify

    checked = 0
    for volume, bucket, records in _recorded(arguments):
        found = verify(bucket, records, deep=arguments.deep)
        if found:
            raise VolumeDiffers(
                volume=str(volume), findings=[f"{item.release}: {item.key} {item.problem}" for item in found]
            )
        checked += sum(len(record.files) for record in records)
    how = "every byte read" if arguments.deep else "by size and etag; --deep reads every byte"
    people = f"{_count(checked, 'file')} as pushed ({how})" if checked else "No release was pushed there yet."
    print(json.dumps({"files": checked, "deep": arguments.deep}) if arguments.json else people)
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.volume_care import collect, find_garbage

    if arguments.keep and arguments.remove:
        raise UsageError("Say which releases stay (--keep) or which go (--remove), not both.")
    rows = []
    for volume, bucket, records in _recorded(arguments):
        names = {record.release for record in records}
        if unknown := sorted(set(arguments.keep + arguments.remove) - names):
            there = ", ".join(sorted(names)) or "none"
            raise UsageError(f"{volume} has no release {', '.join(unknown)}; it has {there}.")
        keep = set(arguments.keep) or names - set(arguments.remove)
        garbage = find_garbage(bucket, keep=keep)
        if arguments.yes:
            collect(bucket, garbage)
        rows.append((volume, garbage))
    if arguments.json:
        facts = [
            {
                "volume": volume.identifier,
                "objects": [item.key for item in garbage.objects],
                "uploads": [item.key for item in garbage.uploads],
                "releases": [record.release for record in garbage.records],
                "size_bytes": garbage.size_bytes,
            }
            for volume, garbage in rows
        ]
        print(json.dumps({"garbage": facts, "removed": arguments.yes}, indent=2))
        return 0
    for volume, garbage in rows:
        for item in garbage.objects:
            print(f"{_size(item.size_bytes):>10}  {item.key}")
        for upload in garbage.uploads:
            print(f"unfinished  {upload.key} (begun {upload.begun})")
        done = "removed" if arguments.yes else "would go; --yes removes it"
        count = len(garbage.objects) + len(garbage.uploads) + len(garbage.records)
        print(f"{volume}: {_size(garbage.size_bytes)} {done}" if count else f"{volume}: nothing is to be removed")
    return 0


def _record_to_json(volume: "Volume", record: "Record") -> dict[str, object]:
    return {
        "volume": volume.identifier,
        "data_center": volume.data_center,
        "release": record.release,
        "lock_digest": record.lock_digest,
        "complete": record.complete,
        "files": [
            {"key": item.key, "sha256": item.sha256, "size_bytes": item.size_bytes, "kind": item.kind}
            for item in sorted(record.files.values(), key=lambda item: item.key)
        ],
    }


def _recorded(arguments: argparse.Namespace) -> "list[tuple[Volume, VolumeBucket, list[Record]]]":
    from comfypin.runpod.volume_release import read_records

    found = []
    for volume in _volumes(arguments):
        bucket = _bucket(volume, arguments.settings)
        found.append((volume, bucket, read_records(bucket)))
    return found


def _volumes(arguments: argparse.Namespace) -> "list[Volume]":
    from comfypin.runpod.deployment_file import read_deployment
    from comfypin.runpod.volumes import find_volumes
    from comfypin.wiring import runpod_api

    deployment = read_deployment(arguments.file).deployment.name if arguments.file.exists() else None
    return find_volumes(runpod_api(arguments.settings), arguments.volume, centers=arguments.dc, deployment=deployment)


def _bucket(volume: "Volume", settings: "Settings") -> "VolumeBucket":
    from comfypin.wiring import volume_bucket

    return volume_bucket(volume.identifier, volume.data_center, settings)


def _part_bytes(text: str) -> int:
    from comfypin.runpod.volume_push import LARGEST_PART_BYTES, MIB, SMALLEST_PART_BYTES

    size = int(text) * MIB if text.isdigit() else 0
    if not SMALLEST_PART_BYTES <= size <= LARGEST_PART_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of parts; give MB from 5 to 450")
    return size


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
