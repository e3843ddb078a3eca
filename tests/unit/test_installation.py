"""What to type to add an extra fits the way comfypin was installed."""

import json
from importlib.metadata import Distribution
from pathlib import Path

from comfypin.installation import extra_command


class Recorded(Distribution):
    """An installed comfypin with this record of where it came from (PEP 610)."""

    def __init__(self, origin: object | None) -> None:
        self._text = None if origin is None else json.dumps(origin)

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "direct_url.json" else None

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


def with_pip(prefix: Path) -> Path:
    pip = prefix / "lib/python3.12/site-packages/pip/__init__.py"
    pip.parent.mkdir(parents=True)
    pip.touch()
    return prefix


def test_a_checkout_is_told_its_make_target(tmp_path: Path) -> None:
    (tmp_path / "Makefile").touch()
    origin = {"url": f"file://{tmp_path}", "dir_info": {"editable": True}}
    command = extra_command("s3", prefix=tmp_path / ".venv", distribution=Recorded(origin))
    assert command == f"make -C {tmp_path} install EXTRAS=s3"


def test_an_editable_installation_elsewhere_stays_editable(tmp_path: Path) -> None:
    origin = {"url": "file:///src/comfy%20pin", "dir_info": {"editable": True}}
    command = extra_command("gcs", prefix=with_pip(tmp_path), distribution=Recorded(origin))
    assert command == f"{tmp_path}/bin/python -m pip install -e '/src/comfy pin[gcs]'"


def test_a_registrys_package_is_asked_of_the_registry(tmp_path: Path) -> None:
    command = extra_command("serve", prefix=with_pip(tmp_path), distribution=Recorded(None))
    assert command == f"{tmp_path}/bin/python -m pip install 'comfypin[serve]'"


def test_an_environment_without_pip_is_told_uv(tmp_path: Path) -> None:
    command = extra_command("serve", prefix=tmp_path, distribution=Recorded(None))
    assert command == f"uv pip install --python {tmp_path} 'comfypin[serve]'"


def test_a_wheels_file_is_named_again(tmp_path: Path) -> None:
    origin = {"url": "file:///tmp/comfypin-0.2.0-py3-none-any.whl", "archive_info": {}}
    command = extra_command("s3", prefix=with_pip(tmp_path), distribution=Recorded(origin))
    assert command.endswith("-m pip install 'comfypin[s3] @ file:///tmp/comfypin-0.2.0-py3-none-any.whl'")


def test_a_tool_of_uv_is_installed_again_as_one(tmp_path: Path) -> None:
    (tmp_path / "uv-receipt.toml").touch()
    assert extra_command("s3", prefix=tmp_path, distribution=Recorded(None)) == (
        "uv tool install --force 'comfypin[s3]'"
    )
