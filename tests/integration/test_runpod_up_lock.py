"""The lock that `comfypin runpod up` makes of a workflow: asked for once, and only as new as what changed."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfypin.cli.runpod import up_lock
from comfypin.runpod.up.state import StateFolder
from comfypin.settings.environment import Settings
from tests.support.models import safetensors
from tests.support.releases import comfyui_files, small_release


class Asker:
    """Asks for the lock of a workflow as `up` does, and remembers it as `up` does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.comfyui = small_release(folder / "small").comfyui
        self.comfyui.commit(comfyui_files("") | {"nodes.py": "NODE_CLASS_MAPPINGS = {'Loader': object}\n"})
        self.state = StateFolder(root=folder / "state", name="card")

    def model(self, name: str) -> dict[str, str]:
        path = self.folder / f"{name}.safetensors"
        path.write_bytes(safetensors(name.encode()))
        return {"name": path.name, "url": path.as_uri(), "directory": "loras"}

    def ask(self, *models: dict[str, str]) -> up_lock.UpLock:
        parser = argparse.ArgumentParser()
        up_lock.add_lock_flags(parser)
        arguments = parser.parse_args(["--comfyui", self.comfyui.url])
        arguments.workflow, arguments.offline = "card.json", False
        arguments.settings = Settings({"HOME": str(self.folder)})
        content: dict[str, Any] = {"nodes": [{"type": "Loader", "properties": {}}], "models": list(models)}
        lock = up_lock.obtain_lock(arguments, "card", ("ui", json.loads(json.dumps(content))), self.state)
        self.state.keep_lock(lock.digest, lock.data)
        answered = {"lock_request": lock.request, "lock_answer": lock.digest, "package_request": lock.package_request}
        self.state.write(replace(self.state.read(), **answered))
        return lock


def test_the_same_question_is_answered_from_the_disk(tmp_path: Path) -> None:
    asker = Asker(tmp_path)
    model = asker.model("a")
    first = asker.ask(model)
    (tmp_path / "a.safetensors").unlink()
    assert asker.ask(model) == first


def test_another_model_keeps_comfyui_and_the_packages(tmp_path: Path) -> None:
    asker = Asker(tmp_path)
    first = asker.ask(asker.model("a")).lock
    second = asker.ask(asker.model("a"), asker.model("b")).lock
    assert [model.name for model in second.models] == ["a.safetensors", "b.safetensors"]
    assert replace(second, models=()) == replace(first, models=())


def test_a_branch_that_moved_is_locked_anew(tmp_path: Path) -> None:
    asker = Asker(tmp_path)
    first = asker.ask(asker.model("a")).lock
    commit = asker.comfyui.commit({"new.py": ""})
    second = asker.ask(asker.model("a"), asker.model("b")).lock
    assert first.comfyui is not None
    assert second.comfyui is not None
    assert (first.comfyui.commit == commit, second.comfyui.commit) == (False, commit)
