"""The documented variables and their defaults."""

from pathlib import Path

import pytest

from comfypin.errors import ConfigError
from comfypin.outputs.modes import OUTPUT_MODES, named_mode
from comfypin.settings.environment import Settings
from comfypin.settings.machine import MachineSettings
from comfypin.settings.models import ModelSettings
from comfypin.settings.runpod import RunpodSettings
from comfypin.settings.server import ServerSettings


def test_the_defaults_are_the_documented_ones() -> None:
    settings = Settings({})
    assert settings.machine.comfy_home == Path("/opt/comfy")
    assert settings.machine.models_dir == Path("/opt/comfy/models")
    assert settings.machine.lock_path is None
    assert settings.models.connections == 16
    assert settings.entry.grace_s == 25
    assert settings.runpod == RunpodSettings()


def test_an_empty_variable_counts_as_unset() -> None:
    assert MachineSettings.from_variables({"COMFY_HOME": "", "LOCK_PATH": "  "}) == MachineSettings.from_variables({})
    assert named_mode({"OUTPUT_MODE": " "}) is None


def test_models_lie_in_the_comfy_home_unless_they_are_named() -> None:
    settings = Settings({"COMFY_HOME": "/c"})
    assert settings.machine.models_dir == Path("/c/models")
    assert settings.with_flags(comfy_home=Path("/d")).machine.models_dir == Path("/d/models")
    assert Settings({"COMFY_HOME": "/c", "MODELS_DIR": "/m"}).machine.models_dir == Path("/m")


def test_flags_leave_the_rest_of_the_environment() -> None:
    changed = Settings({"COMFY_HOME": "/c", "COMFYPIN_PACKS": "/p"}).with_flags(models_dir=Path("/m"))
    assert (changed.machine.comfy_home, changed.env.packs) == (Path("/c"), "/p")


def test_an_output_mode_that_does_not_exist_is_refused_by_its_variable() -> None:
    with pytest.raises(ConfigError, match=r"^OUTPUT_MODE is 'ftp'") as caught:
        named_mode({"OUTPUT_MODE": "ftp"})
    assert all(mode in str(caught.value) for mode in OUTPUT_MODES)


@pytest.mark.parametrize(
    ("name", "value", "noun"),
    [
        ("COMFYPIN_OFFLINE", "maybe", "env"),
        ("COMFYPIN_DURABLE", "maybe", "models"),
        ("COMFYPIN_CONNECTIONS", "0", "models"),
        ("COMFYPIN_CONNECTIONS", "129", "models"),
        ("COMFYPIN_MODE", "both", "entry"),
        ("COMFYPIN_GRACE", "-1", "entry"),
        ("PORT", "http", "server"),
        ("PORT_HEALTH", "0", "server"),
        ("RUNPOD_TCP_PORT_70000", "x", "server"),
    ],
)
def test_a_wrong_variable_is_named_and_stops_only_its_own_part(name: str, value: str, noun: str) -> None:
    settings = Settings({name: value})
    with pytest.raises(ConfigError, match=f"^{name} is '{value}'"):
        getattr(settings, noun)
    for other in {"machine", "env", "models", "entry", "server", "runpod"} - {noun}:
        getattr(settings, other)


def test_a_symmetrical_port_is_the_one_that_runpod_gave() -> None:
    server = ServerSettings.from_variables({"RUNPOD_TCP_PORT_70000": "10007", "RUNPOD_TCP_PORT_22": "2"})
    assert (server.listening_port(70000), server.listening_port(8000)) == (10007, 8000)
    with pytest.raises(ConfigError, match="RUNPOD_TCP_PORT_70001"):
        server.listening_port(70001)


def test_each_part_is_parsed_once() -> None:
    settings = Settings({})
    assert settings.models is settings.models


def test_a_later_change_of_the_environment_is_not_seen() -> None:
    environ = {"COMFY_HOME": "/c"}
    settings = Settings(environ)
    environ["COMFY_HOME"] = "/d"
    assert settings.machine.comfy_home == Path("/c")


def test_the_environment_is_never_printed() -> None:
    settings = Settings({"AWS_SECRET_ACCESS_KEY": "hush", "COMFYPIN_TOKEN": "hush"})
    assert "hush" not in repr((settings, settings.variables, settings.server))


@pytest.mark.parametrize("name", ["HF_TOKEN", "CIVITAI_API_KEY"])
@pytest.mark.parametrize("value", ["hush\nhush", "hüsh", "hu sh"])
def test_a_token_that_fits_into_no_header_is_refused_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        ModelSettings.from_variables({name: value})
    assert value not in str(caught.value)
    with pytest.raises(ConfigError, match="RUNPOD_API_KEY"):
        RunpodSettings.from_variables({"RUNPOD_API_KEY": value})
