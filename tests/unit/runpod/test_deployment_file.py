"""runpod.toml is read into frozen values; what is wrong with it is said all at once; its schema is kept true."""

import json
from pathlib import Path

import pytest

from comfypin.runpod.deployment_file import deployment_schema, read_deployment
from comfypin.runpod.deployment_template import commented_file
from comfypin.runpod.errors import DeploymentInvalid
from tests.conftest import ROOT


def test_the_file_that_init_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "runpod.toml").write_text(commented_file("wan22"))
    deployment = read_deployment(tmp_path / "runpod.toml").deployment
    assert (deployment.name, deployment.endpoint[0].template) == ("wan22", "worker")


def test_the_commented_parts_of_that_file_are_valid_too(tmp_path: Path) -> None:
    lines = commented_file("wan22").splitlines()
    prose = ("# What", "# Schema", "# The image", "# Environment", "# Where", "# A ")
    uncommented = [line.removeprefix("# ") if not line.startswith(prose) else "" for line in lines[1:]]
    text = "\n".join(uncommented).replace('OUTPUT_MODE = "base64"', "").replace("\n#\n", "\n")
    (tmp_path / "runpod.toml").write_text(text)
    deployment = read_deployment(tmp_path / "runpod.toml").deployment
    assert deployment.volume[0].existing
    assert deployment.pod[0].template == "studio"
    assert deployment.registry[0].username_env == "GHCR_USER"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "is not TOML"),
        ("\udcff", "is not TOML"),
        ('name = "x"', "release: "),
        ('name = "x"\nrelease = "r"\ncolour = 1', "colour: this key does not exist"),
        ('name = "x y"\nrelease = "r"', "name: "),
        ('name = "x"\nrelease = 5', "release: "),
        ('name = "x"\nrelease = "r"\n[[volume]]\nname = "v"\ndata_center = "D"\nsize = 5', "volume.0.size"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "runpod.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DeploymentInvalid, match=words):
        read_deployment(tmp_path / "runpod.toml")


def test_the_published_schema_is_the_code_s() -> None:
    published = json.loads((ROOT / "docs" / "runpod.schema.json").read_text())
    assert published == deployment_schema()
