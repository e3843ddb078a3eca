"""Finds and removes the path before ours, if a proxy serves us below a path of its site."""

import re
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

_PATH_PREFIX = re.compile(r"(/[A-Za-z0-9._~\-]{1,100}){1,8}")


def valid_prefix(prefix_text: str) -> str:
    """Return a path prefix without its last slash; empty if it is not one."""
    prefix = prefix_text.rstrip("/")
    return prefix if _PATH_PREFIX.fullmatch(prefix) else ""


def prefix_of(request: Request) -> str:
    """Return the path before ours: --root-path, else the X-Forwarded-Prefix of a proxy that removed it."""
    path_prefix = str(request.scope.get("comfypin.prefix", ""))
    return path_prefix or valid_prefix(request.headers.get("x-forwarded-prefix", ""))


class RootPath:
    """Removes `--root-path` from requests if the proxy has left it on (middleware)."""

    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with the path that our routes know."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        changes: dict[str, Any] = {"comfypin.prefix": self._prefix}
        if path == self._prefix or path.startswith(f"{self._prefix}/"):
            changes["path"] = path[len(self._prefix) :] or "/"
            raw_path: bytes = scope.get("raw_path") or b""
            if raw_path.startswith(self._prefix.encode()):
                changes["raw_path"] = raw_path[len(self._prefix) :] or b"/"
        if path == self._prefix and scope["method"] in ("GET", "HEAD"):
            # The page's own addresses are relative, so its path must end with a slash.
            start = {"type": "http.response.start", "status": 307, "headers": [(b"location", f"{path}/".encode())]}
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app({**scope, **changes}, receive, send)
