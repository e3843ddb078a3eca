"""ComfyUI's HTTP API over the embedded engine."""

import asyncio
import logging
import os
import sys
from uuid import uuid4

from aiohttp import web

from comfypin.engine.embedded.arguments import Arguments
from comfypin.engine.embedded.catalogue import catalogue_entry
from comfypin.engine.embedded.engine import EmbeddedEngine
from comfypin.engine.embedded.files_api import FilesApi
from comfypin.engine.embedded.http import Handler, given, read_json, same_origin, trouble
from comfypin.engine.embedded.jobs_api import JobsApi, is_job_id
from comfypin.engine.embedded.memory import memory_bytes
from comfypin.engine.embedded.messages import timestamp_ms
from comfypin.engine.embedded.queue import QueuedPrompt
from comfypin.engine.embedded.replacements import REPLACEMENTS, replace_nodes

log = logging.getLogger(__name__)

_MODEL_FOLDERS = (
    "checkpoints configs loras vae text_encoders diffusion_models clip_vision style_models embeddings diffusers "
    "vae_approx controlnet gligen upscale_models custom_nodes hypernetworks photomaker classifiers model_patches "
    "audio_encoders "
)


def serve(arguments: Arguments) -> int:
    """Listen until a signal ends the process; SIGTERM and SIGINT do so at once, whatever runs."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_serve(arguments))
    except OSError as problem:
        print(f"cannot listen on {arguments.listen}:{arguments.port}: {problem}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def _serve(arguments: Arguments) -> None:
    engine = EmbeddedEngine(arguments)
    runner = web.AppRunner(make_app(engine), access_log=None, handle_signals=False)
    await runner.setup()
    for address in arguments.listen.split(","):
        await web.TCPSite(runner, address.strip(), arguments.port).start()
    log.info("embedded engine listens on %s:%s", arguments.listen, arguments.port)
    await asyncio.Event().wait()


def make_app(engine: EmbeddedEngine) -> web.Application:
    """The routes, each of them under /api too."""
    app = web.Application(client_max_size=engine.arguments.max_upload_bytes, middlewares=[same_origin])
    api = Api(engine)
    files = FilesApi(engine.folders)
    gets, posts = _routes(api, files)
    if engine.release.has_jobs:
        gets["/node_replacements"] = api.node_replacements
        JobsApi(engine).add_routes(app)
    for prefix in ("", "/api"):
        app.router.add_get(f"{prefix}/ws", engine.hub.serve)
        for path, handler in gets.items():
            app.router.add_get(prefix + path, handler)
        for path, handler in posts.items():
            app.router.add_post(prefix + path, handler)
    app.router.add_get("/{path:.*}", api.unknown)

    async def start(_: web.Application) -> None:
        engine.start()

    async def stop(_: web.Application) -> None:
        await asyncio.to_thread(engine.stop)

    app.on_startup.append(start)
    app.on_cleanup.append(stop)
    return app


def _routes(api: "Api", files: FilesApi) -> tuple[dict[str, Handler], dict[str, Handler]]:
    """Return what GET and POST requests are answered by, in every release."""
    gets: dict[str, Handler] = {
        "/prompt": api.prompt_info,
        "/queue": api.queue_info,
        "/history": api.history,
        "/history/{prompt_id}": api.history_of,
        "/object_info": api.object_info,
        "/object_info/{name}": api.object_info_of,
        "/system_stats": api.system_stats,
        "/features": api.features,
        "/extensions": api.nothing,
        "/embeddings": api.nothing,
        "/models": api.models,
        "/models/{folder}": api.models_in,
        "/view": files.view,
    }
    posts: dict[str, Handler] = {
        "/prompt": api.submit,
        "/queue": api.change_queue,
        "/history": api.change_history,
        "/interrupt": api.interrupt,
        "/free": api.free,
        "/upload/image": files.upload_image,
        "/upload/mask": files.upload_mask,
    }
    return gets, posts


class Api:
    """The routes that deal in JSON."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self._engine = engine

    async def submit(self, request: web.Request) -> web.Response:
        """Check a graph and queue it, or say what is wrong with it."""
        body = await read_json(request)
        with trouble():
            number = float(body["number"]) if "number" in body else self._engine.next_number()
            if "number" not in body and given(body, "front"):
                number = -number
            if "prompt" not in body:
                return web.json_response(_NO_PROMPT, status=400)
            graph, targets = body["prompt"], body.get("partial_execution_targets")
            prompt_id = body.get("prompt_id")
            if self._engine.release.wants_uuids and prompt_id is not None and not is_job_id(prompt_id):
                return web.json_response(_BAD_PROMPT_ID, status=400)
            if self._engine.release.has_jobs:
                replace_nodes(graph, self._engine.classes)
            wanted = None if targets is None else frozenset(targets)
            extra = {} if body.get("extra_data") is None else {**body["extra_data"]}
            verdict = self._engine.validator.check(graph, wanted)
        if verdict.error is not None:
            log.info("prompt refused", extra={"action": "prompt_refused", "why": verdict.error})
            return web.json_response({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
        if "client_id" in body:
            extra["client_id"] = body["client_id"]
        if self._engine.release.has_jobs:
            extra["create_time"] = timestamp_ms()
        if prompt_id is None and (self._engine.release.wants_uuids or "prompt_id" not in body):
            prompt_id = uuid4()  # 0.3.64 takes an explicit null for the id "None"
        prompt_id = str(prompt_id)
        self._engine.queue.put(
            QueuedPrompt(number=number, prompt_id=prompt_id, graph=graph, extra_data=extra, outputs=verdict.outputs)
        )
        answer = {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        return web.json_response(answer)

    async def prompt_info(self, _: web.Request) -> web.Response:
        """How many prompts have not ended."""
        return web.json_response({"exec_info": {"queue_remaining": self._engine.queue.remaining()}})

    async def queue_info(self, _: web.Request) -> web.Response:
        """What runs and what waits."""
        running = self._engine.queue.running()
        return web.json_response(
            {
                "queue_running": [running.wire()] if running else [],
                "queue_pending": [each.wire() for each in self._engine.queue.waiting()],
            }
        )

    async def change_queue(self, request: web.Request) -> web.Response:
        """Forget prompts that wait: all of them, or some ids."""
        body = await read_json(request)
        with trouble():
            if given(body, "clear"):
                self._engine.queue.clear()
            for prompt_id in given(body, "delete") or ():
                self._engine.queue.delete(prompt_id)
        return web.Response()

    async def history(self, request: web.Request) -> web.Response:
        """What ended, oldest first."""
        with trouble():
            limit = request.query.get("max_items")
            max_items = None if limit is None else int(limit)
            offset = int(request.query.get("offset", -1))
        return web.json_response(self._engine.queue.history(max_items=max_items, offset=offset))

    async def history_of(self, request: web.Request) -> web.Response:
        """One prompt that ended, or `{}`."""
        return web.json_response(self._engine.queue.history_of(request.match_info["prompt_id"]))

    async def change_history(self, request: web.Request) -> web.Response:
        """Forget prompts that ended: all of them, or some ids."""
        body = await read_json(request)
        with trouble():
            if given(body, "clear"):
                self._engine.queue.clear_history()
            for prompt_id in given(body, "delete") or ():
                self._engine.queue.delete_history(prompt_id)
        return web.Response()

    async def object_info(self, _: web.Request) -> web.Response:
        """The catalogue of node classes."""
        folders = self._engine.folders
        release = self._engine.release
        entries = {name: catalogue_entry(each, folders, release) for name, each in self._engine.classes.items()}
        return web.json_response(entries)

    async def object_info_of(self, request: web.Request) -> web.Response:
        """One class, or `{}`."""
        name = request.match_info["name"]
        found = self._engine.classes.get(name)
        if found is None:
            return web.json_response({})
        return web.json_response({name: catalogue_entry(found, self._engine.folders, self._engine.release)})

    async def node_replacements(self, _: web.Request) -> web.Response:
        """The classes that are renamed in prompts."""
        return web.json_response({old: [each.wire()] for old, each in REPLACEMENTS.items()})

    async def system_stats(self, _: web.Request) -> web.Response:
        """What this runs on."""
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        free = min(total, memory_bytes())
        system = {
            "os": os.name,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": self._engine.release.version,
            "required_frontend_version": None,
            "installed_templates_version": None,
            "required_templates_version": None,
            "python_version": sys.version,
            "pytorch_version": "none (comfypin's embedded engine)",
            "embedded_python": False,
            "argv": sys.argv,
            **self._engine.release.system,
        }
        device = {"name": "cpu", "type": "cpu", "index": None, "vram_total": total, "vram_free": free}
        device |= {"torch_vram_total": total, "torch_vram_free": free}
        self._engine.warm()
        return web.json_response({"system": system, "devices": [device]})

    async def features(self, _: web.Request) -> web.Response:
        """What this server can do."""
        return web.json_response(self._engine.flags)

    async def models(self, _: web.Request) -> web.Response:
        """The kinds of models there are."""
        return web.json_response(_MODEL_FOLDERS.split())

    async def models_in(self, request: web.Request) -> web.Response:
        """The models of a kind: none."""
        if request.match_info["folder"] not in _MODEL_FOLDERS.split():
            return web.Response(status=404)
        return web.json_response([])

    async def nothing(self, _: web.Request) -> web.Response:
        """An empty list: there are no extensions and no embeddings."""
        return web.json_response([])

    async def unknown(self, _: web.Request) -> web.Response:
        """No such page; there is no web page here at all."""
        return web.Response(status=404)

    async def interrupt(self, request: web.Request) -> web.Response:
        """Stop what runs, or only the prompt that is named."""
        prompt_id = None
        if await request.read():
            body = await read_json(request)
            with trouble():
                prompt_id = body.get("prompt_id")
        self._engine.interrupt(prompt_id)
        return web.Response()

    async def free(self, request: web.Request) -> web.Response:
        """Drop kept results."""
        body = await read_json(request)
        with trouble():
            if body.get("unload_models") or body.get("free_memory"):
                self._engine.queue.ask({"free"})
        return web.Response()


_BAD_PROMPT_ID = {
    "error": {
        "type": "invalid_prompt_id",
        "message": "prompt_id must be a valid UUID",
        "details": (
            "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
            "omit it to let the server generate one"
        ),
        "extra_info": {},
    },
    "node_errors": {},
}

_NO_PROMPT = {
    "error": {
        "type": "no_prompt",
        "message": "No prompt provided",
        "details": "No prompt provided",
        "extra_info": {},
    },
    "node_errors": {},
}
