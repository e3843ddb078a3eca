"""Serves ComfyUI's HTTP API from the embedded engine."""

import asyncio
import logging
import os
import sys
from uuid import uuid4

from aiohttp import web

from comfypin.engine.embedded.arguments import EngineArguments
from comfypin.engine.embedded.catalogue import catalogue_entry
from comfypin.engine.embedded.engine import EmbeddedEngine
from comfypin.engine.embedded.files_api import FilesApi
from comfypin.engine.embedded.jobs_api import JobsApi, is_job_id
from comfypin.engine.embedded.messages import timestamp_ms
from comfypin.engine.embedded.queue import QueuedPrompt
from comfypin.engine.embedded.replacements import REPLACEMENTS, replace_nodes
from comfypin.engine.embedded.route_helpers import Handler, answer_trouble, get_field, read_json, refuse_cross_origin
from comfypin.free_memory import memory_bytes

log = logging.getLogger(__name__)

_MODEL_FOLDERS = (
    "checkpoints configs loras vae text_encoders diffusion_models clip_vision style_models embeddings diffusers "
    "vae_approx controlnet gligen upscale_models custom_nodes hypernetworks photomaker classifiers model_patches "
    "audio_encoders "
)


def serve(arguments: EngineArguments) -> int:
    """Listen until a signal ends the process; SIGTERM and SIGINT end it at once, whatever runs."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_serve(arguments))
    except OSError as problem:
        print(f"cannot listen on {arguments.listen}:{arguments.port}: {problem}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def _serve(arguments: EngineArguments) -> None:
    engine = EmbeddedEngine(arguments)
    # No access log, because clients poll several times a second.
    runner = web.AppRunner(make_app(engine), access_log=None, handle_signals=False)
    await runner.setup()
    for address in arguments.listen.split(","):
        await web.TCPSite(runner, address.strip(), arguments.port).start()
    log.info("embedded engine listens on %s:%s", arguments.listen, arguments.port)
    await asyncio.Event().wait()


def make_app(engine: EmbeddedEngine) -> web.Application:
    """Return the application, with each route under /api too."""
    app = web.Application(client_max_size=engine.arguments.max_upload_bytes, middlewares=[refuse_cross_origin])
    engine_api = EngineApi(engine)
    files = FilesApi(engine.folders)
    gets, posts = _make_routes(engine_api, files)
    if engine.release.has_jobs:
        gets["/node_replacements"] = engine_api.node_replacements
        JobsApi(engine).add_routes(app)
    for prefix in ("", "/api"):
        app.router.add_get(f"{prefix}/ws", engine.hub.serve_websocket)
        for path, handler in gets.items():
            app.router.add_get(prefix + path, handler)
        for path, handler in posts.items():
            app.router.add_post(prefix + path, handler)
    app.router.add_get("/{path:.*}", engine_api.not_found)

    async def start(_: web.Application) -> None:
        engine.start()

    async def stop(_: web.Application) -> None:
        await asyncio.to_thread(engine.stop)

    app.on_startup.append(start)
    app.on_cleanup.append(stop)
    return app


def _make_routes(engine_api: "EngineApi", files: FilesApi) -> tuple[dict[str, Handler], dict[str, Handler]]:
    """Return the handlers of GET and POST requests that every release has."""
    gets: dict[str, Handler] = {
        "/prompt": engine_api.prompt_info,
        "/queue": engine_api.queue_info,
        "/history": engine_api.list_history,
        "/history/{prompt_id}": engine_api.get_history,
        "/object_info": engine_api.object_info,
        "/object_info/{name}": engine_api.object_info_of,
        "/system_stats": engine_api.system_stats,
        "/features": engine_api.list_features,
        "/extensions": engine_api.empty_list,
        "/embeddings": engine_api.empty_list,
        "/models": engine_api.list_models,
        "/models/{folder}": engine_api.list_models_in,
        "/view": files.view_file,
    }
    posts: dict[str, Handler] = {
        "/prompt": engine_api.submit_prompt,
        "/queue": engine_api.change_queue,
        "/history": engine_api.change_history,
        "/interrupt": engine_api.interrupt_prompt,
        "/free": engine_api.free_memory,
        "/upload/image": files.upload_image,
        "/upload/mask": files.upload_mask,
    }
    return gets, posts


class EngineApi:
    """Serves the routes that deal in JSON."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self._engine = engine

    async def submit_prompt(self, request: web.Request) -> web.Response:
        """Check a graph and queue it, or say what is wrong with it."""
        request_body = await read_json(request)
        with answer_trouble():
            queue_number = float(request_body["number"]) if "number" in request_body else self._engine.next_number()
            if "number" not in request_body and get_field(request_body, "front"):
                # A negative number runs before all others; later ones before earlier ones.
                queue_number = -queue_number
            if "prompt" not in request_body:
                return web.json_response(_NO_PROMPT, status=400)
            graph, execution_targets = request_body["prompt"], request_body.get("partial_execution_targets")
            prompt_id = request_body.get("prompt_id")
            if self._engine.release.wants_uuids and prompt_id is not None and not is_job_id(prompt_id):
                return web.json_response(_BAD_PROMPT_ID, status=400)
            if self._engine.release.has_jobs:
                replace_nodes(graph, self._engine.node_classes)
            wanted_outputs = None if execution_targets is None else frozenset(execution_targets)
            extra_data = {} if request_body.get("extra_data") is None else {**request_body["extra_data"]}
            verdict = self._engine.validator.check_graph(graph, wanted_outputs)
        if verdict.error is not None:
            log.info("prompt refused", extra={"action": "prompt_refused", "why": verdict.error})
            return web.json_response({"error": verdict.error, "node_errors": verdict.node_errors}, status=400)
        if "client_id" in request_body:
            extra_data["client_id"] = request_body["client_id"]
        if self._engine.release.has_jobs:
            extra_data["create_time"] = timestamp_ms()
        if prompt_id is None and (self._engine.release.wants_uuids or "prompt_id" not in request_body):
            prompt_id = uuid4()  # 0.3.64 takes an explicit null for the id "None"
        prompt_id = str(prompt_id)
        self._engine.queue.add_prompt(
            QueuedPrompt(
                number=queue_number, prompt_id=prompt_id, graph=graph, extra_data=extra_data, outputs=verdict.outputs
            )
        )
        response = {"prompt_id": prompt_id, "number": queue_number, "node_errors": verdict.node_errors}
        return web.json_response(response)

    async def prompt_info(self, _: web.Request) -> web.Response:
        """Answer how many prompts have not ended."""
        return web.json_response({"exec_info": {"queue_remaining": self._engine.queue.count_unfinished()}})

    async def queue_info(self, _: web.Request) -> web.Response:
        """Answer what runs and what waits."""
        running = self._engine.queue.running_prompt()
        return web.json_response(
            {
                "queue_running": [running.to_json()] if running else [],
                "queue_pending": [prompt.to_json() for prompt in self._engine.queue.waiting_prompts()],
            }
        )

    async def change_queue(self, request: web.Request) -> web.Response:
        """Forget prompts that wait: all of them, or some ids."""
        request_body = await read_json(request)
        with answer_trouble():
            if get_field(request_body, "clear"):
                self._engine.queue.clear_waiting()
            for prompt_id in get_field(request_body, "delete") or ():
                self._engine.queue.delete_waiting(prompt_id)
        return web.Response()

    async def list_history(self, request: web.Request) -> web.Response:
        """Answer what ended, oldest first."""
        with answer_trouble():
            limit_text = request.query.get("max_items")
            max_items = None if limit_text is None else int(limit_text)
            offset = int(request.query.get("offset", -1))
        return web.json_response(self._engine.queue.list_history(max_items=max_items, offset=offset))

    async def get_history(self, request: web.Request) -> web.Response:
        """Answer one prompt that ended, or `{}`."""
        return web.json_response(self._engine.queue.find_history(request.match_info["prompt_id"]))

    async def change_history(self, request: web.Request) -> web.Response:
        """Forget prompts that ended: all of them, or some ids."""
        request_body = await read_json(request)
        with answer_trouble():
            if get_field(request_body, "clear"):
                self._engine.queue.clear_history()
            for prompt_id in get_field(request_body, "delete") or ():
                self._engine.queue.delete_history(prompt_id)
        return web.Response()

    async def object_info(self, _: web.Request) -> web.Response:
        """Answer the catalogue of node classes."""
        folders = self._engine.folders
        release = self._engine.release
        entries = {
            class_name: catalogue_entry(node_class, folders, release)
            for class_name, node_class in self._engine.node_classes.items()
        }
        return web.json_response(entries)

    async def object_info_of(self, request: web.Request) -> web.Response:
        """Answer one class, or `{}`."""
        class_name = request.match_info["name"]
        node_class = self._engine.node_classes.get(class_name)
        if node_class is None:
            return web.json_response({})
        return web.json_response({class_name: catalogue_entry(node_class, self._engine.folders, self._engine.release)})

    async def node_replacements(self, _: web.Request) -> web.Response:
        """Answer the classes that are renamed in prompts."""
        return web.json_response({old: [replacement.to_json()] for old, replacement in REPLACEMENTS.items()})

    async def system_stats(self, _: web.Request) -> web.Response:
        """Answer what this runs on."""
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
        # Supervisors ask for this first: NumPy is imported while they go on.
        self._engine.warm_up()
        return web.json_response({"system": system, "devices": [device]})

    async def list_features(self, _: web.Request) -> web.Response:
        """Answer what this server can do."""
        return web.json_response(self._engine.flags)

    async def list_models(self, _: web.Request) -> web.Response:
        """Answer the kinds of models."""
        return web.json_response(_MODEL_FOLDERS.split())

    async def list_models_in(self, request: web.Request) -> web.Response:
        """Answer no models, for every kind."""
        if request.match_info["folder"] not in _MODEL_FOLDERS.split():
            return web.Response(status=404)
        return web.json_response([])

    async def empty_list(self, _: web.Request) -> web.Response:
        """Answer an empty list: there are no extensions and no embeddings."""
        return web.json_response([])

    async def not_found(self, _: web.Request) -> web.Response:
        """Answer 404: there is no web page here at all."""
        return web.Response(status=404)

    async def interrupt_prompt(self, request: web.Request) -> web.Response:
        """Stop the prompt that runs, or only the prompt named."""
        prompt_id = None
        if await request.read():
            request_body = await read_json(request)
            with answer_trouble():
                prompt_id = request_body.get("prompt_id")
        self._engine.interrupt_prompt(prompt_id)
        return web.Response()

    async def free_memory(self, request: web.Request) -> web.Response:
        """Drop kept results."""
        request_body = await read_json(request)
        with answer_trouble():
            if request_body.get("unload_models") or request_body.get("free_memory"):
                self._engine.queue.request_chores({"free"})
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
