"""Where a job's previews go: pictures of what its nodes are making, for whoever looks on."""

from typing import Protocol

from comfypin.engine.interface import PreviewMade


class PreviewSink(Protocol):
    """Takes the previews of jobs. To be called on the event loop; returns at once."""

    def is_wanted(self, job_id: str) -> bool:
        """Return whether somebody looks on: an engine that is not asked for previews need not make them."""

    def show(self, job_id: str, preview: PreviewMade) -> None:
        """Show a preview, which replaces the one before."""
