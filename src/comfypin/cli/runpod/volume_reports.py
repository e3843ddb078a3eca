"""Reports of `comfypin runpod volume` on pushes and releases, for people or as JSON."""

import json
from typing import TYPE_CHECKING

from comfypin.plurals import format_count, format_size

if TYPE_CHECKING:
    from comfypin.runpod.volume_push import PushedFile
    from comfypin.runpod.volume_release import PushRecord
    from comfypin.runpod.volumes import NetworkVolume, PushDestination


def print_push_report(
    destinations: "list[PushDestination]",
    pushed: "dict[str, list[PushedFile]]",
    models: int,
    elapsed_s: float,
    *,
    as_json: bool,
) -> None:
    """Print what was sent to each volume, and what is on it now."""
    volume_rows = []
    for destination in destinations:
        pushed_files = pushed[destination.volume.identifier]
        file_rows = [
            {
                "key": pushed_file.key,
                "state": pushed_file.outcome,
                "sha256": pushed_file.sha256,
                "size_bytes": pushed_file.size_bytes,
                "sent_bytes": pushed_file.sent_bytes,
            }
            for pushed_file in pushed_files
        ]
        sent_bytes = sum(pushed_file.sent_bytes for pushed_file in pushed_files)
        file_count = len(destination.pusher.recorded_files)
        volume = destination.volume
        volume_rows.append(
            {
                "volume": volume.identifier,
                "data_center": volume.data_center,
                "sent_bytes": sent_bytes,
                "pushed": file_rows,
            }
        )
        if not as_json:
            present_text = f"{format_count(file_count, 'file')} there ({format_count(models, 'model')})"
            print(f"{volume}: {present_text}, {format_size(sent_bytes)} sent in {elapsed_s:.1f} s")
    if as_json:
        print(json.dumps({"volumes": volume_rows, "seconds": round(elapsed_s, 3)}, indent=2, sort_keys=True))


def record_to_json(volume: "NetworkVolume", record: "PushRecord") -> dict[str, object]:
    """Return what was pushed of a release to a volume, for JSON."""
    return {
        "volume": volume.identifier,
        "data_center": volume.data_center,
        "release": record.release,
        "lock_digest": record.lock_digest,
        "complete": record.complete,
        "files": [
            {
                "key": recorded_file.key,
                "sha256": recorded_file.sha256,
                "size_bytes": recorded_file.size_bytes,
                "kind": recorded_file.kind,
            }
            for recorded_file in sorted(record.files.values(), key=lambda recorded_file: recorded_file.key)
        ],
    }
