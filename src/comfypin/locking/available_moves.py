"""Asks where a lock's repositories and packs are today: newer releases of ComfyUI, newer commits of nodes."""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from comfypin.errors import ComfypinError
from comfypin.http.proxies import Proxies
from comfypin.lock.model import Lock, NodePin, PackagePin, RepoPin
from comfypin.locking.sources import WORKERS, Upstreams
from comfypin.tools.git_remote import list_refs

_TAG_PREFIX = "refs/tags/"
_RELEASE_TAG = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailableMove:
    """A part of a lock, where it is, and where it could be; `problem` says why nobody knows."""

    part: str
    now: str
    could_be: tuple[str, ...] = ()
    command: str | None = None
    problem: str | None = None

    def __str__(self) -> str:
        if self.problem is not None:
            return f"{self.part}: cannot be asked ({self.problem})"
        return f"{self.part}: {self.now}; could be {', '.join(self.could_be)} ({self.command})"

    def to_json(self) -> dict[str, object]:
        return {
            "part": self.part,
            "now": self.now,
            "could_be": list(self.could_be),
            "command": self.command,
            "problem": self.problem,
        }


def find_available_moves(lock: Lock, upstreams: Upstreams) -> tuple[AvailableMove, ...]:
    """Return the parts that could move, and those whose upstream does not answer."""

    def ask_node(node_pin: NodePin) -> AvailableMove | None:
        part_name, now = f"the node {node_pin.folder}", (node_pin.commit or node_pin.ref or "?")[:12]
        return _ask(part_name, now, lambda: _moves_of_node(node_pin, upstreams))

    with ThreadPoolExecutor(WORKERS) as pool:
        first = pool.submit(_ask_comfyui, lock.comfyui)
        nodes = list(pool.map(ask_node, lock.custom_nodes))
    return tuple(move for move in (first.result(), *nodes) if move is not None)


def _ask(part_name: str, now: str, find: Callable[[], AvailableMove | None]) -> AvailableMove | None:
    try:
        return find()
    # One upstream that is gone must not hide what the others have.
    except ComfypinError as error:
        return AvailableMove(part=part_name, now=now, problem=error.message)


def _ask_comfyui(comfyui: RepoPin | None) -> AvailableMove | None:
    if comfyui is None or comfyui.repo is None:
        return None
    return _ask("ComfyUI", comfyui.ref or str(comfyui.commit)[:12], lambda: _moves_of_comfyui(comfyui))


def _moves_of_comfyui(comfyui: RepoPin) -> AvailableMove | None:
    refs = list_refs(str(comfyui.repo))
    tags = {
        ref_name.removeprefix(_TAG_PREFIX): commit
        for ref_name, commit in refs.items()
        if ref_name.startswith(_TAG_PREFIX)
    }
    # The pinned commit may have a tag although a branch was asked for.
    here = max(
        (ref_name for ref_name, commit in tags.items() if commit == comfyui.commit), key=_release_of, default=None
    )
    known = _release_of(here or comfyui.ref or "")
    newer = sorted((ref_name for ref_name in tags if _release_of(ref_name) > known), key=_release_of) if known else []
    moved = _moved_ref(refs, comfyui.ref)
    options = [*newer[-3:], *([f"{comfyui.ref} at {moved[:12]}"] if moved and moved != comfyui.commit else [])]
    if not options:
        return None
    return AvailableMove(
        part="ComfyUI",
        now=here or comfyui.ref or str(comfyui.commit)[:12],
        could_be=tuple(options),
        command=f"--comfyui {newer[-1]}" if newer else "--comfyui",
    )


def _release_of(tag: str) -> tuple[int, ...]:
    match = _RELEASE_TAG.fullmatch(tag)
    return tuple(int(part or 0) for part in match.groups()) if match else ()


def _moved_ref(refs: dict[str, str], ref: str | None) -> str | None:
    """Return where a branch is now; tags stay where they are."""
    if ref is None:
        return None
    return refs.get(f"refs/heads/{ref}")


def _moves_of_node(node_pin: NodePin, upstreams: Upstreams) -> AvailableMove | None:
    part_name, command = f"the node {node_pin.folder}", f"--node {node_pin.folder}"
    if node_pin.repo is None:
        latest = upstreams.registry.find_version(node_pin.name, None).version
        if latest == node_pin.ref:
            return None
        return AvailableMove(part=part_name, now=str(node_pin.ref), could_be=(latest,), command=f"{command}@{latest}")
    refs = list_refs(node_pin.repo)
    branch = _moved_ref(refs, node_pin.ref)
    newest = branch or refs.get("HEAD")
    if newest is None or newest == node_pin.commit:
        return None
    where = node_pin.ref if branch else "the default branch"
    # Without a branch of its own a node that is named moves to the ref that the flag gives.
    return AvailableMove(
        part=part_name,
        now=str(node_pin.commit)[:12],
        could_be=(f"{where} at {newest[:12]}",),
        command=command if branch or node_pin.ref is None else f"{command}@{newest[:12]}",
    )


def measure_files(packages: Iterable[PackagePin], proxies: Proxies) -> dict[str, int]:
    """Return the size of each package's file by its URL, as its server tells it; without those that do not."""
    urls = sorted({pin.url for pin in packages if pin.url and urlsplit(pin.url).scheme in ("http", "https")})
    with ThreadPoolExecutor(WORKERS) as pool:
        return {
            url: size for url, size in pool.map(lambda url: (url, _measure(url, proxies)), urls) if size is not None
        }


def _measure(url: str, proxies: Proxies) -> int | None:
    from comfypin.http.client import HttpClient, HttpTransport
    from comfypin.http.errors import HttpError

    client = HttpClient(transport=HttpTransport(proxies=proxies, timeout_s=30.0))
    try:
        response = client.request("HEAD", url)
        length = response.headers.get("Content-Length", "")
        response.close()
        return int(length) if response.status == 200 and length.isdigit() else None
    # A size that nobody tells is no reason to stop.
    except HttpError:
        return None
    finally:
        client.close()
