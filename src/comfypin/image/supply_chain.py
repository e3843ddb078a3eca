"""Scanning and signing by the tools of that trade, where they are installed."""

import shutil
from pathlib import Path

from comfypin.image.errors import ScanFailed, SignFailed, SupplyToolMissing
from comfypin.image.interface import ContainerBuilder, Hear
from comfypin.image.program_output import speak
from comfypin.lock.export import export_lock
from comfypin.lock.model import Lock
from comfypin.temp_folders import temp_folder

_TRIVY = "https://trivy.dev"
_COSIGN = "https://docs.sigstore.dev/cosign"


def require_tools(*, wants_scan: bool, wants_sign: bool) -> None:
    """Raises `SupplyToolMissing` before anything is done."""
    if wants_scan and shutil.which("trivy") is None:
        raise SupplyToolMissing(flag="--scan", tool="trivy", address=_TRIVY)
    if wants_sign and shutil.which("cosign") is None:
        raise SupplyToolMissing(flag="--sign", tool="cosign", address=_COSIGN)


def scan(builder: ContainerBuilder, tag: str, hear: Hear) -> None:
    """Look for known holes. Raises `ScanFailed` at one that is grave and has a fix."""
    words = ["trivy", "image", "--quiet", "--exit-code", "1", "--severity", "HIGH,CRITICAL", "--ignore-unfixed"]
    # As a file, because trivy does not see into the stores of all builders.
    with temp_folder("scan") as scratch:
        archive = Path(scratch, "image.tar")
        builder.save(tag, archive)
        spoken = speak([*words, "--input", archive], hear)
    if spoken.exit_code:
        raise ScanFailed(tag=tag, log=spoken.log)


def sign(reference: str, lock: Lock, hear: Hear) -> None:
    """Sign an image by digest, and attest its list of contents. Raises `SignFailed`."""
    with temp_folder("sign") as scratch:
        contents = Path(scratch, "contents.cdx.json")
        contents.write_text(export_lock(lock, "cyclonedx"), encoding="utf-8")
        for words in (
            ["cosign", "sign", "--yes", reference],
            ["cosign", "attest", "--yes", "--type", "cyclonedx", "--predicate", str(contents), reference],
        ):
            spoken = speak(words, hear)
            if spoken.exit_code:
                raise SignFailed(reference=reference, reason=spoken.complaint)
