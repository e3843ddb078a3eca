"""`comfypin runpod fill`: what the pod runs that `comfypin runpod up` starts at a network volume.

It puts the lock, the models and the env pack on the volume, says so in its log, and removes its own pod. A second run
finds what is there.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import ComfypinError
from comfypin.plurals import format_size

if TYPE_CHECKING:
    from comfypin.lock.model import Lock
    from comfypin.settings.environment import Settings

# A container that ends is started again, for ever, by the pod that it is in.
_MOST_TRIES = 3
# Time for whoever reads the log to see its last line: it is gone with the pod.
_LINGER_S = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.description = __doc__
    parser.add_argument("--volume", type=Path, required=True, metavar="DIR", help="where the volume is mounted")
    parser.add_argument("--lock", metavar="FILE|NAME", help="the lock (default: what the variables say)")
    parser.add_argument(
        "--linger", type=float, default=_LINGER_S, metavar="S", help="seconds before the pod removes itself (60)"
    )
    parser.add_argument("--verbose", action="store_true", help="show the cause of failures")


def execute(arguments: argparse.Namespace) -> int:
    """Fill the volume, then end the pod."""
    from comfypin.cli.common import read_named_lock
    from comfypin.lock.codec import lock_digest, render_lock
    from comfypin.runpod.up.fill_report import FillNews, fill_line

    exit_code = 0
    try:
        lock = read_named_lock(arguments.lock, arguments.settings)[1].lock
        job = VolumeFill(
            volume=arguments.volume.absolute(),
            lock=lock,
            lock_bytes=render_lock(lock),
            digest=str(lock_digest(lock)),
            settings=arguments.settings,
            say=lambda news: print(fill_line(news), flush=True),
        )
        job.fill()
    except ComfypinError as error:
        print(fill_line(FillNews(failed=error.command_message)), flush=True)
        exit_code = error.exit_code
    _end_own_pod(arguments.settings, arguments.linger)
    return exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFill:
    """One filling of a volume. Every file on it appears whole; the note that it is filled comes last."""

    volume: Path
    lock: "Lock"
    lock_bytes: bytes
    digest: str
    settings: "Settings"
    say: "Callable[..., None]"

    def fill(self) -> None:
        """Fill the volume. Raises what pulling models and making envs raise."""
        from comfypin.atomic_files import write_atomically
        from comfypin.runpod.up.fill_report import FillNews
        from comfypin.runpod.up.plan import LOCKS_FOLDER

        began = time.monotonic()
        hex_digest = self.digest.removeprefix("sha256:")
        note_path = self.volume / "comfypin" / "fills" / f"{hex_digest}.json"
        self._count_try(note_path.with_suffix(".tries"))
        write_atomically(self.volume / LOCKS_FOLDER / f"{hex_digest}.lock.json", self.lock_bytes)
        self._say_phase("models", self._bring_models)
        self._say_phase("env", self._build_env)
        seconds = time.monotonic() - began
        write_atomically(note_path, json.dumps({"lock_digest": self.digest, "seconds": round(seconds, 1)}).encode())
        note_path.with_suffix(".tries").unlink(missing_ok=True)
        self.say(FillNews(filled=self.digest, seconds=seconds))

    def _say_phase(self, phase: str, work: Callable[[], str]) -> None:
        from comfypin.runpod.up.fill_report import FillNews

        began = time.monotonic()
        detail = work()
        self.say(FillNews(phase=phase, seconds=time.monotonic() - began, detail=detail))

    def _bring_models(self) -> str:
        from comfypin.wiring import bring_models

        fetched = bring_models(self.lock, self.settings, offline=False)
        return f"{fetched} of {len(self.lock.models)} fetched"

    def _build_env(self) -> str:
        """Build the env on the pod's own disk and store it on the volume, for every worker to unpack."""
        from comfypin.env.realize import realize_env
        from comfypin.wiring import holds_foreign_comfyui, make_realize_options

        if self.lock.engine.kind != "comfyui":
            return "none needed"
        if holds_foreign_comfyui(self.settings):
            return "the image has its own"
        options = make_realize_options(
            self.settings, publish=True, report=lambda step_text: print(step_text, flush=True)
        )
        realized = realize_env(self.lock, options)
        return f"{realized.action}, {format_size(realized.receipt.size_bytes)}"

    def _count_try(self, tries_path: Path) -> None:
        """Raise `FillFailed` if this was tried too often: a pod that starts again and again is billed for ever."""
        from comfypin.atomic_files import write_atomically
        from comfypin.runpod.up.errors import FillFailed

        try:
            tries = int(tries_path.read_text())
        except (OSError, ValueError):
            tries = 0
        if tries >= _MOST_TRIES:
            # The next `up` begins to count anew.
            tries_path.unlink(missing_ok=True)
            raise FillFailed(reason=f"its process ended {tries} times without a word; more memory or disk may help")
        write_atomically(tries_path, str(tries + 1).encode())


def _end_own_pod(settings: "Settings", linger_s: float) -> None:
    """Remove the pod that this process is in, as far as it may: Runpod gives each pod its id and a key."""
    from comfypin.cli.common import print_on_stderr
    from comfypin.cli.own_pod import remove_own_pod

    if settings.server.pod_id is None:
        return
    time.sleep(linger_s)
    if (why_not := remove_own_pod(settings)) is not None:
        print_on_stderr(f"comfypin: the pod cannot remove itself ({why_not}); remove it: {settings.server.pod_id}")
