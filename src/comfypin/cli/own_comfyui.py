"""Find the ComfyUI that somebody has already: one that runs, the one of COMFY_HOME, or the one that they name."""

import http.client
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfypin.settings.environment import Settings

# ComfyUI's own port.
COMFYUI_PORT = 8188
# ComfyUI on this machine answers at once, even while it loads a model.
_ANSWER_TIMEOUT_S = 2.0
# Where guides, installers and Runpod's templates put it.
_USUAL_PLACES = ("ComfyUI", "~/ComfyUI", "~/comfy", "~/comfy/ComfyUI", "/workspace/ComfyUI", "/workspace/comfy")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnComfyUI:
    """A ComfyUI of the user's: the address of a running one, or the folder of one to start; `said` tells which."""

    said: str
    url: str | None = None
    home: Path | None = None


def find_own_comfyui(settings: "Settings", *, port: int | None = None) -> OwnComfyUI | None:
    """Return the ComfyUI that runs at its usual port, else the one in COMFY_HOME; None if there is neither."""
    # A second one beside it would want the same GPU memory.
    port = COMFYUI_PORT if port is None else port
    url = f"http://127.0.0.1:{port}"
    if (version := _ask_version(port)) is not None:
        return OwnComfyUI(url=url, said=f"the ComfyUI {version} that runs at {url}")
    home = settings.machine.comfy_home
    return OwnComfyUI(home=home, said=f"the ComfyUI in {home}") if holds_comfyui(home) else None


def ask_for_comfyui() -> OwnComfyUI | None:
    """Ask on the terminal which ComfyUI to use; None if nobody sits there, or nothing was said."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    near = [candidate for candidate in find_installed() if holds_comfyui(candidate)]
    offered = f" [{near[0]}]" if near else ""
    print(f"Which ComfyUI runs it: its folder, or its address?{offered} ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip() or (str(near[0]) if near else "")
    if not answer:
        return None
    if answer.startswith(("http://", "https://")):
        return OwnComfyUI(url=answer, said=f"the ComfyUI at {answer}")
    home = Path(answer).expanduser()
    return OwnComfyUI(home=home, said=f"the ComfyUI in {home}")


def find_installed() -> list[Path]:
    """Return the usual folders of a ComfyUI that hold one."""
    places = (Path(candidate).expanduser() for candidate in _USUAL_PLACES)
    return [candidate for candidate in places if holds_comfyui(candidate)]


def holds_comfyui(folder: Path) -> bool:
    """Return whether a folder is a ComfyUI, or has one in it."""
    return any((folder / script_name).is_file() for script_name in ("ComfyUI/main.py", "main.py"))


def _ask_version(port: int) -> str | None:
    """Return the version of the ComfyUI at this port, or None."""
    # No proxy and no SDK: one request to this machine, before anything else is imported.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/system_stats")
        system = json.loads(connection.getresponse().read(1 << 20))["system"]
        return str(system.get("comfyui_version") or "")
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return None
    finally:
        connection.close()
