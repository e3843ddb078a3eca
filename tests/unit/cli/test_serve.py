"""What `comfypin serve` makes of its flags and the environment."""

import argparse

import pytest

from comfypin.cli.serve_access import DEFAULT_PORT, choose_ports
from comfypin.settings.server import ServerSettings


@pytest.mark.parametrize(
    ("flag", "variables", "port"),
    [
        (None, {}, DEFAULT_PORT),
        (None, {"PORT": "9000"}, 9000),
        (8188, {"PORT": "9000"}, 8188),
        (0, {}, 0),
        (0, {"PORT": "9000"}, 0),
    ],
)
def test_a_flag_wins_over_the_variable_and_0_lets_the_system_choose(
    flag: int | None, variables: dict[str, str], port: int
) -> None:
    assert choose_ports(argparse.Namespace(port=flag), ServerSettings.from_variables(variables)) == [port]
