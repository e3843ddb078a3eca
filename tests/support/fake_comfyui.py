"""A ComfyUI to be rude with: the API on a loopback port, run by a script of what it does wrong, and to whom.

It executes nothing; each prompt visits its nodes and reports what `reports` says. Everything else is state.
"""

import asyncio
import contextlib
import json
import uuid
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

PNG = b"\x89PNG\r\n\x1a\n" + b"not really" * 10


@dataclass
class Canned:
    """An answer that is given instead of the real one; `cut` sends only that many bytes of it and hangs up."""

    status: int = 200
    body: bytes = b"{}"
    content_type: str = "application/json"
    cut: int | None = None


@dataclass
class FakeComfyUI:
    version: str = "0.3.64"
    websocket: str = "speaks"  # or "silent", or "refused"
    honours_prompt_id: bool = True
    jobs_api: bool = False  # what 0.33 has: /api/jobs, cancelling by id, and prompt ids that must be UUIDs
    forgets_interrupts: int = 0  # as an engine does with one that comes before the first node
    history_late_s: float = 0.0
    status_is_null: bool = False
    node_s: float = 0.0
    max_upload_size: int | None = 104857600
    held: set[str] = field(default_factory=set)  # nodes at which prompts wait for `release`
    fails: dict[str, dict[str, Any]] = field(default_factory=dict)  # node -> fields of its execution_error
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)  # output node -> its outputs
    cached: list[str] = field(default_factory=list)
    node_errors: dict[str, Any] = field(default_factory=dict)  # in the 200 of the next prompts
    canned: dict[str, deque[Canned]] = field(default_factory=dict)  # "GET /queue" -> answers, in turn
    after_post: Canned | None = None  # the answer to POST /prompt after the prompt was queued
    before_post: Any = None  # awaited before the answer to POST /prompt is sent
    requests: list[tuple[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    pending: list[tuple[str, dict[str, Any], str | None]] = field(default_factory=list)
    running: str | None = None
    history: dict[str, Any] = field(default_factory=dict)
    sockets: dict[str, web.WebSocketResponse] = field(default_factory=dict)
    interrupted: set[str] = field(default_factory=set)
    url: str = ""
    connections: int = 0

    def __post_init__(self) -> None:
        self._wake = asyncio.Event()
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._worker: asyncio.Task[None] | None = None
        self._port = 0

    # -- Life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        app = web.Application(client_max_size=self.max_upload_size or 104857600, middlewares=[self._middleware])
        app.add_routes(
            [
                web.post("/prompt", self._prompt),
                web.get("/queue", self._queue),
                web.post("/queue", self._delete),
                web.get("/history/{id}", self._history),
                web.post("/interrupt", self._interrupt),
                web.post("/upload/image", self._upload),
                web.get("/view", self._view),
                web.get("/system_stats", self._stats),
                web.get("/features", self._features),
                web.get("/object_info", self._object_info),
                web.get("/ws", self._ws),
                web.get("/api/jobs", self._jobs),
                web.post("/api/jobs/{id}/cancel", self._cancel_job),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        await self.cut_websockets()
        if self._worker:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        if self._runner:
            await self._runner.cleanup()

    async def restart(self) -> None:
        """Stop and start at the same port, having forgotten everything."""
        await self.stop()
        self.pending.clear()
        self.history.clear()
        self.running = None
        await self.start()

    async def cut_websockets(self) -> None:
        for socket in list(self.sockets.values()):
            with contextlib.suppress(ConnectionError):
                if (transport := socket._req.transport if socket._req else None) is not None:
                    transport.abort()
        self.sockets.clear()

    def release(self) -> None:
        self.held.clear()
        self._released.set()
        self._released = asyncio.Event()

    def say_next(self, request: str, *answers: Canned) -> None:
        self.canned.setdefault(request, deque()).extend(answers)

    def asked(self, request: str) -> list[Any]:
        return [body for made, body in self.requests if made == request]

    def queue_of_another(self, prompt_id: str = "somebody-elses") -> None:
        self.pending.append((prompt_id, {"n": {"class_type": "Held"}}, None))
        self._wake.set()

    # -- Work -----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            while not self.pending:
                self._wake.clear()
                await self._wake.wait()
            prompt_id, graph, client = self.pending.pop(0)
            self.running = prompt_id
            await self._status()
            entry = await self._execute(prompt_id, graph, client)
            if self.history_late_s:
                await asyncio.sleep(self.history_late_s)
            self.running = None
            self.history[prompt_id] = entry
            await self._status()
            await self._send(client, "executing", {"node": None, "prompt_id": prompt_id})

    async def _execute(self, prompt_id: str, graph: dict[str, Any], client: str | None) -> dict[str, Any]:
        messages: list[Any] = []

        async def say(kind: str, **data: Any) -> None:
            messages.append([kind, {"prompt_id": prompt_id, **data}])
            await self._send(client, kind, {"prompt_id": prompt_id, **data})

        await say("execution_start")
        await say("execution_cached", nodes=self.cached)
        ended = "success"
        for node_id in graph:
            if node_id in self.cached:
                continue
            await self._send(client, "executing", {"node": node_id, "display_node": node_id, "prompt_id": prompt_id})
            while node_id in self.held and prompt_id not in self.interrupted:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await self._released.wait()
            await asyncio.sleep(self.node_s)
            if prompt_id in self.interrupted:
                ended = "error"
                await say("execution_interrupted", node_id=node_id, node_type="X", executed=[])
                break
            if node_id in self.fails:
                ended = "error"
                await say("execution_error", node_id=node_id, **self.fails[node_id])
                break
        if ended == "success":
            await say("execution_success")
        status = {"status_str": ended, "completed": ended == "success", "messages": messages}
        outputs = {node_id: reported for node_id, reported in self.reports.items() if node_id in graph}
        return {"prompt": [], "outputs": outputs, "status": None if self.status_is_null else status}

    async def _status(self) -> None:
        remaining = len(self.pending) + (self.running is not None)
        for client in list(self.sockets):
            await self._send(client, "status", {"status": {"exec_info": {"queue_remaining": remaining}}})

    async def _send(self, client: str | None, kind: str, data: dict[str, Any]) -> None:
        socket = self.sockets.get(client or "")
        if socket is not None and self.websocket == "speaks":
            with contextlib.suppress(ConnectionError):
                await socket.send_str(json.dumps({"type": kind, "data": data}))

    # -- Requests -------------------------------------------------------------------------------------------------

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        name = f"{request.method} {request.path}"
        body = None
        if request.method == "POST" and request.content_type == "application/json":
            body = json.loads(await request.text() or "null")
        self.requests.append((name, body))
        for key in (name, f"{request.method} /{request.path.split('/')[1]}"):
            if self.canned.get(key):
                return await self._say(request, self.canned[key].popleft())
        response: web.StreamResponse = await handler(request)
        return response

    async def _say(self, request: web.Request, canned: Canned) -> web.StreamResponse:
        if canned.cut is None:
            return web.Response(status=canned.status, body=canned.body, content_type=canned.content_type)
        response = web.StreamResponse(status=canned.status, headers={"Content-Length": str(len(canned.body))})
        await response.prepare(request)
        await response.write(canned.body[: canned.cut])
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _prompt(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.text())
        if self.jobs_api and not _is_canonical(body.get("prompt_id")):
            error = {"type": "invalid_prompt_id", "message": "prompt_id must be a valid UUID", "details": ""}
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        prompt_id = body["prompt_id"] if self.honours_prompt_id else str(uuid.uuid4())
        self.pending.append((prompt_id, body["prompt"], body.get("client_id")))
        self._wake.set()
        if self.before_post is not None:
            await self.before_post()
        if self.after_post is not None:
            return await self._say(request, self.after_post)
        return web.json_response({"prompt_id": prompt_id, "number": 1, "node_errors": self.node_errors})

    async def _queue(self, request: web.Request) -> web.Response:
        running = [[0, self.running, {}, {}, []]] if self.running else []
        waiting = [[number, item[0], item[1], {}, []] for number, item in enumerate(self.pending, 1)]
        return web.json_response({"queue_running": running, "queue_pending": waiting})

    async def _delete(self, request: web.Request) -> web.Response:
        gone = (await request.json()).get("delete", [])
        self.pending = [item for item in self.pending if item[0] not in gone]
        await self._status()
        return web.Response()

    async def _history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["id"]
        entry = self.history.get(prompt_id)
        return web.json_response({} if entry is None else {prompt_id: entry})

    async def _interrupt(self, request: web.Request) -> web.Response:
        wanted = (await request.json() if request.can_read_body else {}).get("prompt_id")
        targeted = tuple(int(part) for part in self.version.split(".")) >= (0, 3, 57)
        if self.running and (not targeted or wanted in (None, self.running)):
            self.interrupted.add(self.running)
        return web.Response()

    async def _jobs(self, request: web.Request) -> web.Response:
        if not self.jobs_api:
            return web.Response(status=404)
        running = [{"id": self.running, "status": "in_progress", "priority": 0}] if self.running else []
        waiting = [{"id": item[0], "status": "pending", "priority": number} for number, item in enumerate(self.pending)]
        return web.json_response({"jobs": [*reversed(waiting), *running], "pagination": {}})

    async def _cancel_job(self, request: web.Request) -> web.Response:
        if not self.jobs_api:
            return web.Response(status=405)
        job = request.match_info["id"]
        waits = any(item[0] == job for item in self.pending)
        self.pending = [item for item in self.pending if item[0] != job]
        runs = self.running == job
        if runs and self.forgets_interrupts:
            self.forgets_interrupts -= 1
        elif runs:
            self.interrupted.add(job)
        return web.json_response({"cancelled": runs or waits})

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        image: Any = form["image"]
        subfolder = str(form.get("subfolder", ""))
        name, data = image.filename, image.file.read()
        while f"{subfolder}/{name}" in self.uploads and self.uploads[f"{subfolder}/{name}"] != data:
            name = f"{Path(name).stem} (1){Path(name).suffix}"
        self.uploads[f"{subfolder}/{name}"] = data
        return web.json_response({"name": name, "subfolder": subfolder, "type": form.get("type", "input")})

    async def _view(self, request: web.Request) -> web.Response:
        key = "/".join(request.query.get(part, "") for part in ("type", "subfolder", "filename"))
        data = self.files.get(key.replace("//", "/"))
        return web.Response(status=404) if data is None else web.Response(body=data)

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response({"system": {"comfyui_version": self.version}, "devices": []})

    async def _features(self, request: web.Request) -> web.Response:
        if self.max_upload_size is None:
            return web.Response(status=404)
        return web.json_response({"max_upload_size": self.max_upload_size})

    async def _object_info(self, request: web.Request) -> web.Response:
        return web.json_response({"SaveImage": {"input": {}}})

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        if self.websocket == "refused":
            return web.Response(status=403)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client = request.query.get("clientId") or uuid.uuid4().hex
        self.connections += 1
        self.sockets[client] = socket
        await self._send(client, "status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": client})
        with contextlib.suppress(ConnectionError):
            async for message in socket:
                if message.type is WSMsgType.CLOSE:
                    break
        if self.sockets.get(client) is socket:
            del self.sockets[client]
        return socket


def _is_canonical(prompt_id: Any) -> bool:
    try:
        return str(uuid.UUID(prompt_id)) == prompt_id
    except (ValueError, AttributeError, TypeError):
        return False


NEWER = {"version": "0.33.0", "jobs_api": True}
"""The script of a fake that answers as ComfyUI 0.33 does."""


@contextlib.asynccontextmanager
async def fake_comfyui(**script: Any) -> AsyncIterator[FakeComfyUI]:
    """A running fake, stopped at the end."""
    fake = FakeComfyUI(**script)
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()
