"""The classes of API nodes, as ComfyUI's files name them."""

from pathlib import Path

from comfypin.engine.api_nodes import api_node_classes

NEW = """
class Flux(IO.ComfyNode):
    @classmethod
    def define_schema(cls):
        return IO.Schema(
            node_id="FluxProUltraImageNode",
            display_name="Flux",
            inputs=[IO.Combo.Input("mode", options=["a", "b"])],
        )
"""
OLD = """
NODE_CLASS_MAPPINGS = {
    "OpenAIDalle2": OpenAIDalle2,
    'KlingVideo': KlingVideo
}
"""


def test_both_ways_of_naming_a_class_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "comfy_api_nodes"
    folder.mkdir()
    (folder / "nodes_bfl.py").write_text(NEW)
    (folder / "nodes_openai.py").write_text(OLD)
    (folder / "client.py").write_text('node_id="NoNode"')
    assert api_node_classes(tmp_path) == {"FluxProUltraImageNode", "OpenAIDalle2", "KlingVideo"}


def test_a_comfyui_without_them_has_none(tmp_path: Path) -> None:
    assert api_node_classes(tmp_path) == frozenset()
