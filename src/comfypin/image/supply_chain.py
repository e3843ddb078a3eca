"""Scans images with trivy and signs them with cosign, if they are installed."""

import shutil
from pathlib import Path

from comfypin.image.errors import ScanFailed, SignFailed, SupplyToolMissing
from comfypin.image.interface import ContainerBuilder, Report
from comfypin.image.program_output import run_and_report
from comfypin.temp_folders import temp_folder

_TRIVY = "https://trivy.dev"
_COSIGN = "https://docs.sigstore.dev/cosign"


def require_tools(*, wants_scan: bool, wants_sign: bool) -> None:
    """Raise `SupplyToolMissing` if a requested tool is missing, before anything is done."""
    if wants_scan and shutil.which("trivy") is None:
        raise SupplyToolMissing(flag="--scan", tool="trivy", address=_TRIVY)
    if wants_sign and shutil.which("cosign") is None:
        raise SupplyToolMissing(flag="--sign", tool="cosign", address=_COSIGN)


def scan_image(builder: ContainerBuilder, image_tag: str, report: Report) -> None:
    """Look for known vulnerabilities. Raises `ScanFailed` at a serious one that has a fix."""
    # Only what has a fix: else no base image would ever pass.
    command = ["trivy", "image", "--quiet", "--exit-code", "1", "--severity", "HIGH,CRITICAL", "--ignore-unfixed"]
    # As a file, because trivy does not see into the stores of all builders.
    with temp_folder("scan") as temporary_folder:
        archive_path = Path(temporary_folder, "image.tar")
        builder.save(image_tag, archive_path)
        output = run_and_report([*command, "--input", archive_path], report)
    if output.exit_code:
        raise ScanFailed(tag=image_tag, _log=output.log_text)


def sign_image(reference: str, contents: bytes, report: Report) -> None:
    """Sign an image by digest, and attest its list of contents. Raises `SignFailed`."""
    with temp_folder("sign") as temporary_folder:
        contents_path = Path(temporary_folder, "contents.cdx.json")
        contents_path.write_bytes(contents)
        for command in (
            # By digest: a tag could be moved between the push and the signature.
            ["cosign", "sign", "--yes", reference],
            ["cosign", "attest", "--yes", "--type", "cyclonedx", "--predicate", str(contents_path), reference],
        ):
            output = run_and_report(command, report)
            if output.exit_code:
                raise SignFailed(reference=reference, reason=output.error_summary)
