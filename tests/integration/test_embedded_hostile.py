"""The embedded engine outlives clients that mean harm, and keeps them inside its folders."""

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfypin.engine.embedded.folders import EngineFolders
from comfypin.engine.embedded.nodes.registry import node_classes_of
from comfypin.engine.embedded.releases import RELEASES, ComfyRelease
from comfypin.engine.embedded.validate import Validator
from tests.support.embedded import Embedded, embedded_engine, empty, load, node, picture, save


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Embedded]:
    async with embedded_engine(tmp_path) as running:
        yield running


async def still_works(engine: Embedded) -> None:
    entry = await engine.run({"1": empty(), "2": save("1")})
    assert entry["status"]["status_str"] == "success"


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"5", b'"prompt"', b"[" * 100_000, b'{"prompt": {"1": null}}', b'{"prompt": "x"}', b"\xff\xfe",
     b'{"prompt": {"1": {"class_type": []}}}', b'{"prompt": {"1": {"class_type": "SaveImage", "inputs": 5}}}',
     b'{"prompt": {}, "number": "x"}', b'{"prompt": {}, "extra_data": 5}'],
)  # fmt: skip
async def test_a_malformed_body_is_refused_and_nothing_breaks(body: bytes, engine: Embedded) -> None:
    for path in ("/prompt", "/queue", "/history", "/free", "/interrupt", "/upload/image", "/upload/mask"):
        async with engine.client.post(path, data=body) as answer:
            assert answer.status in (200, 400, 415, 500)
    await still_works(engine)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.png", "a/../../secret.png", "..", "", "sub", "a\0b", "x" * 5000, "link.png"]
)
async def test_a_load_node_reads_nothing_outside_the_folders(name: str, engine: Embedded, tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    (engine.folders.input / "sub").mkdir()
    (engine.folders.input / "link.png").symlink_to(tmp_path / "secret.png")
    status, answer = await engine.post({"prompt": {"1": load(name), "2": save("1")}})
    assert status == 400
    assert answer["node_errors"]["1"]["errors"][0]["details"] == f"image - Invalid image file: {name}"


@pytest.mark.parametrize("prefix", ["../x", "/tmp/x", "a/../../x", "link/x", ".."])
async def test_a_save_node_writes_nothing_outside_its_folder(prefix: str, engine: Embedded, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (engine.folders.output / "link").symlink_to(elsewhere)
    before = sorted(tmp_path.iterdir())
    entry = await engine.run({"1": empty(), "2": save("1", prefix=prefix)})
    failure = entry["status"]["messages"][-1][1]
    if prefix == "..":
        assert entry["status"]["status_str"] in ("error", "success")
    else:
        assert "outside the output folder is not allowed" in failure["exception_message"]
    assert (sorted(tmp_path.iterdir()), list(elsewhere.iterdir())) == (before, [])


@pytest.mark.parametrize(
    "query",
    [
        "filename=../secret.png",
        "filename=secret.png&subfolder=..",
        "filename=secret.png&subfolder=/",
        "filename=/etc/passwd",
        "filename=passwd&subfolder=/etc",
        "filename=link.png",
        "filename=secret.png&subfolder=a/../..",
        "filename=%00",
        "filename=a%00b.png",
        "filename=secret.png&type=..",
    ],
)
async def test_view_shows_nothing_outside_the_folders(query: str, engine: Embedded, tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    (engine.folders.output / "link.png").symlink_to(tmp_path / "secret.png")
    for extra in ("", "&preview=webp", "&channel=rgb"):
        async with engine.client.get(f"/view?{query}{extra}") as answer:
            assert answer.status in (400, 403, 404)


@pytest.mark.parametrize(
    ("name", "fields"),
    [("../x.png", {}), ("x.png", {"subfolder": "../.."}), ("x.png", {"subfolder": "/tmp"}),
     ("x.png", {"type": "../.."}), ("x.png", {"subfolder": "link"}), ("..", {}), ("a\\0b.png", {"subfolder": "a\0b"})],
)  # fmt: skip
async def test_an_upload_lands_nowhere_outside_the_folders(
    name: str, fields: dict[str, str], engine: Embedded, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (engine.folders.input / "link").symlink_to(elsewhere)
    before = sorted(tmp_path.iterdir())
    form = FormData(quote_fields=False)
    form.add_field("image", b"x", filename=name)
    for key, value in fields.items():
        form.add_field(key, value)
    async with engine.client.post("/upload/image", data=form) as answer:
        assert answer.status == 400
    assert (sorted(tmp_path.iterdir()), list(elsewhere.iterdir())) == (before, [])


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that claims to be side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


async def test_a_decompression_bomb_fails_its_node_alone(engine: Embedded) -> None:
    (engine.folders.input / "bomb.png").write_bytes(bomb(60_000))
    entry = await engine.run({"1": load("bomb.png"), "2": save("1")})
    kind, failure = entry["status"]["messages"][-1]
    assert (kind, failure["node_id"]) == ("execution_error", "1")
    assert failure["exception_type"] == "PIL.Image.DecompressionBombError"
    await still_works(engine)


async def test_a_picture_larger_than_memory_fails_its_node_alone(engine: Embedded) -> None:
    entry = await engine.run({"1": empty(width=16384, height=16384, batch_size=4096), "2": save("1")})
    assert "can't allocate memory" in entry["status"]["messages"][-1][1]["exception_message"]
    await still_works(engine)


async def test_a_chain_of_ten_thousand_nodes_runs(engine: Embedded) -> None:
    graph: dict[str, Any] = {"0": empty(width=1, height=1)}
    for index in range(1, 10_000):
        graph[str(index)] = node("ImageInvert", image=[str(index - 1), 0])
    graph["save"] = save("9999")
    entry = await engine.run(graph, client_id="c")
    assert entry["status"]["status_str"] == "success"
    assert (await engine.pixels(entry))[0].getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("release", RELEASES.values(), ids=list(RELEASES))
async def test_a_circle_of_ten_thousand_nodes_is_refused(release: ComfyRelease, tmp_path: Path) -> None:
    graph = {str(index): node("ImageInvert", image=[str((index + 1) % 10_000), 0]) for index in range(10_000)}
    async with embedded_engine(tmp_path, release=release) as engine:
        status, answer = await engine.post({"prompt": {**graph, "save": save("0")}})
    assert (status, answer["error"]["type"]) == (400, "prompt_outputs_failed_validation")


async def test_a_listener_who_does_not_read_holds_nobody_up(engine: Embedded) -> None:
    async with engine.client.ws_connect("/ws"):
        for _ in range(20):
            await engine.post({"prompt": {"1": empty(), "2": save("1")}})
        await still_works(engine)


async def test_prompts_of_many_clients_at_once_all_end(engine: Embedded) -> None:
    graphs = [{"1": empty(color=index), "2": save("1", prefix=f"p{index}")} for index in range(40)]
    entries = await asyncio.gather(*(engine.run(graph, client_id=str(i)) for i, graph in enumerate(graphs)))
    names = [entry["outputs"]["2"]["images"][0]["filename"] for entry in entries]
    assert names == [f"p{index}_00001_.png" for index in range(40)]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-99, 99)
    | st.floats(allow_nan=False)
    | st.sampled_from(["1", "2", "0", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["1", "__value__"]), inner, max_size=2),
    max_leaves=6,
)
_NAMES = [
    "image", "images", "mask", "width", "value", "source", "images.image0", "format", "format.bit_depth",
    "resize_type", "resize_type.match", "switch", "on_true",
]  # fmt: skip
NODES = st.fixed_dictionaries(
    {"class_type": st.sampled_from(sorted(node_classes_of("0.33.0")))},
    optional={"inputs": JSON | st.dictionaries(st.sampled_from(_NAMES), JSON)},
)


@pytest.mark.parametrize("release", RELEASES.values(), ids=list(RELEASES))
@given(graph=st.dictionaries(st.sampled_from(["0", "1", "2", "3"]), NODES, max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_graph_gets_a_verdict(release: ComfyRelease, graph: dict[str, Any]) -> None:
    nowhere = Path("/nonexistent")
    folders = EngineFolders(input=nowhere, output=nowhere, temp=nowhere)
    verdict = Validator(node_classes_of(release.version), folders, release).check_graph(graph)
    assert (verdict.error is None) == bool(verdict.outputs)
