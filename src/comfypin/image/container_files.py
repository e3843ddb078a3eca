"""Reads a file out of an image with the programs that copy out of containers: docker and podman."""

import io
import tarfile

from comfypin.image.errors import NoSuchImage
from comfypin.tools.process import run_program


def copy_out(program_name: str, image_tag: str, file_path: str) -> bytes | None:
    """Return a file of an image, or None. A container is made to read it and never started.

    Raises `NoSuchImage`.
    """
    created = run_program([program_name, "create", image_tag], timeout_s=60)
    if created.exit_code:
        raise NoSuchImage(tag=image_tag, builder=program_name)
    container = created.stdout_text.strip().splitlines()[-1]
    try:
        copied = run_program([program_name, "cp", f"{container}:{file_path}", "-"], timeout_s=60)
    finally:
        run_program([program_name, "rm", container], timeout_s=60)
    if copied.exit_code:
        return None
    with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as archive:
        extracted = archive.extractfile(archive.getmembers()[0])
        return None if extracted is None else extracted.read()
