"""The plan of a build."""

from dataclasses import replace

from comfypin.image.build_context import ImageOptions, compute_context
from comfypin.image.build_plan import ImagePlan, make_image_plan, read_label, render_label
from comfypin.lock.model import Lock, NodePin
from tests.unit.image.test_build_context import COMMIT, a_lock, own


def plan(lock: Lock, wish: ImageOptions = ImageOptions(), known: dict[str, str] | None = None) -> ImagePlan:  # noqa: B008
    return make_image_plan(lock, wish, compute_context(lock, own(), wish), size_of=lambda _: 1_000_000_000, known=known)


def test_layers_stand_from_the_one_that_changes_least() -> None:
    names = [layer.name for layer in plan(a_lock(), ImageOptions(bake="env+models")).layers]
    models = ["model one", "model two"]
    assert names == ["system", "torch", "packages", "comfyui", "nodes", *models, "comfypin", "lock"]


def test_a_changed_node_leaves_what_stands_under_it() -> None:
    known = read_label(render_label(plan(a_lock())))
    node = NodePin(name="n", repo="https://example.org/n", commit="b" * 40)
    changed = plan(replace(a_lock(), custom_nodes=(node,)), known=known)
    assert [layer.name for layer in changed.layers if layer.cached] == ["system", "torch", "packages", "comfyui"]
    assert changed.disk_bytes < plan(a_lock()).disk_bytes
    assert COMMIT not in str(changed.layers[4])


def test_all_is_there_after_the_same_build() -> None:
    known = read_label(render_label(plan(a_lock())))
    assert all(layer.cached for layer in plan(a_lock(), known=known).layers)


def test_an_image_over_runpods_limit_is_told() -> None:
    huge = tuple(replace(model, size_bytes=50_000_000_000) for model in a_lock().models)
    remarks = plan(replace(a_lock(), models=huge), ImageOptions(bake="env+models")).remarks
    assert "80 GB" in remarks[0]


def test_os_packages_whose_libraries_are_needed_and_not_locked_are_named() -> None:
    lock = a_lock()
    libraries = {"libGL.so.1": ("opencv-python",), "libavcodec.so.59": ("torchcodec",)}
    needing = replace(lock, python=replace(lock.python, libraries=libraries))
    # ffmpeg is one of its system packages.
    assert plan(needing).to_json()["lacking"] == {"libgl1": ["opencv-python"]}
    assert "libgl1 for opencv-python" in plan(needing).remarks[0]
    assert "--system-package auto" in plan(needing).remarks[0]
    assert plan(replace(needing, system_packages=("libgl1", "ffmpeg"))).lacking == {}
