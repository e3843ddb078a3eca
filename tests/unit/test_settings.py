"""The documented variables and their defaults."""

from pathlib import Path

import pytest

from comfypin.errors import ConfigError
from comfypin.settings import ModelSettings, RunpodSettings, Settings


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings.from_environment({})
    assert settings.comfy_home == Path("/opt/comfy")
    assert settings.models_dir == Path("/opt/comfy/models")
    assert settings.output_mode == "gcs"
    assert settings.lock_path is None


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_environment({"COMFY_HOME": "", "OUTPUT_MODE": " "}) == Settings.from_environment(
        {"COMFY_HOME": "", "OUTPUT_MODE": " "}
    )
    assert Settings.from_environment({"LOCK_PATH": "  "}).lock_path is None


def test_models_lie_in_the_comfy_home_unless_they_are_named() -> None:
    settings = Settings.from_environment({"COMFY_HOME": "/c"})
    assert settings.models_dir == Path("/c/models")
    assert settings.overridden(comfy_home=Path("/d")).models_dir == Path("/d/models")
    assert Settings.from_environment({"COMFY_HOME": "/c", "MODELS_DIR": "/m"}).models_dir == Path("/m")


def test_an_output_mode_that_does_not_exist_is_refused_by_its_variable() -> None:
    with pytest.raises(ConfigError, match=r"OUTPUT_MODE is 'ftp'.*base64, gcs, s3, azure, file"):
        Settings.from_environment({"OUTPUT_MODE": "ftp"})


def test_the_environment_is_never_printed() -> None:
    assert "hush" not in repr(Settings.from_environment({"AWS_SECRET_ACCESS_KEY": "hush"}))


@pytest.mark.parametrize("name", ["HF_TOKEN", "CIVITAI_API_KEY"])
@pytest.mark.parametrize("value", ["hush\nhush", "hüsh", "hu sh"])
def test_a_token_that_fits_into_no_header_is_refused_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        ModelSettings.from_environment({name: value})
    assert value not in str(caught.value)
    with pytest.raises(ConfigError, match="RUNPOD_API_KEY"):
        RunpodSettings.from_environment({"RUNPOD_API_KEY": value})
