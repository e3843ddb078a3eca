"""Tries whether a program really builds images: builds the smallest one, without a network or a base image."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from comfypin.temp_folders import temp_folder
from comfypin.tools.errors import ToolTimedOut
from comfypin.tools.process import run_program

_DOCKERFILE = 'FROM scratch\nCOPY Dockerfile /\nLABEL com.comfypin.trial="yes"\n'
# An empty image takes a second; a daemon that hangs takes for ever.
_TRIAL_S = 60.0


def explain_trial_failure(
    build_command: Sequence[str], remove_command: Sequence[str], *, env: Mapping[str, str] | None = None
) -> str | None:
    """Build an image and remove it again; return why it could not be built, None if it could.

    A program that answers may still not build: Docker without its buildx plugin, a store without its helpers.
    """
    with temp_folder("trial") as temporary_folder:
        Path(temporary_folder, "Dockerfile").write_text(_DOCKERFILE, encoding="utf-8")
        try:
            finished = run_program([*build_command, "--quiet", temporary_folder], timeout_s=_TRIAL_S, env=env)
        except ToolTimedOut as timed_out:
            return timed_out.message
    if finished.exit_code:
        return finished.error_summary
    image_id = finished.stdout_text.strip().splitlines()[-1:]
    if image_id and re.fullmatch(r"(sha256:)?[0-9a-f]{12,64}", image_id[0]):
        run_program([*remove_command, image_id[0]], timeout_s=_TRIAL_S)
    return None
