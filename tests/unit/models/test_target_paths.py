"""Where a pin may put its file: below the two trees, and nowhere else."""

from pathlib import Path

import pytest

from comfypin.lock.model import Lock, ModelPin
from comfypin.models.errors import TargetRefused
from comfypin.models.target_paths import TargetRoots, list_targets
from tests.support.models import pin_of


@pytest.fixture
def places(tmp_path: Path) -> TargetRoots:
    (tmp_path / "models").mkdir()
    (tmp_path / "comfy").mkdir()
    return TargetRoots(models_dir=tmp_path / "models", comfy_home=tmp_path / "comfy")


def at(target: str) -> ModelPin:
    return pin_of(b"x", target=target)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("$MODELS_DIR/vae/x.safetensors", "models/vae/x.safetensors"),
        ("${MODELS_DIR}/vae/x.safetensors", "models/vae/x.safetensors"),
        ("$COMFY_HOME/custom_nodes/n/x.onnx", "comfy/custom_nodes/n/x.onnx"),
        ("vae/x.safetensors", "models/vae/x.safetensors"),
        ("$MODELS_DIR/a..b/x", "models/a..b/x"),
    ],
)
def test_variables_name_the_trees(places: TargetRoots, tmp_path: Path, target: str, path: str) -> None:
    assert places.target_path(at(target)) == tmp_path / path


def test_an_absolute_path_below_a_tree_is_that_path(places: TargetRoots) -> None:
    assert places.target_path(at(f"{places.models_dir}/vae/x")) == places.models_dir / "vae/x"


@pytest.mark.parametrize(
    "target",
    [
        "$MODELS_DIR/../x",
        "$MODELS_DIR/vae/../../x",
        "$MODELS_DIR/vae/..",
        "../x",
        "/etc/passwd",
        "$HOME/x",
        "$MODELS_DIR//etc/passwd",
        "$MODELS_DIR/",
        "$MODELS_DIR/vae/",
        "",
        ".",
        "$MODELS_DIR/vae/x\0",
        "$MODELS_DIR/.comfypin/verified",
        "$MODELS_DIR/vae/.comfypin/x",
    ],
)
def test_every_other_path_is_refused(places: TargetRoots, target: str) -> None:
    with pytest.raises(TargetRefused, match="may not be put at"):
        places.target_path(at(target))


def test_a_folder_that_is_a_link_out_of_the_tree_is_refused(places: TargetRoots, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (places.models_dir / "vae").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TargetRefused, match="through a link"):
        places.target_path(at("$MODELS_DIR/vae/x"))


def test_a_folder_that_is_a_link_within_the_tree_is_fine(places: TargetRoots) -> None:
    (places.models_dir / "unet").mkdir()
    (places.models_dir / "diffusion_models").symlink_to("unet")
    assert places.target_path(at("$MODELS_DIR/diffusion_models/x")).parent.samefile(places.models_dir / "unet")


def test_a_folder_that_is_a_link_into_the_store_is_refused(places: TargetRoots) -> None:
    (places.models_dir / ".comfypin").mkdir()
    (places.models_dir / "vae").symlink_to(".comfypin")
    with pytest.raises(TargetRefused, match="link into"):
        places.target_path(at("$MODELS_DIR/vae/x"))


def test_a_link_in_a_circle_is_refused(places: TargetRoots) -> None:
    (places.models_dir / "vae").symlink_to("vae")
    with pytest.raises(TargetRefused):
        places.target_path(at("$MODELS_DIR/vae/x"))


def test_two_pins_of_other_bytes_at_one_path_are_refused(places: TargetRoots) -> None:
    lock = Lock(version_name="t", models=(pin_of(b"a"), pin_of(b"b")))
    with pytest.raises(TargetRefused, match="wants other bytes at the same path"):
        list_targets(lock, places)


def test_two_pins_of_the_same_bytes_at_one_path_are_one(places: TargetRoots) -> None:
    lock = Lock(version_name="t", models=(pin_of(b"a"), pin_of(b"a")))
    assert len(list_targets(lock, places)) == 1
