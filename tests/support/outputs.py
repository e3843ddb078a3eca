"""Outputs and job facts, made from bytes."""

from pathlib import Path

from comfypin.digest import Digest
from comfypin.lock.model import Release
from comfypin.outputs.interface import JobFacts, Output

FACTS = JobFacts(job_id="job", release=Release(name="test", digest=Digest.of(b"lock")))


def an_output(spool: Path, data: bytes, *, filename: str = "a.png", subfolder: str = "", index: int = 0) -> Output:
    """An output whose bytes lie in `spool`."""
    spool.mkdir(parents=True, exist_ok=True)
    path = spool / str(index)
    path.write_bytes(data)
    return Output(
        index=index,
        node_id="9",
        kind="image",
        filename=filename,
        subfolder=subfolder,
        media_type="image/png",
        size_bytes=len(data),
        sha256=Digest.of(data),
        path=path,
    )
