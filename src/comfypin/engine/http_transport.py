"""Speaks HTTP to one ComfyUI: JSON, streamed files, a deadline for every wait, our own error for every failure."""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from yarl import URL

from comfypin.digest import CHUNK_BYTES, JsonValue
from comfypin.engine.errors import EngineAnswerInvalid, EngineUnreachable, EngineUrlInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTimeouts:
    """Sets how long the client waits, in seconds."""

    connect_s: float = 10.0
    # For a whole answer that is JSON.
    request_s: float = 60.0
    # For the next bytes of a file, which may take any time as a whole.
    chunk_s: float = 60.0
    # Between two looks at a prompt of which the websocket says nothing.
    poll_s: float = 1.0
    # Until an engine that runs our prompt counts as gone: a ComfyUI that loads a model does not answer for a while.
    unreachable_s: float = 120.0
    # For a prompt that is in neither queue nor history, because the engine moves it from one to the other.
    lost_s: float = 3.0
    # For the history, after the event that announces it.
    history_s: float = 15.0
    # For a cancelled prompt to leave the engine.
    cancel_s: float = 3.0
    # For the websocket's handshake; without it polls do.
    websocket_s: float = 5.0


@dataclass(frozen=True, slots=True)
class EngineResponse:
    """Holds a status and its JSON; `body` is None if the text was not JSON."""

    status: int
    body: JsonValue
    text: str


def parse_engine_url(url: str) -> URL:
    """Parse and check an engine's address; a path before the API's own stays. Raises `EngineUrlInvalid`."""
    try:
        parsed = URL(url.strip())
        port = parsed.port
    except ValueError as exc:
        raise EngineUrlInvalid(reason=str(exc)) from exc
    if parsed.scheme not in ("http", "https") or not parsed.host or not port:
        raise EngineUrlInvalid(reason="it must begin with http:// or https:// and name a host")
    return parsed.with_fragment(None)


class EngineTransport:
    """Sends requests to the engine at one address, over kept connections."""

    def __init__(self, url: URL, session: aiohttp.ClientSession, timeouts: EngineTimeouts) -> None:
        self._url = url
        self._session = session
        self._timeouts = timeouts

    @property
    def shown_url(self) -> str:
        """Return the address without what may be a secret: user, password and query."""
        return str(self._url.with_user(None).with_query(None))

    async def get_json(self, path: str, query: Mapping[str, str] | None = None) -> EngineResponse:
        """GET a JSON answer. Raises `EngineUnreachable`."""
        return await self._send_request("GET", path, query=query)

    async def post_json(self, path: str, request_body: JsonValue) -> EngineResponse:
        """POST JSON and return the JSON answer. Raises `EngineUnreachable`."""
        return await self._send_request(
            "POST", path, data=json.dumps(request_body).encode(), headers={"Content-Type": "application/json"}
        )

    async def upload_file(self, file: Path, *, file_name: str, fields: Mapping[str, str]) -> EngineResponse:
        """POST a file to /upload/image as a streamed form. Raises `EngineUnreachable` or `OSError`."""
        stream = await asyncio.to_thread(file.open, "rb")
        with stream:
            form = aiohttp.FormData()
            for field, value in fields.items():
                form.add_field(field, value)
            form.add_field("image", stream, filename=file_name, content_type="application/octet-stream")
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=self._timeouts.connect_s, sock_read=self._timeouts.chunk_s
            )
            return await self._send_request("POST", "/upload/image", data=form, timeout=timeout)

    async def download_file(self, path: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """GET a file in chunks; fail if it ends early. Raises `EngineUnreachable`, `EngineAnswerInvalid`."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._timeouts.connect_s, sock_read=self._timeouts.chunk_s
        )
        async with self._map_failures(path), self._session.get(self._url_for(path, query), timeout=timeout) as response:
            if response.status != 200:
                # Enough for ComfyUI's error; a proxy's page may be endless.
                response_text = (await response.content.read(2000)).decode(errors="replace")
                raise EngineAnswerInvalid(request=f"GET {path} {query}", status=response.status, _body=response_text)
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                yield chunk

    @asynccontextmanager
    async def open_websocket(self, client_id: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a websocket for a client's events. Raises `EngineUnreachable`."""
        url = self._url_for("/ws", {"clientId": client_id})
        async with self._map_failures("/ws"):
            # No limit on messages: a progress message grows with the graph, and aiohttp stops at 4 MB by default.
            connecting = self._session.ws_connect(url, max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=1))
            async with asyncio.timeout(self._timeouts.websocket_s):
                socket = await connecting
            async with socket:
                yield socket

    async def _send_request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        data: bytes | aiohttp.FormData | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> EngineResponse:
        """Send a request and read its answer, JSON or not."""
        timeout = timeout or aiohttp.ClientTimeout(
            total=self._timeouts.request_s, sock_connect=self._timeouts.connect_s
        )
        async with (
            self._map_failures(path),
            self._session.request(
                method, self._url_for(path, query), data=data, headers=headers, timeout=timeout
            ) as response,
        ):
            response_text = (await response.read()).decode(errors="replace")
        try:
            return EngineResponse(response.status, json.loads(response_text), response_text)
        except ValueError:
            return EngineResponse(response.status, None, response_text)

    def _url_for(self, path: str, query: Mapping[str, str] | None = None) -> URL:
        # The address of a remote engine may carry a token in its query, so every request keeps it.
        url = self._url.with_path(self._url.path.rstrip("/") + path, keep_query=True)
        return url.update_query(query) if query else url

    @asynccontextmanager
    async def _map_failures(self, path: str) -> AsyncIterator[None]:
        """Turn aiohttp's failures into ours, with a reason that a person understands."""
        try:
            yield
        except TimeoutError as exc:
            raise EngineUnreachable(url=self.shown_url, reason=f"it did not answer {path} in time") from exc
        except aiohttp.ClientConnectorDNSError as exc:
            raise EngineUnreachable(url=self.shown_url, reason="its host name does not exist") from exc
        except aiohttp.ClientConnectorError as exc:
            raise EngineUnreachable(url=self.shown_url, reason=_explain_error(exc.os_error)) from exc
        # The body ended before its Content-Length, or its last chunk.
        except aiohttp.ClientPayloadError as exc:
            raise EngineUnreachable(url=self.shown_url, reason=f"its answer to {path} was cut off") from exc
        except (aiohttp.ClientError, ConnectionError) as exc:
            reason = f"{path}: {exc}" if str(exc) else f"{path}: {type(exc).__name__}"
            raise EngineUnreachable(url=self.shown_url, reason=reason) from exc


def _explain_error(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"its TLS connection is not trusted: {error.reason or error}"
    return os.strerror(error.errno).lower() if error.errno else str(error)
