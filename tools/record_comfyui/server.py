"""What is recorded of a ComfyUI's server: its catalogue, and the answers and pictures of prompts."""

import hashlib
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

_WAIT_S = 0.05


class ComfyUI:
    """A running ComfyUI."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = urllib3.PoolManager(retries=False)

    def get(self, path: str) -> Any:
        """Return the JSON of a path. Raises `RuntimeError` for any answer but 200."""
        answer = self._http.request("GET", self.url + path)
        if answer.status != 200:
            raise RuntimeError(f"GET {self.url}{path}: {answer.status}")
        return answer.json()

    def version(self) -> str:
        """Return the release that it says it is."""
        return str(self.get("/system_stats")["system"]["comfyui_version"])

    def templates(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and the workflow of every template that its page offers."""
        for group in self.get("/templates/index.json"):
            for template in group["templates"]:
                yield template["name"], self.get(f"/templates/{quote(template['name'])}.json")

    def upload(self, file: Path) -> None:
        """Put a file into its input folder, over one of the same name."""
        fields: Any = {"image": (file.name, file.read_bytes()), "overwrite": "true"}
        answer = self._http.request("POST", f"{self.url}/upload/image", fields=fields)
        if answer.status != 200:
            raise RuntimeError(f"{file}: the upload was answered {answer.status}")

    def run(self, prompt: Any) -> tuple[int, Any, Any]:
        """Submit a prompt; return the status and the body of the answer, and the history if it was accepted."""
        answer = self._http.request("POST", f"{self.url}/prompt", json={"prompt": prompt})
        try:
            body = answer.json()
        except ValueError:
            return answer.status, answer.data.decode(errors="replace"), None
        if answer.status != 200:
            return answer.status, body, None
        while not (found := self.get(f"/history/{body['prompt_id']}")):
            time.sleep(_WAIT_S)
        return answer.status, body, found[body["prompt_id"]]

    def file(self, entry: dict[str, str]) -> bytes:
        """Return the bytes of a file that a history names."""
        answer = self._http.request("GET", f"{self.url}/view?{urlencode(entry)}")
        if answer.status != 200:
            raise RuntimeError(f"{entry}: {answer.status}")
        return answer.data


def record_catalogue(server: ComfyUI, folder: Path) -> None:
    """Write the catalogue of all classes."""
    folder.mkdir(parents=True, exist_ok=True)
    catalogue = server.get("/object_info")
    (folder / "object_info.json").write_text(json.dumps(catalogue, indent=1))
    print(f"{len(catalogue)} classes of ComfyUI {server.version()}")


def record_pixels(server: ComfyUI, folder: Path, prompts: list[Path], inputs: Path | None) -> None:
    """Run each file (a prompt, or an earlier recording) and write its prompt and its pictures, without metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(inputs.iterdir()) if inputs else ():
        server.upload(file)
    for path in prompts:
        document = json.loads(path.read_text())
        prompt = document.get("workflow", document)
        status, body, history = server.run(prompt)
        if history is None or history["status"]["status_str"] != "success":
            print(f"{path.stem}: not recorded: {status} {json.dumps(history['status'] if history else body)[:400]}")
            continue
        files = [file for shown in history["outputs"].values() for file in shown.get("images", ())]
        outputs = [
            _write_picture(folder, f"{path.stem}.{index}.png", server.file(file)) for index, file in enumerate(files)
        ]
        text = json.dumps({"workflow": prompt, "outputs": outputs}, indent=1)
        (folder / f"{path.stem}.json").write_text(text + "\n")


def _write_picture(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    from PIL import Image

    if not content.startswith(b"\x89PNG"):
        return {"file": None, "sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    picture = Image.open(io.BytesIO(content))
    keys = list(getattr(picture, "text", {}))
    picture.copy().save(folder / name, pnginfo=None)
    return {"file": name, "mode": picture.mode, "size": list(picture.size), "png_text_keys": keys}


def record_answers(server: ComfyUI, prompts: dict[str, Any], file: Path) -> None:
    """Submit prompts, good and bad, and write what the server said, without what differs from run to run."""
    recorded = {}
    for name, prompt in prompts.items():
        status, body, history = server.run(json.loads(json.dumps(prompt)))
        recorded[name] = {"prompt": prompt, **told(status, body, history)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(recorded, indent=1) + "\n")
    print(f"{len(recorded)} answers of ComfyUI {server.version()}")


def told(status: int, body: Any, history: Any) -> dict[str, Any]:
    """Return what clients read of an answer and of the history that followed."""
    if not isinstance(body, dict):
        return {"status": status}
    answer = {key: _without_tracebacks(body[key]) for key in ("error", "node_errors") if key in body}
    if history is None:
        return {"status": status, "answer": answer}
    kind, last = history["status"]["messages"][-1]
    failure = {key: last[key] for key in ("node_id", "exception_type", "exception_message") if key in last}
    shown = {
        node_id: {
            key: [{**each, "filename": "..."} if isinstance(each, dict) else each for each in items]
            for key, items in outputs.items()
        }
        for node_id, outputs in history["outputs"].items()
    }
    return {"status": status, "answer": answer, "ended": kind, "failure": failure, "outputs": shown}


def _without_tracebacks(value: Any) -> Any:
    """Return a JSON value without the lines of somebody's source code in it."""
    if isinstance(value, dict):
        return {key: _without_tracebacks(each) for key, each in value.items() if key != "traceback"}
    return [_without_tracebacks(each) for each in value] if isinstance(value, list) else value
