"""Runpod's management and job API, in memory: keeps state, and checks every request and answer by Runpod's OpenAPI."""

import copy
import http.server
import itertools
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from tests.support.runpod_openapi import RunpodOpenApi

KEY = "rpa_TESTKEY0000000000000000000000000000000000"
_COLLECTIONS = {
    "/v2/registries": "registries",
    "/v2/network-volumes": "networkVolumes",
    "/v2/templates": "templates",
    "/v2/serverless": "endpoints",
    "/v2/pods": "pods",
}
GPUS: list[dict[str, Any]] = [
    {
        "id": "NVIDIA GeForce RTX 4090",
        "name": "RTX 4090",
        "pool": "ADA_24",
        "manufacturer": "NVIDIA",
        "memory": 24,
        "secure": True,
        "community": True,
        "price": {"secure": 0.69, "community": 0.34, "serverless": 1.1},
        "maxCount": {"secure": 8, "community": 8},
    },
    {
        "id": "NVIDIA L40S",
        "name": "L40S",
        "pool": "ADA_48_PRO",
        "manufacturer": "NVIDIA",
        "memory": 48,
        "secure": True,
        "community": False,
        "price": {"secure": 0.86, "community": 0.79, "serverless": 1.9},
        "maxCount": {"secure": 8, "community": 0},
    },
]
CPUS: list[dict[str, Any]] = [
    {
        "id": "cpu5c",
        "name": "Compute-Optimized",
        "group": "Gen 5",
        "vcpu": {"min": 2, "max": 32},
        "ramGbPerVcpu": 2,
        "price": {"securePerVcpu": 0.04, "serverlessPerVcpu": 0.03},
    }
]
_CREATED = "2026-11-01T00:00:00Z"


@dataclass
class Fault:
    """The next `times` requests that match answer `status`, hang for `delay_s`, or are cut, before or after acting."""

    method: str
    path: str
    status: int = 500
    times: int = 1
    delay_s: float = 0
    cut: bool = False
    after_acting: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class FakeRunPod:
    """A running server: `url`, its `state` by list, the `log` of (method, path), the OpenAPI's `violations`."""

    def __init__(self, openapi: Path) -> None:
        self.openapi = RunpodOpenApi(openapi)
        self.state: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in _COLLECTIONS.values()}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[str, str]] = []
        self.violations: list[str] = []
        self.faults: deque[Fault] = deque()
        self.run_job: Callable[[dict[str, Any]], dict[str, Any]] = lambda _input: {"status": "COMPLETED", "output": {}}
        self.worker_states: list[str] = ["IDLE"]
        # By an endpoint's name: where its load balancer is, if a test has one.
        self.balancers: dict[str, str] = {}
        self.page_size = 2  # as the real one pages, but so that few resources are many pages
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        fake = self

        class Handler(_Handler):
            server_state = fake

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [entry for entry in self.log if entry[0] != "GET"]

    def __enter__(self) -> "FakeRunPod":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def named(self, collection: str, name: str) -> dict[str, Any]:
        return next(item for item in self.state[collection].values() if item["name"].removesuffix(" -fb") == name)

    # -- the API ---------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, body: Any, query: str = "") -> tuple[int, Any]:
        with self._lock:
            if path.startswith("/job/"):
                return self._job(method, path, body)
            if method in ("GET", "DELETE") or path.endswith("/action"):
                self._request_errors(method, path, body, dict(parse_qsl(query)))
            status, answer = self._manage(method, path, body)
            if method == "GET" and path in _COLLECTIONS:
                answer = self._page(answer, _COLLECTIONS[path], dict(parse_qsl(query)))
            self._check_answer(method, path, status, answer)
            return status, answer

    def _manage(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if path == "/v2/catalog/gpus":
            return 200, {"gpus": GPUS}
        if path == "/v2/catalog/cpus":
            return 200, {"cpus": CPUS}
        if match := re.fullmatch(r"/v2/pods/([^/]+)/action", path):
            pod = self.state["pods"].get(match[1])
            if pod is None:
                return _problem(404, "Not Found", "no such pod")
            pod["status"] = {"stop": "EXITED", "terminate": "TERMINATED"}.get(body["action"], "RUNNING")
            return 200, copy.deepcopy(pod)
        if match := re.fullmatch(r"/v2/serverless/([^/]+)/workers", path):
            if match[1] not in self.state["endpoints"]:
                return _problem(404, "Not Found", "no such endpoint")
            return 200, self._workers()
        base = next((item for item in _COLLECTIONS if path == item or path.startswith(item + "/")), None)
        if base is None:
            return _problem(404, "Not Found", f"no route {path}")
        collection = _COLLECTIONS[base]
        items = self.state[collection]
        if path == base:
            if method == "GET":
                return 200, {collection: list(items.values())}
            return self._create(base, collection, body)
        identifier = path[len(base) + 1 :]
        if identifier not in items:
            return _problem(404, "Not Found", f"{identifier} does not exist")
        if method == "PATCH":
            return self._change(base, collection, identifier, body)
        if method == "DELETE":
            del items[identifier]
            return 204, None
        return 200, items[identifier]

    def _page(self, answer: dict[str, Any], collection: str, query: dict[str, str]) -> dict[str, Any]:
        size, begin = min(int(query.get("limit", self.page_size)), self.page_size), int(query.get("cursor", "0"))
        end = begin + size
        has_more = end < len(answer[collection])
        pagination = {"hasNextPage": has_more, "nextCursor": str(end) if has_more else None}
        return {**answer, collection: answer[collection][begin:end], "pagination": pagination}

    def _create(self, base: str, collection: str, body: Any) -> tuple[int, Any]:
        if errors := self._request_errors("POST", base, body):
            return _problem(422, "Unprocessable Entity", "validation failed", errors)
        if any(item["name"] == body["name"] for item in self.state[collection].values()):
            return _problem(400, "Bad Request", f"the name {body['name']} is taken")
        item = {**_DEFAULTS[collection](), **{k: v for k, v in body.items() if v is not None}}
        item["id"] = f"{collection[:3]}{next(self._ids)}"
        if collection == "registries":
            item = {"id": item["id"], "name": item["name"]}
        if collection == "endpoints" and "FLASHBOOT" in item["flashboot"]:
            item["name"] += " -fb"
        if collection == "endpoints":
            item["requestUrls"] = self._request_urls(item)
            if "cpu" in item:
                item["cpu"] = [{**choice, "memory": 2 * choice["vcpuCount"]} for choice in item["cpu"]]
        if collection == "endpoints" and isinstance(item.get("gpu"), dict):
            item["gpu"] = {"allowedCudaVersions": [], "minCudaVersion": None, "excludedTypes": [], **item["gpu"]}
        if collection == "pods":
            item.pop("startSsh", None)
            item.pop("startJupyter", None)
            if "gpu" in item:
                # What only places a pod is never told back.
                item["gpu"] = {k: v for k, v in item["gpu"].items() if k in ("id", "count")}
            if "cpu" in item:
                item["cpu"] = {**item["cpu"], "memory": 2 * item["cpu"]["vcpuCount"]}
            item["globalNetworking"] = {"enabled": bool(body.get("globalNetworking"))}
            item.pop("dataCenterIds", None)
        self.state[collection][item["id"]] = item
        return 201, copy.deepcopy(item)

    def _change(self, base: str, collection: str, identifier: str, body: Any) -> tuple[int, Any]:
        if errors := self._request_errors("PATCH", f"{base}/{identifier}", body):
            return _problem(422, "Unprocessable Entity", "validation failed", errors)
        item = self.state[collection][identifier]
        if collection == "networkVolumes" and body.get("size", item["size"]) < item["size"]:
            return _problem(400, "Bad Request", "a volume cannot shrink")
        if isinstance(body.get("globalNetworking"), bool):
            body = {**body, "globalNetworking": {"enabled": body["globalNetworking"]}}
        if isinstance(body.get("gpu"), dict) and "minCudaVersion" in body["gpu"]:
            body = {**body, "gpu": {**body["gpu"], "minCudaVersion": body["gpu"]["minCudaVersion"] or None}}
        for key, value in body.items():
            merged = isinstance(value, dict) and key != "env" and isinstance(item.get(key), dict)
            item[key] = {**item[key], **value} if merged and "type" not in value else value
        return 200, copy.deepcopy(item)

    def _request_urls(self, item: dict[str, Any]) -> dict[str, str]:
        if item["type"] == "LOAD_BALANCER":
            base = self.balancers.get(item["name"].removesuffix(" -fb"), f"{self.url}/balanced/{item['id']}")
            return {"base": base, "health": f"{base}/ping"}
        names = ("run", "runSync", "status", "stream", "cancel", "retry", "purgeQueue", "health")
        return {name: f"{self.url}/job/{item['id']}/{name.lower()}" for name in names}

    def _workers(self) -> dict[str, Any]:
        workers = [
            {
                "id": f"w{index}",
                "status": status,
                "isStale": False,
                "version": 1,
                "gpuCount": 1,
                "image": "x",
                "uptimeSeconds": 5,
                "gpuTypeId": GPUS[0]["id"],
                "dataCenterId": "EU-RO-1",
                "startedAt": _CREATED,
            }
            for index, status in enumerate(self.worker_states)
        ]
        names = ("running", "idle", "initializing", "throttled", "unhealthy")
        summary = {name: self.worker_states.count(name.upper()) for name in names}
        return {"workers": workers, "summary": {**summary, "total": len(workers)}, "endpointVersion": 1}

    # -- the job API (not part of the OpenAPI): /job/<endpoint>/run, /status/<id>, /cancel/<id> ------------------------

    def _job(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        _, _, endpoint, verb, *rest = path.split("/")
        if endpoint not in self.state["endpoints"]:
            return 404, {"error": "endpoint not found"}
        if verb == "run":
            job_id = f"job-{next(self._ids)}"
            self.jobs[job_id] = {"id": job_id, "polls": 0, "input": body["input"]}
            return 200, {"id": job_id, "status": "IN_QUEUE"}
        job = self.jobs.get(rest[0])
        if job is None:
            return 404, {"error": "job not found"}
        if verb == "cancel":
            job["cancelled"] = True
            return 200, {"id": job["id"], "status": "CANCELLED"}
        job["polls"] += 1
        if job["polls"] == 1:
            return 200, {"id": job["id"], "status": "IN_QUEUE"}
        if job["polls"] == 2:
            return 200, {"id": job["id"], "status": "IN_PROGRESS", "output": "node 1 of 2"}
        if "answer" not in job:
            job["answer"] = self.run_job(job["input"])
        return 200, {"id": job["id"], **job["answer"]}

    # -- the OpenAPI -------------------------------------------------------------------------------------------------

    def _request_errors(self, method: str, path: str, body: Any, query: dict[str, str] | None = None) -> list[str]:
        errors = self.openapi.request_errors(method.upper(), path, body, query)
        self.violations += errors
        return errors

    def _check_answer(self, method: str, path: str, status: int, answer: Any) -> None:
        self.violations += self.openapi.answer_errors(method, path, status, answer)


def _container() -> dict[str, Any]:
    return {"image": "", "args": "", "disk": 10, "ports": [], "env": {}, "registry": None}


_DEFAULTS: dict[str, Callable[[], dict[str, Any]]] = {
    "registries": dict,
    "networkVolumes": lambda: {"type": "STANDARD"},
    "templates": lambda: {
        **_container(),
        "mounts": {},
        "serverless": False,
        "public": False,
        "category": "NVIDIA",
        "startSsh": True,
        "startJupyter": True,
        "allowedCudaVersions": [],
    },
    "endpoints": lambda: {
        **_container(),
        "workers": {"min": 0, "max": 3, "idleTimeout": 10},
        "dataCenterIds": [],
        "networkVolumes": [],
        "timeout": 300000,
        "flashboot": "OFF",
        "createdAt": _CREATED,
    },
    "pods": lambda: {
        **_container(),
        "status": "RUNNING",
        "actions": ["stop"],
        "mounts": {},
        "cloud": "SECURE",
        "dataCenterId": "EU-RO-1",
        "cudaVersion": "12.8",
        "ssh": {"proxy": None, "direct": None},
        "template": None,
        "cost": 0.69,
        "locked": False,
        "runtime": None,
        "createdAt": _CREATED,
        "startedAt": None,
        "globalNetworking": {"enabled": False},
    },
}


def _problem(status: int, title: str, detail: str, errors: list[str] | None = None) -> tuple[int, Any]:
    return status, {"title": title, "status": status, "detail": detail, **({"errors": errors} if errors else {})}


class _Handler(http.server.BaseHTTPRequestHandler):
    server_state: FakeRunPod
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: object) -> None:
        pass

    def _serve(self) -> None:
        fake = self.server_state
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        path, _, query = self.path.partition("?")
        fake.log.append((self.command, path))
        fault = self._fault(path)
        if fault is not None and not fault.after_acting:
            return self._break(fault)
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self._send(*_problem(401, "Unauthorized", "missing or invalid bearer token"))
        status, answer = fake.answer(self.command, path, json.loads(raw) if raw else None, query)
        if fault is not None:
            return self._break(fault)
        return self._send(status, answer)

    def _fault(self, path: str) -> Fault | None:
        for fault in self.server_state.faults:
            if fault.times > 0 and fault.method == self.command and re.fullmatch(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def _break(self, fault: Fault) -> None:
        time.sleep(fault.delay_s)
        if fault.cut:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"id": ')
            self.close_connection = True
            return
        self._send(*_problem(fault.status, "Broken", "as the test wishes"), headers=fault.headers)

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        data = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _serve
