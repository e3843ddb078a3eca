"""What `comfypin serve` makes of its flags and the environment."""

import argparse
import sys
from pathlib import Path

import pytest

from comfypin.cli.serve_access import DEFAULT_PORT, choose_ports, print_sign_in_link
from comfypin.server.sessions import Sessions
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


@pytest.mark.parametrize(
    ("is_first_start", "is_terminal", "links"), [(True, False, 1), (False, True, 1), (False, False, 0)]
)
def test_a_terminal_gets_a_link_at_every_start_and_a_log_only_at_the_first(
    *,
    is_first_start: bool,
    is_terminal: bool,
    links: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    sessions = Sessions(tmp_path / "sessions.json", token="t")
    print_sign_in_link(sessions, "http://127.0.0.1:8000", is_first_start=is_first_start)
    assert capsys.readouterr().err.count("http://127.0.0.1:8000/#link=") == links
