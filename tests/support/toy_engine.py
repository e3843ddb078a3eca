"""An engine's process, as bad as it is told to be: `python toy_engine.py [--mode ...] --port N`; answers /system_stats.

It stands for a ComfyUI's process where a test is about starting and dying, not about prompts.
"""

import argparse
import http.server
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

SLEEPER = "import time; time.sleep(600)"
DAEMON = "import os, time; os.setsid(); os.fork() and os._exit(0); time.sleep(600)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", default="")
    parser.add_argument("--once", help="misbehave only while this file is absent; then make it")
    parser.add_argument("--pids", help="write the pids of everything into this file")
    parser.add_argument("--port", type=int)
    arguments, _ = parser.parse_known_args()
    modes = set(arguments.mode.split(","))
    if arguments.once:
        if Path(arguments.once).exists():
            modes = set()
        else:
            Path(arguments.once).touch()
    print("toy engine begins", flush=True)
    pids = [os.getpid()]
    if "grandchildren" in modes:
        pids += [subprocess.Popen([sys.executable, "-c", code]).pid for code in (SLEEPER, SLEEPER)]
        subprocess.run([sys.executable, "-c", DAEMON], check=False)
    if arguments.pids:
        Path(arguments.pids).write_text(" ".join(map(str, pids)))
    misbehave(modes)
    serve(arguments.port, modes)


def misbehave(modes: set[str]) -> None:
    if "port taken" in modes:
        print("OSError: [Errno 98] error while attempting to bind: address already in use", flush=True)
        sys.exit(1)
    if "exit 3" in modes:
        print("ImportError: no module named torch", file=sys.stderr, flush=True)
        sys.exit(3)
    if "cuda" in modes:
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB", flush=True)
        sys.exit(1)
    if "deaf" in modes:
        time.sleep(600)
    if "ignores SIGTERM" in modes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "chatty" in modes:
        for number in range(3000):
            print(f"\r{number}%|####    |", end="", flush=True)
        print("\n\x1b[31mred line\x1b[0m", flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    modes: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        if self.path == "/die":
            print("last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.path == "/environ":
            body = json.dumps(dict(os.environ)).encode()
        elif self.path == "/argv":
            body = json.dumps(sys.argv).encode()
        else:
            argv = ["--port", "1"] if "impostor" in self.modes else sys.argv
            body = json.dumps({"system": {"comfyui_version": "0.3.64", "argv": argv}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve(port: int, modes: set[str]) -> None:
    Handler.modes = modes
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
