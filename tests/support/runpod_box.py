"""A Runpod in a box: the API's stand-in, whose endpoints and pods are real processes with real folders as volumes.

An endpoint starts `comfypin worker` under Runpod's own SDK, fed by a queue; a pod starts its command; both see what
Runpod gives them: their variables (secrets filled in), the volume, an id, a key. A container that ends is started
again, as Runpod does. Logs are what the processes print; releases are what was changed.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from tests.conftest import ROOT
from tests.support.runpod_api import GPUS, KEY, FakeRunPod, _Handler, _problem
from tests.support.runpod_queue import RunpodQueue
from tests.support.workflows import picture

MOUNT = "/runpod-volume"
IMAGE = "ghcr.io/you/comfypin-worker@sha256:" + "6f" * 32
CENTERS = ("EU-RO-1", "US-KS-2", "US-TX-3")
_RESTART_S = 1.0
_CONTAINER_FIELDS = {"image", "args", "env", "disk", "ports", "registry", "networkVolumes"}
_SECRET = re.compile(r"\{\{\s*RUNPOD_SECRET_([\w.\-/]+)\s*\}\}")


class BoxQueue(RunpodQueue):
    """A queue that knows which jobs a worker has."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: dict[str, Any] = {}
        self.taken: set[str] = set()
        self.cancelled: set[str] = set()

    def put(self, job_id: str, job_input: object, **more: Any) -> None:
        self.inputs[job_id] = job_input
        super().put(job_id, job_input, **more)

    def take(self, count: int) -> list[dict[str, Any]]:
        jobs = super().take(count)
        self.taken |= {job["id"] for job in jobs}
        return jobs

    def give_back(self) -> None:
        """Put the jobs whose worker is gone into the queue again."""
        for job_id in sorted(self.taken):
            if self.final(job_id) is None and job_id not in self.cancelled:
                self.taken.discard(job_id)
                super().put(job_id, self.inputs[job_id])

    def status(self, job_id: str) -> dict[str, Any]:
        final = self.final(job_id)
        if job_id in self.cancelled:
            return {"id": job_id, "status": "CANCELLED"}
        if final is not None and "error" in final:
            return {"id": job_id, "status": "FAILED", "error": final["error"]}
        if final is not None:
            return {"id": job_id, "status": "COMPLETED", "output": final.get("output")}
        posts = self.posts[job_id]
        progress = {"output": posts[-1].get("output")} if posts else {}
        return {"id": job_id, "status": "IN_PROGRESS" if job_id in self.taken else "IN_QUEUE", **progress}


class Container:
    """One container: a process that is started again when it ends, with its log in a file."""

    def __init__(self, folder: Path, argv: list[str], environ: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.argv, self.environ = folder, argv, dict(environ)
        self.log_path = folder / "log"
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.log_path.touch()
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            with self.log_path.open("ab") as log:
                self.process = subprocess.Popen(
                    self.argv,
                    cwd=ROOT,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=self.environ,
                )
            self.starts += 1
            self.process.wait()
            self._ending.wait(_RESTART_S)

    @property
    def lines(self) -> list[str]:
        return self.log_path.read_text(errors="replace").splitlines()

    def end(self) -> None:
        """End the process group, politely first; the SDK's ping child outlives a worker that was only killed."""
        self._ending.set()
        process = self.process
        if process is not None:
            for number, patience_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience_s)
        self._thread.join(20)


class RunpodBox(FakeRunPod):
    """The running box. `root` holds volumes and containers; `environ` is what the image and its machine have."""

    def __init__(self, openapi: Path, root: Path, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(openapi)
        self.root = root
        self.environ = dict(environ or {})
        self.secrets: dict[str, dict[str, str]] = {}
        self.workers: dict[str, Container] = {}
        self.pod_containers: dict[str, Container] = {}
        self.queues: dict[str, BoxQueue] = {}
        self.releases: dict[str, list[dict[str, Any]]] = {}
        self.levels: dict[str, str] = dict.fromkeys(CENTERS, "HIGH")
        self.made: list[tuple[str, str]] = []
        self.lowest_bid: float | None = 0.2
        # False: pods are there, and nothing runs in them.
        self.starts_pods = True
        # Told of each request when it came in ("before": nothing was done) and when it was carried out and its answer
        # is not sent yet ("after"). Whoever killed the client returns True: then the rest of it does not happen.
        self.on_request: Callable[[str, str], bool] = lambda _request, _phase: False
        self._closing = contextlib.ExitStack()
        box = self

        class Handler(_BoxHandler):
            server_state = box

        self._server.RequestHandlerClass = Handler

    def __enter__(self) -> "RunpodBox":
        super().__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        for container in [*self.workers.values(), *self.pod_containers.values()]:
            container.end()
            # What a test that failed shows.
            print(f"--- {container.folder.name}", *container.lines[-20:], sep="\n")
        super().__exit__(*exc)
        self._closing.close()

    def volume_folder(self, volume_id: str) -> Path:
        folder = self.root / "volumes" / volume_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def logs_of(self, identifier: str) -> list[str]:
        container = self.workers.get(identifier) or self.pod_containers.get(identifier)
        return [] if container is None else container.lines

    def wait_for_line(self, identifier: str, words: str, *, within_s: float) -> str:
        """Wait until a container has printed a line with these words, and return it."""
        deadline = time.monotonic() + within_s
        while True:
            lines = self.logs_of(identifier)
            if found := next((line for line in lines if words in line), None):
                return found
            assert time.monotonic() < deadline, "\n".join(lines[-30:])
            time.sleep(0.1)

    # -- the API ---------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, body: Any, query: str = "") -> tuple[int, Any]:
        if path.startswith("/job/"):
            return self._queue_job(method, path, body)
        with self._lock:
            special = self._answer_special(method, path, body, dict(parse_qsl(query)))
            if special is not None:
                if path != "/graphql":
                    self._check_answer(method, path, *special)
                return special
        return super().answer(method, path, body, query)

    def _answer_special(self, method: str, path: str, body: Any, query: dict[str, str]) -> tuple[int, Any] | None:
        if path == "/v2/catalog/gpus":
            return 200, {"gpus": [self._with_availability(gpu) for gpu in GPUS] if "include" in query else GPUS}
        if path == "/v2/catalog/cpus":
            return 200, {"cpus": [self._with_availability(cpu) for cpu in _CPUS]}
        if path == "/v2/catalog/datacenters":
            return 200, {"dataCenters": [_data_center(name) for name in CENTERS]}
        if path == "/graphql":
            return 200, self._answer_graphql(body)
        if path.startswith("/v2/account/secrets"):
            return self._answer_secrets(method, path, body, query)
        if match := re.fullmatch(r"/v2/serverless/([^/]+)/(releases|workers)", path):
            if match[1] not in self.state["endpoints"]:
                return _problem(404, "Not Found", "no such endpoint")
            return 200, self._list_releases(match[1]) if match[2] == "releases" else self._list_workers(match[1])
        return None

    def _with_availability(self, record: dict[str, Any]) -> dict[str, Any]:
        centers = [
            {"id": name, "name": name, "availability": level} for name, level in self.levels.items() if level != "NONE"
        ]
        level = "HIGH" if centers else "NONE"
        return {**record, "availability": level, **({"dataCenters": centers} if centers else {})}

    def _answer_secrets(self, method: str, path: str, body: Any, query: dict[str, str]) -> tuple[int, Any]:
        identifier = path.removeprefix("/v2/account/secrets").strip("/")
        if method == "POST":
            if any(secret["name"] == body["name"] for secret in self.secrets.values()):
                return _problem(409, "Conflict", f"the secret {body['name']} exists")
            made = {"id": f"sec{next(self._ids)}", "name": body["name"]}
            self.secrets[made["id"]] = {**made, "value": body["value"]}
            self.made.append(("secrets", body["name"]))
            return 201, made
        if method == "DELETE":
            return (204, None) if self.secrets.pop(identifier, None) else _problem(404, "Not Found", identifier)
        listed = [{"id": secret["id"], "name": secret["name"]} for secret in self.secrets.values()]
        return 200, self._page({"secrets": listed}, "secrets", query)

    def _answer_graphql(self, body: Any) -> dict[str, Any]:
        """Spot pods, as the page of Runpod's documentation has them: prices, and a pod at a bid."""
        if "podRentInterruptable" not in body["query"]:
            return {"data": {"gpuTypes": [{"lowestPrice": {"minimumBidPrice": self.lowest_bid}}]}}
        asked = body["variables"]["input"]
        if self.lowest_bid is None or asked["bidPerGpu"] < self.lowest_bid:
            return {"errors": [{"message": "There are no instances at this price"}], "data": None}
        request = {
            "name": asked["name"],
            "image": asked["imageName"],
            "args": asked["dockerArgs"],
            "disk": asked["containerDiskInGb"],
            "env": {one["key"]: one["value"] for one in asked["env"]},
            "gpu": {"id": asked["gpuTypeId"], "count": asked["gpuCount"]},
            "cloud": asked["cloudType"],
            "mounts": {},
        }
        status, pod = self._create("/v2/pods", "pods", request)
        assert status == 201, pod
        self.state["pods"][pod["id"]]["cost"] = asked["bidPerGpu"]
        return {"data": {"podRentInterruptable": {"id": pod["id"]}}}

    def _create(self, base: str, collection: str, body: Any) -> tuple[int, Any]:
        is_cpu_pod = collection == "pods" and "cpu" in body
        status, item = super()._create(
            base, collection, {**body, "gpu": {"id": "x", "count": 1}} if is_cpu_pod else body
        )
        if status != 201:
            return status, item
        live = self.state[collection][item["id"]]
        if is_cpu_pod:
            live.pop("gpu")
            live["cpu"] = {**body["cpu"], "memory": body["cpu"]["vcpuCount"] * 2}
            live["cudaVersion"] = None
        self.made.append((collection, item["name"]))
        if collection == "pods":
            live["createdAt"] = datetime.now(UTC).isoformat()
            if self.starts_pods:
                self._start_pod(live)
        if collection == "endpoints":
            self._note_release(live["id"], {})
            self._start_worker(live["id"])
        return status, json.loads(json.dumps(live))

    def _change(self, base: str, collection: str, identifier: str, body: Any) -> tuple[int, Any]:
        before = json.loads(json.dumps(self.state[collection][identifier]))
        status, item = super()._change(base, collection, identifier, body)
        if collection == "endpoints" and status == 200 and item != before:
            self._note_release(identifier, before)
            if item["workers"].get("max") == 0:
                self._stop_worker(identifier)
            elif any(item.get(name) != before.get(name) for name in _CONTAINER_FIELDS):
                self._stop_worker(identifier)
                self._start_worker(identifier)
        return status, item

    def _manage(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        doomed = path.rpartition("/")[2] if method == "DELETE" else None
        status, answer = super()._manage(method, path, body)
        if doomed is not None and status == 204:
            self._stop_worker(doomed)
            if (container := self.pod_containers.pop(doomed, None)) is not None:
                # A pod that removes itself waits for the answer to this very request.
                threading.Thread(target=container.end, daemon=True).start()
        return status, answer

    # -- containers --------------------------------------------------------------------------------------------------

    def _start_pod(self, pod: dict[str, Any]) -> None:
        mounts = {one["path"]: self.volume_folder(one["volumeId"]) for one in pod["mounts"].get("network", ())}
        args = pod["args"]
        for path, folder in mounts.items():
            args = args.replace(path, str(folder))
        words = shlex.split(args)
        argv = [sys.executable, "-m", "comfypin.cli.main", *words[1:]] if words[0] == "comfypin" else words
        environ = self._container_environ(pod["id"], pod["env"], mounts)
        self.pod_containers[pod["id"]] = Container(self.root / "containers" / pod["id"], argv, environ)

    def _start_worker(self, endpoint_id: str) -> None:
        endpoint = self.state["endpoints"][endpoint_id]
        if endpoint_id not in self.queues:
            self.queues[endpoint_id] = self._closing.enter_context(BoxQueue().running())
        worker_id = f"{endpoint_id}w{len(self.releases[endpoint_id])}"
        volumes = endpoint["networkVolumes"]
        mounts = {MOUNT: self.volume_folder(volumes[0])} if volumes else {}
        environ = {
            **self._container_environ(worker_id, endpoint["env"], mounts),
            **_sdk_variables(self.queues[endpoint_id].url, endpoint_id),
        }
        argv = [sys.executable, "-m", "comfypin.cli.main", "worker", "--grace", "5"]
        self.workers[endpoint_id] = Container(self.root / "containers" / worker_id, argv, environ)

    def _stop_worker(self, endpoint_id: str) -> None:
        if (container := self.workers.pop(endpoint_id, None)) is not None:
            container.end()
            self.queues[endpoint_id].give_back()

    def _container_environ(
        self, identifier: str, variables: Mapping[str, str], mounts: Mapping[str, Path]
    ) -> dict[str, str]:
        folder = self.root / "containers" / identifier
        home, temporary = folder / "home", folder / "tmp"
        for path in (home, temporary):
            path.mkdir(parents=True, exist_ok=True)
        given = {name: self._fill_in(value, mounts) for name, value in variables.items()}
        return {
            **{name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV") if name in os.environ},
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "PYTHONUNBUFFERED": "1",
            # As the published image has them.
            "COMFY_HOME": str(folder / "comfy"),
            "COMFY_VERSION_NAME": "demo",
            **self.environ,
            "RUNPOD_POD_ID": identifier,
            "RUNPOD_API_KEY": KEY,
            "RUNPOD_API_URL": self.url,
            **given,
        }

    def _fill_in(self, value: str, mounts: Mapping[str, Path]) -> str:
        by_name = {secret["name"]: secret["value"] for secret in self.secrets.values()}
        value = _SECRET.sub(lambda match: by_name.get(match[1], ""), value)
        for path, folder in mounts.items():
            value = value.replace(path, str(folder))
        return value

    # -- releases, workers, jobs -------------------------------------------------------------------------------------

    def _note_release(self, endpoint_id: str, before: dict[str, Any]) -> None:
        item = self.state["endpoints"][endpoint_id]
        names = [name for name in item if item.get(name) != before.get(name)] if before else []
        known = self.releases.setdefault(endpoint_id, [])
        known.insert(
            0,
            {
                "id": f"rel{len(known) + 1}",
                "version": len(known) + 1,
                "source": "MANUAL",
                "buildId": None,
                "createdByUserId": None,
                "createdAt": item["createdAt"],
                "diff": [{"field": name, "old": before.get(name), "new": item.get(name)} for name in names],
            },
        )

    def _list_releases(self, endpoint_id: str) -> dict[str, Any]:
        releases = self.releases[endpoint_id]
        running = 1 if endpoint_id in self.workers else 0
        rollout = {
            "inProgress": False,
            "workersOnLatest": running,
            "workersTotal": running,
            "percentOnLatest": 100 * running,
        }
        rows = [{**item, "workerCount": running if item is releases[0] else 0} for item in releases]
        return {"endpointVersion": releases[0]["version"], "rollout": rollout, "releases": rows}

    def _list_workers(self, endpoint_id: str) -> dict[str, Any]:
        version = self.releases[endpoint_id][0]["version"]
        self.worker_states = [self.worker_state(endpoint_id)] if endpoint_id in self.workers else []
        answer = self._workers()
        for worker in answer["workers"]:
            worker |= {"id": f"{endpoint_id}w{version}", "version": version}
        return {**answer, "endpointVersion": version}

    def worker_state(self, endpoint_id: str) -> str:
        container, queue = self.workers[endpoint_id], self.queues[endpoint_id]
        if any(queue.final(job_id) is None for job_id in queue.taken):
            return "RUNNING"
        return "IDLE" if any("worker ready" in line for line in container.lines) else "INITIALIZING"

    def _queue_job(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        _, _, endpoint_id, verb, *rest = path.split("/")
        if endpoint_id not in self.state["endpoints"]:
            return 404, {"error": "endpoint not found"}
        queue = self.queues[endpoint_id]
        if verb in ("run", "runsync"):
            job_id = f"job-{next(self._ids)}"
            queue.put(job_id, body["input"])
            if verb == "run":
                return 200, {"id": job_id, "status": "IN_QUEUE"}
            # As there, which answers after 90 s with what is known then.
            deadline = time.monotonic() + 90
            while queue.final(job_id) is None and time.monotonic() < deadline:
                time.sleep(0.05)
            return 200, queue.status(job_id)
        if rest[0] not in queue.inputs:
            return 404, {"error": "job not found"}
        if verb == "cancel":
            queue.cancelled.add(rest[0])
            queue.cancel(rest[0])
        return 200, queue.status(rest[0])


class _BoxHandler(_Handler):
    server_state: RunpodBox

    def _answer_or_stream(self) -> None:
        box = self.server_state
        if self._is_cut_off("before"):
            return
        path, _, query = self.path.partition("?")
        match = re.fullmatch(r"/v2/(?:pods/([^/]+)|serverless/([^/]+)/workers/[^/]+)/logs", path)
        # Whoever asked may have been killed meanwhile.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if match is None:
                self._serve()
            else:
                box.log.append((self.command, path))
                self._stream_log(match[1] or match[2], dict(parse_qsl(query)))

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _answer_or_stream

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        if not self._is_cut_off("after"):
            super()._send(status, answer, headers)

    def _is_cut_off(self, phase: str) -> bool:
        is_cut_off = self.server_state.on_request(f"{self.command} {self.path}", phase)
        self.close_connection = self.close_connection or is_cut_off
        return is_cut_off

    def _stream_log(self, identifier: str, query: dict[str, str]) -> None:
        box = self.server_state
        containers = {**box.workers, **box.pod_containers}
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            return self._send(*_problem(401, "Unauthorized", "missing or invalid bearer token"))
        if identifier not in containers:
            return self._send(*_problem(404, "Not Found", f"{identifier} does not exist"))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        last = self.headers.get("Last-Event-ID")
        lines = containers[identifier].lines
        begin = int(last.rpartition("/")[2]) if last else max(0, len(lines) - int(query.get("tail", "100")))
        for number, line in self._new_lines(containers[identifier], begin):
            stamp = f"2026-11-01T00:00:00Z/{number:012}"
            event = json.dumps({"ts": stamp, "source": "container", "line": line})
            if number == begin + 1 and self._is_cut_off("after"):
                return None
            self.wfile.write(f"id: {stamp}\ndata: {event}\n\n".encode())
        return None

    def _new_lines(self, container: Container, begin: int) -> Iterator[tuple[int, str]]:
        ended_at = time.monotonic() + 60
        while time.monotonic() < ended_at:
            for line in container.lines[begin:]:
                begin += 1
                yield begin, line
            if container not in (*self.server_state.workers.values(), *self.server_state.pod_containers.values()):
                return
            # Runpod sends comments meanwhile; a broken pipe shows that nobody reads any more.
            self.wfile.write(b": \n\n")
            self.wfile.flush()
            time.sleep(0.1)


_CPUS: list[dict[str, Any]] = [
    {
        "id": "cpu5c",
        "name": "Compute-Optimized",
        "group": "Gen 5",
        "vcpu": {"min": 2, "max": 32},
        "ramGbPerVcpu": 2.0,
        "price": {"securePerVcpu": 0.04, "serverlessPerVcpu": 0.03},
    }
]


def _data_center(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "region": "EUROPE" if name.startswith("EU") else "NORTH_AMERICA",
        "networkVolumeTypes": ["STANDARD"],
        "compliance": [],
        "globalNetwork": False,
    }


def _sdk_variables(queue_url: str, endpoint_id: str) -> dict[str, str]:
    """What the platform tells Runpod's SDK; the last two let it run without a GPU."""
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{queue_url}/v2/ep/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{queue_url}/v2/ep/job-done/$RUNPOD_POD_ID/$ID",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{queue_url}/v2/ep/job-stream/$RUNPOD_POD_ID/$ID",
        "RUNPOD_WEBHOOK_PING": f"{queue_url}/v2/ep/ping/$RUNPOD_POD_ID",
        "RUNPOD_AI_API_KEY": "test",
        "RUNPOD_ENDPOINT_ID": endpoint_id,
        "RUNPOD_PING_INTERVAL": "60000",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }


DEMO = str(ROOT / "lockfiles" / "comfy-demo.lock.json")


def run_verb(
    box: RunpodBox, folder: Path, *words: str, code: int = 0, **environ: str
) -> "subprocess.CompletedProcess[str]":
    """Run a verb of `comfypin runpod` in a folder, as a person there does."""
    done = subprocess.run(
        [sys.executable, "-m", "comfypin.cli.main", "runpod", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,  # a worker starts meanwhile, on a machine that others use
        check=False,
        stdin=subprocess.DEVNULL,
        env=client_environ(box, folder, **environ),
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def client_environ(box: RunpodBox, folder: Path, **environ: str) -> dict[str, str]:
    """The environment of whoever calls the box."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD", "OUTPUT", "COMFY"))},
        "HOME": str(folder),
        "RUNPOD_API_URL": box.url,
        "RUNPOD_ENDPOINT_BASE_URL": f"{box.url}/job",
        "RUNPOD_API_KEY": KEY,
        **environ,
    }


def write_workflow(folder: Path, color: int = 1, name: str = "card.json") -> str:
    """Write a workflow of one colour, and return its name."""
    (folder / name).write_text(json.dumps(picture(color)))
    return name


def pictures(folder: Path) -> list[bytes]:
    """The pictures that a verb saved."""
    return [path.read_bytes() for path in sorted((folder / "out").rglob("*.png"))]
