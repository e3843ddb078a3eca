"""Numbers the releases of a deployment: what is the same to Runpod keeps its number. Pure."""

from dataclasses import replace

from comfypin.runpod.up.state import UpRelease, UpState


def number_release(release: UpRelease, state: UpState) -> UpRelease:
    """Return the release with its number, and with what is known of it if it is the one that is there.

    A release that was only planned gives its number to the next one: nobody has ever seen it.
    """
    latest = state.latest
    if latest is None:
        return replace(release, number=1)
    if latest.deploys_as(release):
        return replace(
            release,
            number=latest.number,
            made_at=latest.made_at,
            note=latest.note,
            stage=latest.stage,
            seconds=latest.seconds,
            volume_gb=release.volume_gb if latest.volume_gb is None else max(latest.volume_gb, release.volume_gb or 0),
        )
    return replace(release, number=latest.number if latest.stage == "planned" else latest.number + 1)
