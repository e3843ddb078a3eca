"""Reports of `comfypin models` on pulls, checks and the store, for people or as JSON."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.plurals import format_count, format_size

if TYPE_CHECKING:
    from comfypin.lock.model import ModelPin
    from comfypin.models.gc import BlobUse
    from comfypin.models.pull_report import PullReport
    from comfypin.models.verify import ModelFinding


def print_pull_report(pull_report: "PullReport", elapsed_s: float, *, as_json: bool) -> None:
    """Print where each model came from, and warn of failed sources and of models without a sha256."""
    if as_json:
        # Failures are raised later, and printed as an object of their own.
        if not pull_report.failures:
            models = [outcome.to_json() for outcome in pull_report.outcomes]
            print(json.dumps({"models": models, "seconds": round(elapsed_s, 3)}, indent=2, sort_keys=True))
        return
    for outcome in pull_report.outcomes:
        origin = f" from {outcome.source}" if outcome.source else ""
        print(f"{outcome.path}: {outcome.state}{origin}")
        for reason in outcome.failed_sources:
            print(f"comfypin: {outcome.pin.name}: a source failed: {reason}", file=sys.stderr)
        if outcome.aside is not None:
            print(f"comfypin: the file that was at {outcome.path} was moved to {outcome.aside}", file=sys.stderr)
        # Printed in full, so that it can be copied into the lock.
        if outcome.pin.sha256 is None:
            print(
                f"comfypin: {outcome.pin.name} has no sha256 in the lock, so nothing proves its bytes; "
                f"they have sha256 {outcome.digest.hex}, {outcome.size_bytes} bytes",
                file=sys.stderr,
            )
    fetched_bytes = sum(outcome.size_bytes for outcome in pull_report.outcomes if outcome.state == "fetched")
    print(
        f"{format_count(len(pull_report.outcomes), 'model')} in {elapsed_s:.1f} s, "
        f"{format_size(fetched_bytes)} fetched",
        file=sys.stderr,
    )


def print_findings(
    models: "list[tuple[ModelPin, Path]]", findings: "list[ModelFinding]", elapsed_s: float, *, as_json: bool
) -> None:
    """Print what was found at each model's path."""
    from comfypin.models.verify import Present, describe_finding

    if as_json:
        found_facts = [
            {"model": pin.name, "path": str(path), "finding": type(finding).__name__, "says": describe_finding(finding)}
            for (pin, path), finding in zip(models, findings, strict=True)
        ]
        print(json.dumps({"models": found_facts, "seconds": round(elapsed_s, 3)}, indent=2, sort_keys=True))
        return
    for (_, path), finding in zip(models, findings, strict=True):
        if isinstance(finding, Present):
            print(f"{path}: {'verified' if finding.proven else describe_finding(finding)}")
    print(f"{format_count(len(findings), 'model')} in {elapsed_s:.2f} s", file=sys.stderr)


def print_removed(blob_uses: "list[BlobUse]", what_happened: str, *, as_json: bool) -> None:
    """Print the blobs that were or would be removed."""
    if as_json:
        print(
            json.dumps({what_happened.replace(" ", "_"): list(map(blob_to_json, blob_uses))}, indent=2, sort_keys=True)
        )
        return
    for blob_use in blob_uses:
        print(f"{what_happened}: {format_blob(blob_use)}")


def format_blob(blob_use: "BlobUse") -> str:
    """Return one line about a blob: size, digest, last use, releases and paths."""
    used_day = time.strftime("%Y-%m-%d %H:%M", time.localtime(blob_use.used_at))
    target_names = ", ".join(blob_use.targets) or "-"
    release_names = ", ".join(blob_use.releases) or "-"
    size = f"{format_size(blob_use.size_bytes):>10}"
    return f"{size}  {blob_use.digest.hex[:16]}  {used_day}  {release_names}  {target_names}"


def blob_to_json(blob_use: "BlobUse") -> dict[str, object]:
    """Return a blob's facts for JSON."""
    return {
        "sha256": blob_use.digest.hex,
        "size_bytes": blob_use.size_bytes,
        "used_at": int(blob_use.used_at),
        "releases": list(blob_use.releases),
        "targets": list(blob_use.targets),
    }
