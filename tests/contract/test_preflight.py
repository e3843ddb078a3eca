"""Preflight says what the engine says: the embedded one, and a real ComfyUI where one is (COMFYUI_DIR, COMFYUI_URL)."""

import contextlib
import os
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from comfypin.engine.command import comfyui_child, embedded_child, has_gpu
from comfypin.engine.interface import Catalogue, Engine, Prompt
from comfypin.engine.process import Supervision
from comfypin.engine.remote import open_remote
from comfypin.engine.standby import open_child
from comfypin.lock.model import EngineSpec
from comfypin.workflow.errors import WorkflowRejected
from comfypin.workflow.node_inputs import default_value, open_inputs
from comfypin.workflow.object_info import InputSpec
from comfypin.workflow.parse import parse_graph
from comfypin.workflow.preflight import Preflight, run_preflight

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMFYUI_DIR = os.environ.get("COMFYUI_DIR", "")
COMFYUI_URL = os.environ.get("COMFYUI_URL", "")
KINDS = [
    "embedded",
    *([pytest.param("child", marks=pytest.mark.comfyui)] if COMFYUI_DIR else []),
    *([pytest.param("remote", marks=pytest.mark.comfyui)] if COMFYUI_URL else []),
]
CLASSES = (
    "EmptyImage",
    "SolidMask",
    "ImageScale",
    "ImageInvert",
    "ImageBatch",
    "MaskToImage",
    "PreviewImage",
    "SaveImage",
)
ODD: tuple[Any, ...] = (
    0, 1, -1, 8, 99999999999, 0.5, -3.7, 1e30, True, False, None, "8", "abc", "1_0", "", {}, {"a": 1},
    {"__value__": [1, 2]}, [], [1], [1, 2], ["zz", 0], ["zz", 0, 1],
)  # fmt: skip
GRAPHS = 150


@pytest_asyncio.fixture(params=KINDS, scope="module", loop_scope="module")
async def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    work = tmp_path_factory.mktemp("engine")
    async with contextlib.AsyncExitStack() as stack:
        match request.param:
            case "embedded":
                spec = embedded_child(EngineSpec(kind="embedded"), os.environ)
                yield await stack.enter_async_context(open_child(spec, work))
            case "child":
                asked = EngineSpec(args=("--disable-api-nodes",))
                gpu, models = has_gpu(os.environ), tmp_path_factory.mktemp("models")
                spec = comfyui_child(Path(COMFYUI_DIR), asked, os.environ, gpu=gpu, models_dir=models)
                yield await stack.enter_async_context(open_child(spec, work, limits=Supervision(ready_s=150)))
            case _:
                yield await stack.enter_async_context(open_remote(COMFYUI_URL))


class Graphs:
    """Graphs of a few image nodes, with a few things made odd."""

    def __init__(self, catalogue: Catalogue, seed: int) -> None:
        self._catalogue = catalogue
        self._rng = random.Random(seed)

    def one(self) -> dict[str, Any]:
        """A graph in API format."""
        rng = self._rng
        nodes: dict[str, Any] = {}
        for _ in range(rng.randint(1, 2)):
            self._add(nodes, rng.choice(CLASSES[-2:] if rng.random() < 0.95 else CLASSES), depth=2)
        for _ in range(rng.randint(0, 3)):
            self._spoil(nodes[rng.choice(list(nodes))], list(nodes))
        return nodes

    def _add(self, nodes: dict[str, Any], kind: str, *, depth: int) -> str:
        node_id = str(len(nodes) + 1)
        inputs: dict[str, Any] = {}
        nodes[node_id] = {"class_type": kind, "inputs": inputs}
        definition: Any = self._catalogue[kind]
        for name, spec in definition["input"]["required"].items():
            if spec[0] in ("IMAGE", "MASK"):
                sources = [one for one in CLASSES if spec[0] in self._catalogue[one]["output"]]  # type: ignore[operator]
                if depth:
                    inputs[name] = [self._add(nodes, self._rng.choice(sources), depth=depth - 1), 0]
            elif isinstance(spec[0], list):
                inputs[name] = self._rng.choice(spec[0])
            else:
                inputs[name] = 8 if spec[0] == "INT" else spec[1].get("default", 1)
        return node_id

    def _spoil(self, node: dict[str, Any], ids: list[str]) -> None:
        rng, inputs = self._rng, node["inputs"]
        if not inputs:
            return
        name = rng.choice(list(inputs))
        match rng.randint(0, 5):
            case 0 | 1:
                inputs[name] = rng.choice(ODD)
            case 2 | 3:
                inputs[name] = [rng.choice(ids), rng.choice([0, 0, 0, 1, 2, -1, 9])]
            case 4:
                del inputs[name]
            case _:
                node["class_type"] += "x" if rng.random() < 0.3 else ""


async def test_preflight_and_the_engine_say_the_same(engine: Engine) -> None:
    catalogue = await engine.catalogue()
    graphs = Graphs(catalogue, seed=20)
    disagreed: list[tuple[dict[str, Any], str, str]] = []
    for _ in range(GRAPHS):
        nodes = graphs.one()
        ours, theirs = _verdict(run_preflight(parse_graph(nodes), catalogue)), await _submitted(engine, nodes)
        if ours != theirs:
            disagreed.append((nodes, ours, theirs))
    assert disagreed == []


DYNAMIC = (
    "BatchImagesNode",
    "BatchMasksNode",
    "ResizeImageMaskNode",
    "ComfySwitchNode",
    "StringFormat",
    "ComfyMathExpression",
    "CreateList",
    "CreateVideo",
    "ImageFlip",
    "CustomCombo",
    "SaveImageAdvanced",
    "SaveVideo",
    "PreviewAny",
)
LEAVES = ("EmptyImage", "SolidMask", "PrimitiveString", "PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean")
# What we refuse and ComfyUI lets pass, to fail when the node runs.
LATE = ("option_missing", "option_unknown", "option_wired", "input_unexpected")


class DynamicGraphs:
    """Graphs of classes whose inputs depend on options, with a few things made odd."""

    def __init__(self, catalogue: Catalogue, seed: int) -> None:
        self._catalogue = catalogue
        self._rng = random.Random(seed)
        self._kinds = [one for one in (*DYNAMIC, *CLASSES, *LEAVES) if one in catalogue]
        self._outputs = [one for one in self._kinds if catalogue[one].get("output_node")]

    def one(self) -> dict[str, Any]:
        """A graph in API format."""
        rng = self._rng
        nodes: dict[str, Any] = {}
        for _ in range(rng.randint(1, 2)):
            self._add(nodes, rng.choice(self._outputs), depth=2)
        for _ in range(rng.choice([0, 1, 1, 2])):
            self._spoil(nodes[rng.choice(list(nodes))], list(nodes))
        return nodes

    def _add(self, nodes: dict[str, Any], kind: str, *, depth: int) -> str:
        node_id = str(len(nodes) + 1)
        inputs: dict[str, Any] = {}
        nodes[node_id] = {"class_type": kind, "inputs": inputs}
        done: set[str] = set()
        while waiting := [
            spec for spec in open_inputs(self._catalogue[kind], inputs).specs.values() if spec.name not in done
        ]:
            for spec in waiting:
                done.add(spec.name)
                if spec.category == "required" or self._rng.random() < 0.2:
                    self._fill(nodes, inputs, spec, depth=depth)
        return node_id

    def _fill(self, nodes: dict[str, Any], inputs: dict[str, Any], spec: InputSpec, *, depth: int) -> None:
        value = default_value(spec)
        if spec.choices:
            inputs[spec.name] = self._rng.choice(list(spec.choices))
        elif value is not None:
            inputs[spec.name] = value
        else:
            wanted = set(spec.type.split(","))
            sources = [
                one
                for one in self._kinds
                if "*" in wanted or wanted & {*map(str, self._catalogue[one]["output"][:1])}  # type: ignore[index,arg-type]
            ]
            # At the end of a branch only what needs nothing itself, so that most graphs are whole.
            leaves = [one for one in sources if one in LEAVES]
            if not sources:
                return
            source = self._rng.choice(leaves if leaves and depth <= 0 else sources)
            inputs[spec.name] = [self._add(nodes, source, depth=depth - 1), 0]

    def _spoil(self, node: dict[str, Any], ids: list[str]) -> None:
        rng, inputs = self._rng, node["inputs"]
        if not inputs:
            return
        name = rng.choice(list(inputs))
        match rng.randint(0, 6):
            case 0 | 1:
                inputs[name] = rng.choice(ODD)
            case 2:
                inputs[name] = [rng.choice(ids), rng.choice([0, 0, 0, 1, 2, -1, 9])]
            case 3:
                del inputs[name]
            case 4:
                inputs[f"{name}.{rng.choice(['codec', 'image3', 'width'])}"] = rng.choice(ODD[:18])
            case _:
                inputs[name.rpartition(".")[0] or name] = rng.choice(["mp4", "png", "match size", "scale width", "zz"])


async def test_preflight_and_the_engine_say_the_same_of_dynamic_inputs(engine: Engine) -> None:
    catalogue = await engine.catalogue()
    if "SaveImageAdvanced" not in catalogue:
        pytest.skip("an engine from before dynamic inputs")
    graphs = DynamicGraphs(catalogue, seed=33)
    disagreed: list[tuple[dict[str, Any], str, str]] = []
    for _ in range(3 * GRAPHS):
        nodes = graphs.one()
        report = run_preflight(parse_graph(nodes), catalogue)
        errors = [finding for finding in report.errors if finding.code not in LATE]
        ours, theirs = "refused" if errors else "taken", await _submitted(engine, nodes)
        if ours != theirs:
            disagreed.append((nodes, f"{ours}: {[str(one) for one in report.findings]}", theirs))
    assert disagreed == []


def _verdict(report: Preflight) -> str:
    return "refused" if report.errors else "taken"


async def _submitted(engine: Engine, nodes: dict[str, Any]) -> str:
    prompt = Prompt(prompt_id=str(uuid.uuid4()), graph=parse_graph(nodes))
    try:
        await engine.submit(prompt)
    except WorkflowRejected:
        return "refused"
    await engine.cancel(prompt.prompt_id)
    return "taken"
