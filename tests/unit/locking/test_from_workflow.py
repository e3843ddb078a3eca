"""What workflows need, with a stand-in for the node registry on this machine."""

import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from comfypin.digest import Digest
from comfypin.lock.model_spec import parse_model_spec
from comfypin.locking.errors import ArchiveUnreadable, RegistryAnswerInvalid
from comfypin.locking.from_workflow import (
    NeedsResolver,
    ResolvedNeeds,
    known_classes,
    registered_classes,
    resolve_needs,
)
from comfypin.locking.node_registry import NodeRegistry
from comfypin.locking.repository_refs import parse_repo_spec
from comfypin.locking.sources import Upstreams, fetch_source, make_node_pin, refetch_source
from comfypin.locking.workflow_needs import collect_needs
from comfypin.tools.errors import DownloadFailed, DownloadWrong
from comfypin.tools.git import CommitSource
from tests.support.repositories import commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLASSES = {"Lonely": ["pack-a"], "Shared": ["pack-a", "pack-b"], "KSampler": ["comfy-core"]}


def an_archive() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in (("requirements.txt", "iniconfig\n"), ("install.py", "print(1)\n"), ("__init__.py", "")):
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), text)
    return data.getvalue()


ARCHIVE = an_archive()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = ARCHIVE if parts.path == "/archive.zip" else self._answer(parts.path, parse_qs(parts.query))
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def _answer(self, path: str, query: dict[str, list[str]]) -> bytes | None:
        host = f"http://{self.headers['Host']}"
        if path == "/comfy-nodes":
            name = query["comfy_node_name"][0]
            listed = [{"comfy_node_name": name, "node_id": node_id} for node_id in CLASSES.get(name, [])]
            return json.dumps({"comfy_nodes": listed}).encode()
        if path == "/nodes/broken/versions/1":
            return b"<html>"
        if path.endswith(("/versions/1.0.0", "/versions/2.0.0")):
            return json.dumps({"version": path[-5:], "downloadUrl": f"{host}/archive.zip"}).encode()
        if path.startswith("/nodes/") and "versions" not in path:
            node_id = path.removeprefix("/nodes/")
            return json.dumps({"id": node_id, "repository": f"https://github.com/o/{node_id}"}).encode()
        return None

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def registry() -> Iterator[NodeRegistry]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield NodeRegistry(url=f"http://127.0.0.1:{running.server_address[1]}")
        running.shutdown()
        thread.join()


def silent(_: str) -> None:
    """Nobody listens."""


def ui_node(kind: str, values: list[object] | None = None, **properties: object) -> dict[str, object]:
    return {"id": 1, "type": kind, "properties": properties, "widgets_values": values or []}


def ui(*nodes: object, **more: object) -> tuple[str, dict[str, object]]:
    return "ui", {"nodes": list(nodes), **more}


def answer(
    *workflows: tuple[str, dict[str, object]], registry: NodeRegistry | None = None, **given: object
) -> ResolvedNeeds:
    settling = NeedsResolver(
        **{
            "registry": registry,
            "builtin": frozenset(),
            "given": (),
            "given_models": (),
            "unneeded": frozenset(),
            **given,
        }  # type: ignore[arg-type]
    )
    return resolve_needs(collect_needs(workflows), settling, report=silent)


def test_packs_are_what_the_workflow_says(registry: NodeRegistry) -> None:
    found = answer(
        ui(
            ui_node("A", cnr_id="pack-a", ver="1.0.0"),
            ui_node("B", cnr_id="pack-b", ver=COMMIT),
            ui_node("C", aux_id="o/pack-c", ver=COMMIT),
            ui_node("KSampler", cnr_id="comfy-core", ver="0.3.40"),
        ),
        registry=registry,
    )
    assert {(node.repo, node.ref) for node in found.nodes} == {
        ("https://github.com/o/pack-c", COMMIT),
        ("registry://pack-a", "1.0.0"),
        ("https://github.com/o/pack-b", COMMIT),
    }
    assert found.complete
    assert found.core_versions == ("0.3.40",)


def test_nodes_inside_subgraphs_count_and_their_instances_do_not() -> None:
    uuid = "c11e2731-c9a4-4562-aaa0-502df61bbc0c"
    inner = {"id": uuid, "nodes": [ui_node("A", cnr_id="pack-a", ver="1.0.0")]}
    found = answer(ui(ui_node(uuid), ui_node("Note"), definitions={"subgraphs": [inner]}))
    assert [node.repo for node in found.nodes] == ["registry://pack-a"]
    assert found.complete


@pytest.mark.parametrize("version", ["nightly", "unknown", None])
def test_a_pack_without_a_version_is_ambiguous(version: str | None) -> None:
    found = answer(ui(ui_node("A", cnr_id="pack-a", ver=version)))
    assert (found.nodes, len(found.ambiguous)) == ((), 1)


def test_two_versions_of_a_pack_are_ambiguous_until_one_is_given() -> None:
    workflow = ui(ui_node("A", cnr_id="pack-a", ver="1.0.0"), ui_node("A", cnr_id="pack-a", ver="2.0.0"))
    assert "1.0.0, 2.0.0" in answer(workflow).ambiguous[0]
    assert answer(workflow, given=[parse_repo_spec("registry://pack-a@2.0.0")]).complete


def test_a_class_in_several_packs_is_ambiguous_and_in_none_unknown(registry: NodeRegistry) -> None:
    api = {"1": {"class_type": "Shared", "inputs": {}}, "2": {"class_type": "Nowhere", "inputs": {}}}
    found = answer(("api", api), registry=registry)
    assert "https://github.com/o/pack-a, https://github.com/o/pack-b" in found.ambiguous[0]
    assert "Nowhere" in found.unknown[0]
    assert found.nodes == ()


def test_a_class_of_one_pack_names_it_and_asks_for_its_version(registry: NodeRegistry) -> None:
    found = answer(("api", {"1": {"class_type": "Lonely", "inputs": {}}}), registry=registry)
    assert "https://github.com/o/pack-a" in found.ambiguous[0]


def test_classes_of_comfyui_need_no_pack(registry: NodeRegistry) -> None:
    api = {"1": {"class_type": "KSampler", "inputs": {}}, "2": {"class_type": "Mine", "inputs": {}}}
    assert answer(("api", api), registry=registry, builtin=frozenset({"Mine"})).complete


def test_without_a_network_classes_are_unknown() -> None:
    assert len(answer(("api", {"1": {"class_type": "X", "inputs": {}}})).unknown) == 1


def test_an_unreachable_registry_is_asked_once_and_said() -> None:
    api = {str(number): {"class_type": f"X{number}", "inputs": {}} for number in range(20)}
    assert len(answer(("api", api), registry=NodeRegistry(url="http://127.0.0.1:9")).unknown) == 20


def test_models_with_an_address_are_pinned_and_others_listed() -> None:
    told = {"name": "a.safetensors", "url": "https://h/a.safetensors", "directory": "vae"}
    found = answer(
        ui(ui_node("VAELoader", ["a.safetensors", "b.ckpt", "no model"], cnr_id="comfy-core", models=[told]))
    )
    assert [(model.target, model.sources) for model in found.models] == [
        ("vae/a.safetensors", ("https://h/a.safetensors",))
    ]
    assert ["b.ckpt" in text for text in found.unknown] == [True]


def test_models_in_rows_that_a_packs_page_script_keeps_are_found() -> None:
    rows: list[object] = [{"type": "header"}, {"on": True, "lora": "a.safetensors", "strength": 1}, ["b.gguf"]]
    wanted = collect_needs([ui(ui_node("Power Lora Loader (rgthree)", rows))])
    assert [model.name for model in wanted.models] == ["a.safetensors", "b.gguf"]


def test_a_given_model_settles_a_file_name() -> None:
    api = {"1": {"class_type": "VAELoader", "inputs": {"vae_name": "sub/b.safetensors"}}}
    given = [parse_model_spec("vae/sub/b.safetensors=https://h/b.safetensors")]
    assert answer(("api", api), builtin=frozenset({"VAELoader"}), given_models=given).complete


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"nodes": None},
        {"nodes": [None, 1, {"type": 1}, {"type": "A", "properties": [], "widgets_values": {"a": 1}}]},
        {"nodes": {"1": {"type": "A"}}, "definitions": [], "models": "x"},
        {"nodes": [], "definitions": {"subgraphs": [1, {"nodes": 3}]}, "models": [1, {"name": 3}]},
    ],
)
def test_odd_workflows_are_read_as_far_as_they_make_sense(content: dict[str, object]) -> None:
    answer(("ui", content), ("api", content))


def test_the_classes_of_sources_are_read_without_running_them(tmp_path: Path) -> None:
    source = b'NODE_CLASS_MAPPINGS = {"A": 1, "B": 2}\nx = Schema(node_id="C")\nOTHER = {"D": 1}\n'
    assert registered_classes(source) == {"A", "B", "C"}
    more = b'NODE_CLASS_MAPPINGS["F"] = 1\nNODE_CLASS_MAPPINGS.update({"G": 1})\nOTHER["J"] = 1\n'
    more += (
        b'NODE_CLASS_MAPPINGS |= {"H": 1, **x, 3: 4}\nNODE_CLASS_MAPPINGS: dict = {"I": 1}\nf(NODE_CLASS_MAPPINGS)\n'
    )
    assert registered_classes(more) == set("FGHI")
    assert registered_classes(b"not python (") == set()
    commit(tmp_path / "c", {"nodes.py": source, "comfy_extras/x.py": 'NODE_CLASS_MAPPINGS = {"E": 1}', "y.py": "Z"})
    places = Upstreams(
        commits=CommitSource(cache=tmp_path / "g"),
        registry=NodeRegistry(url="http://127.0.0.1:9"),
        archives=tmp_path / "a",
    )
    assert known_classes(parse_repo_spec(str(tmp_path / "c")), (), places) == {"A", "B", "C", "E"}


@pytest.fixture
def places(registry: NodeRegistry, tmp_path: Path) -> Upstreams:
    return Upstreams(commits=CommitSource(cache=tmp_path / "git"), registry=registry, archives=tmp_path / "archives")


def test_a_pack_of_the_registry_is_pinned_by_the_digest_of_its_archive(places: Upstreams) -> None:
    part = fetch_source(parse_repo_spec("registry://pack-a@1.0.0"), origin="the node", upstreams=places)
    pin = make_node_pin(part, frozenset({"pack-a"}))
    assert (pin.name, pin.ref, pin.repo, pin.install_script) == ("pack-a", "1.0.0", None, "run")
    assert pin.sha256 == Digest.of(ARCHIVE)
    assert [need.text for need in part.needs.requirements] == ["iniconfig"]
    assert refetch_source(pin, origin="the node", upstreams=places).sha256 == pin.sha256


def test_an_archive_that_was_replaced_is_refused(places: Upstreams) -> None:
    part = fetch_source(parse_repo_spec("registry://pack-a@1.0.0"), origin="the node", upstreams=places)
    pin = replace(make_node_pin(part, frozenset()), sha256=Digest("ab" * 32))
    with pytest.raises(DownloadWrong):
        refetch_source(pin, origin="the node", upstreams=places)


def test_a_registry_that_answers_nonsense_is_said(places: Upstreams) -> None:
    with pytest.raises(RegistryAnswerInvalid):
        places.registry.find_version("broken", "1")
    with pytest.raises(DownloadFailed, match="404"):
        places.registry.find_version("pack-a", "9.9.9")


def test_an_archive_that_is_no_zip_is_said(places: Upstreams, tmp_path: Path) -> None:
    digest = Digest.of(b"no zip")
    places.archives.mkdir()
    (places.archives / f"{digest.hex}.zip").write_bytes(b"no zip")
    part = fetch_source(parse_repo_spec("registry://pack-a@1.0.0"), origin="x", upstreams=places)
    with pytest.raises(ArchiveUnreadable):
        refetch_source(replace(make_node_pin(part, frozenset()), sha256=digest), origin="x", upstreams=places)
