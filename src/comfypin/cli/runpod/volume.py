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
from comfypin.cli.runpod.volume_reports import print_push_report, record_to_json
from comfypin.errors import UsageError
from comfypin.plurals import format_count, format_size

if TYPE_CHECKING:
    from comfypin.env.pack.progress import ByteReport
    from comfypin.lock.model import Lock
    from comfypin.models.interface import PullWatcher
    from comfypin.runpod.volume_bucket import VolumeBucket
    from comfypin.runpod.volume_release import FileToPush, OwedModel, PushRecord
    from comfypin.runpod.volumes import NetworkVolume, PushDestination
    from comfypin.settings.environment import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs and their flags."""
    parser.description = __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    verb_parsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    push_parser = _add_verb(verb_parsers, "push", _push_release, "bring a release's models and env pack to volumes")
    push_parser.add_argument("lock", metavar="LOCK", help="a lock file, or a release's name")
    push_parser.add_argument(
        "--models-dir", type=Path, metavar="DIR", help="the models folder of this machine (default: MODELS_DIR)"
    )
    push_parser.add_argument(
        "--home", type=Path, metavar="DIR", help="the folder of this machine's env (default: COMFY_HOME)"
    )
    push_parser.add_argument("--no-env", action="store_true", help="push only the models")
    push_parser.add_argument("--overwrite", action="store_true", help="replace files that comfypin did not push")
    push_parser.add_argument(
        "--part-size",
        type=_parse_part_size,
        metavar="MB",
        help="the part size, 5 to 450 (32); use small parts on slow lines",
    )
    _add_verb(verb_parsers, "ls", _list_releases, "list the releases on volumes, their files and sizes")
    verify_parser = _add_verb(
        verb_parsers,
        "verify",
        _verify_volumes,
        "compare volumes with what was pushed there; exit code 70 on a difference",
    )
    verify_parser.add_argument("--deep", action="store_true", help="download and hash every byte")
    gc_parser = _add_verb(verb_parsers, "gc", _collect_garbage, "remove what was pushed and no kept release needs")
    gc_parser.add_argument(
        "--keep", action="append", default=[], metavar="RELEASE", help="a release to keep (default: all); repeatable"
    )
    gc_parser.add_argument(
        "--remove", action="append", default=[], metavar="RELEASE", help="a release to remove; repeatable"
    )
    gc_parser.add_argument("--yes", action="store_true", help="remove it; without --yes it is only listed")


def _add_verb(
    verb_parsers: "argparse._SubParsersAction[argparse.ArgumentParser]", verb_name: str, run_verb: object, summary: str
) -> argparse.ArgumentParser:
    verb_parser: argparse.ArgumentParser = verb_parsers.add_parser(
        verb_name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    verb_parser.add_argument(
        "--volume", action="append", required=True, metavar="NAME", help="the volume's name or id; repeatable"
    )
    verb_parser.add_argument(
        "--dc", action="append", default=[], metavar="DC", help="only in this data centre; repeatable"
    )
    verb_parser.add_argument(
        "--file", type=Path, default=Path("runpod.toml"), help="the deployment that may name the volume (runpod.toml)"
    )
    verb_parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    verb_parser.add_argument("--verbose", action="store_true", help="show the cause of failures")
    verb_parser.set_defaults(act=run_verb)
    return verb_parser


def execute(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    return int(arguments.act(arguments))


# -- push


def _push_release(arguments: argparse.Namespace) -> int:
    from comfypin.cli.model_progress import open_watcher
    from comfypin.models.target_paths import TargetRoots
    from comfypin.runpod.volume_release import owed_models
    from comfypin.runpod.volumes import push_to_all

    began_s = time.monotonic()
    lock = read_named_lock(arguments.lock, arguments.settings)[1].lock
    settings = arguments.settings.with_flags(comfy_home=arguments.home, models_dir=arguments.models_dir)
    machine = settings.machine
    target_places = TargetRoots(models_dir=machine.models_dir.absolute(), comfy_home=machine.comfy_home.absolute())
    owed_files = owed_models(lock, target_places)
    volumes = _find_volumes(arguments)
    with open_watcher(as_json=arguments.json) as watcher:
        destinations = [_make_destination(arguments, lock, volume, watcher) for volume in volumes]
        missing_models = [destination.pusher.select_missing(owed_files) for destination in destinations]
        local_models = _bring_models_here(
            lock, settings, [owed_model for lacking in missing_models for owed_model in lacking], watcher
        )
        local_packs = _pack_env_here(arguments, lock, settings, destinations, watcher)
        uploads = [
            (destination, [*(local_models[owed_model.key] for owed_model in lacking), *pack_files])
            for destination, lacking, pack_files in zip(destinations, missing_models, local_packs, strict=True)
        ]
        pushed = push_to_all(uploads, finish=lambda destination: _finish_volume(lock, owed_files, destination))
    print_push_report(destinations, pushed, len(owed_files), time.monotonic() - began_s, as_json=arguments.json)
    return 0


def _make_destination(
    arguments: argparse.Namespace, lock: "Lock", volume: "NetworkVolume", watcher: "PullWatcher"
) -> "PushDestination":
    from comfypin.lock.codec import lock_digest
    from comfypin.runpod.volume_push import PART_BYTES, PushOptions, VolumePusher
    from comfypin.runpod.volume_release import PushRecord
    from comfypin.runpod.volumes import PushDestination

    record = PushRecord(release=lock.version_name, lock_digest=str(lock_digest(lock)), complete=False, files={})
    options = PushOptions(
        part_bytes=arguments.part_size or PART_BYTES,
        overwrite=arguments.overwrite,
        notes=arguments.settings.state_dir / "volumes",
    )
    pusher = VolumePusher(
        _open_bucket(volume, arguments.settings), record, label=volume.data_center, options=options, watcher=watcher
    )
    return PushDestination(volume=volume, pusher=pusher)


def _bring_models_here(
    lock: "Lock", settings: "Settings", missing: "list[OwedModel]", watcher: "PullWatcher"
) -> "dict[str, FileToPush]":
    """Pull the models that some volume lacks to this machine, and return them by object key."""
    from comfypin.runpod.volume_release import FileToPush
    from comfypin.wiring import bring_models, open_model_store

    # By key: several volumes may lack a model, but it is pulled once.
    wanted_models = {item.key: item for item in missing}
    needed_lock = replace(lock, models=tuple(item.pin for item in wanted_models.values()))
    bring_models(needed_lock, settings, offline=settings.env.offline, watcher=watcher)
    store = open_model_store(settings.machine.models_dir.absolute(), settings)
    if wanted_models:
        # Bringing a part of the release has noted that part alone.
        store.remember_release(lock.version_name, lock.models, create=False)
    local_files = {}
    for object_key, owed_model in wanted_models.items():
        # The link in the models folder leads to a blob.
        local_path = owed_model.path.resolve()
        # A pin may lack its sha256; the store has hashed the file.
        digest = owed_model.sha256 or store.digest_of(local_path)
        local_files[object_key] = FileToPush(
            key=object_key, path=local_path, sha256=digest, size_bytes=local_path.stat().st_size
        )
    return local_files


def _pack_env_here(
    arguments: argparse.Namespace,
    lock: "Lock",
    settings: "Settings",
    destinations: "list[PushDestination]",
    watcher: "PullWatcher",
) -> "list[list[FileToPush]]":
    """Return for each destination the env pack if its volume lacks it, else no file."""
    import platform

    from comfypin.digest import Digest
    from comfypin.env.package_selection import machine_name
    from comfypin.env.realize_plan import build_key
    from comfypin.runpod.errors import PlatformUnfit
    from comfypin.runpod.volume_release import PACKS, FileToPush
    from comfypin.wiring import ensure_env_pack

    if arguments.no_env or lock.engine.kind != "comfyui":
        return [[] for _ in destinations]
    machine = machine_name(platform.system(), platform.machine())
    # Runpod's workers are linux-x86_64, and an env pack fits one platform only.
    if machine != "linux-x86_64":
        raise PlatformUnfit(platform=machine)
    # The pack's name ends with its digest, which is not known before it is made.
    prefix = f"{PACKS}/{build_key(lock, machine)}."
    lacking = []
    for destination in destinations:
        object_key = destination.pusher.recorded_key(prefix)
        known_object = destination.pusher.find_pushed(object_key, None) if object_key else None
        if known_object is not None:
            destination.pusher.note_file(known_object)
        lacking.append(known_object is None)
    if not any(lacking):
        return [[] for _ in destinations]
    pack_path = ensure_env_pack(lock, settings, report=print_on_stderr, report_bytes=_report_to(watcher))
    pack_file = FileToPush(
        key=f"{PACKS}/{pack_path.name}",
        path=pack_path,
        sha256=Digest.of_file(pack_path),
        size_bytes=pack_path.stat().st_size,
        kind="env",
    )
    return [[pack_file] if lacks_pack else [] for lacks_pack in lacking]


def _report_to(watcher: "PullWatcher") -> "ByteReport":
    """Return a callback that shows what is packed or unpacked beside what is pulled and pushed."""
    reported: dict[str, int] = {}

    def report_bytes(label: str, done_bytes: int, total_bytes: int) -> None:
        if label not in reported:
            watcher.start_file(label, total_bytes, 0)
        watcher.advance_file(label, done_bytes - reported.get(label, 0))
        reported[label] = done_bytes
        if done_bytes == total_bytes:
            watcher.end_file(label, "done")

    return report_bytes


def _finish_volume(lock: "Lock", owed_models: "list[OwedModel]", destination: "PushDestination") -> None:
    """Record the release in the volume's model store, then mark the push as complete."""
    from comfypin.digest import Digest
    from comfypin.runpod.volume_release import store_record

    pusher = destination.pusher
    recorded_files = pusher.recorded_files
    if owed_models:
        digests = {
            owed_model.pin.target_path: owed_model.sha256 or Digest(recorded_files[owed_model.key].sha256)
            for owed_model in owed_models
        }
        record_key, record_bytes = store_record(
            replace(lock, models=tuple(owed_model.pin for owed_model in owed_models)), digests
        )
        if pusher.bucket.read_object(record_key) != record_bytes:
            pusher.bucket.put_object(record_key, record_bytes)
    pusher.finish_release()


# -- ls, verify, gc


def _list_releases(arguments: argparse.Namespace) -> int:
    volume_records = [
        (volume, record) for volume, _bucket, records in _read_volume_records(arguments) for record in records
    ]
    if arguments.json:
        print(json.dumps({"releases": [record_to_json(volume, record) for volume, record in volume_records]}, indent=2))
        return 0
    for volume, record in volume_records:
        state = "" if record.complete else "  (push not ended)"
        total_bytes = sum(item.size_bytes for item in record.files.values())
        print(f"{volume}: {record.release}, {format_size(total_bytes)}{state}")
        for recorded_file in sorted(record.files.values(), key=lambda item: item.key):
            print(f"  {format_size(recorded_file.size_bytes):>10}  {recorded_file.key}")
    if not volume_records:
        print("No release was pushed there yet: comfypin runpod volume push LOCK --volume NAME")
    return 0


def _verify_volumes(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.errors import VolumeDiffers
    from comfypin.runpod.volume_care import verify_volume

    checked_files = 0
    for volume, bucket, records in _read_volume_records(arguments):
        differences = verify_volume(bucket, records, deep=arguments.deep)
        if differences:
            raise VolumeDiffers(
                volume=str(volume),
                findings=[f"{difference.release}: {difference.key} {difference.problem}" for difference in differences],
            )
        checked_files += sum(len(record.files) for record in records)
    method = "every byte read" if arguments.deep else "by size and etag; --deep reads every byte"
    sentence = (
        f"{format_count(checked_files, 'file')} as pushed ({method})"
        if checked_files
        else "No release was pushed there yet."
    )
    print(json.dumps({"files": checked_files, "deep": arguments.deep}) if arguments.json else sentence)
    return 0


def _collect_garbage(arguments: argparse.Namespace) -> int:
    from comfypin.runpod.volume_care import find_garbage, remove_garbage

    if arguments.keep and arguments.remove:
        raise UsageError("--keep and --remove contradict each other; say which releases stay, or which go.")
    volume_garbage = []
    for volume, bucket, records in _read_volume_records(arguments):
        release_names = {record.release for record in records}
        # A misspelt name would remove what should stay.
        if unknown := sorted(set(arguments.keep + arguments.remove) - release_names):
            present_names = ", ".join(sorted(release_names)) or "none"
            raise UsageError(f"{volume} has no release {', '.join(unknown)}; it has {present_names}.")
        # Without --keep every release stays, but for those of --remove.
        kept_releases = set(arguments.keep) or release_names - set(arguments.remove)
        garbage = find_garbage(bucket, keep=kept_releases)
        if arguments.yes:
            remove_garbage(bucket, garbage)
        volume_garbage.append((volume, garbage))
    if arguments.json:
        facts = [
            {
                "volume": volume.identifier,
                "objects": [item.key for item in garbage.objects],
                "uploads": [item.key for item in garbage.uploads],
                "releases": [record.release for record in garbage.records],
                "size_bytes": garbage.size_bytes,
            }
            for volume, garbage in volume_garbage
        ]
        print(json.dumps({"garbage": facts, "removed": arguments.yes}, indent=2))
        return 0
    for volume, garbage in volume_garbage:
        for object_entry in garbage.objects:
            print(f"{format_size(object_entry.size_bytes):>10}  {object_entry.key}")
        for upload in garbage.uploads:
            print(f"unfinished  {upload.key} (begun {upload.begun})")
        done = "removed" if arguments.yes else "would be removed; --yes removes it"
        count = len(garbage.objects) + len(garbage.uploads) + len(garbage.records)
        print(
            f"{volume}: {format_size(garbage.size_bytes)} {done}" if count else f"{volume}: there is nothing to remove"
        )
    return 0


def _read_volume_records(arguments: argparse.Namespace) -> "list[tuple[NetworkVolume, VolumeBucket, list[PushRecord]]]":
    from comfypin.runpod.volume_release import read_records

    volume_records = []
    for volume in _find_volumes(arguments):
        bucket = _open_bucket(volume, arguments.settings)
        volume_records.append((volume, bucket, read_records(bucket)))
    return volume_records


def _find_volumes(arguments: argparse.Namespace) -> "list[NetworkVolume]":
    from comfypin.runpod.deployment_file import read_deployment
    from comfypin.runpod.volumes import find_volumes
    from comfypin.wiring import open_runpod_api

    deployment = read_deployment(arguments.file).deployment.name if arguments.file.exists() else None
    return find_volumes(
        open_runpod_api(arguments.settings), arguments.volume, centers=arguments.dc, deployment=deployment
    )


def _open_bucket(volume: "NetworkVolume", settings: "Settings") -> "VolumeBucket":
    from comfypin.wiring import open_volume_bucket

    return open_volume_bucket(volume.identifier, volume.data_center, settings)


def _parse_part_size(size_text: str) -> int:
    from comfypin.runpod.volume_push import LARGEST_PART_BYTES, MIB, SMALLEST_PART_BYTES

    size = int(size_text) * MIB if size_text.isdigit() else 0
    if not SMALLEST_PART_BYTES <= size <= LARGEST_PART_BYTES:
        raise argparse.ArgumentTypeError(f"{size_text!r} is not a part size in MB from 5 to 450")
    return size
