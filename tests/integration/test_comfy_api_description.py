"""Requests made from the published description of Comfy API v2: no 5xx, and no answer that it does not describe."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import shared_path
from tests.support.server import TOKEN, Server, serving
from tests.support.workflows import picture

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def fuzz(
    home: Path, *, phases: str, per_operation: int, at_least: int, timeout_s: float, real_ids: bool = False
) -> None:
    description = shared_path("openapi") / "comfy-api-v2.openapi.yaml"
    with serving(home, "--max-waiting", "1000000") as server:
        (home / "schemathesis.toml").write_text(ids_that_exist(server) if real_ids else "")
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(home / "schemathesis.toml")),
            *("run", str(description), "--url", server.url),
            *("--header", f"Authorization: Bearer {TOKEN}"),
            *("--checks", CHECKS, "--max-examples", str(per_operation)),
            *("--mode", "all", "--phases", phases, "--workers", "4"),
            *("--request-timeout", "60", "--continue-on-failure", "--suppress-health-check", "all"),
            *("--seed", "1", "--no-color"),
            # The description's schema is that of a whole stream; test_comfy_api_sdk.py checks its events one by one.
            *(("--exclude-path-regex", "/events$") if real_ids else ()),
        ]
        ran = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert server.ping() == 200
        assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
        generated = re.search(r"(\d+) generated, (\d+) passed", ran.stdout)
        assert generated is not None, ran.stdout[-2000:]
        assert generated[1] == generated[2]
        assert int(generated[1]) >= at_least


def ids_that_exist(server: Server) -> str:
    """Settings with a job that has ended, its output, and the output's hash: random ones are never found."""
    status, job, _ = server.ask("POST", "/api/v2/jobs", {"workflow": picture(3)})
    assert status == 201, job
    server.ended(job["id"])
    output = server.get(f"/api/v2/jobs/{job['id']}")["outputs"][0]
    values = {"/jobs/": ("id", job["id"]), "/assets/[{]id": ("id", output["id"]), "/by-hash/": ("hash", output["hash"])}
    return "".join(
        f'[[operations]]\ninclude-path-regex = "{part}"\nparameters = {{ {name} = "{value}" }}\n'
        for part, (name, value) in values.items()
    )


@pytest.mark.parametrize("real_ids", [False, True], ids=["random", "real"])
def test_no_answer_is_outside_the_description(real_ids: bool, tmp_path: Path) -> None:
    fuzz(tmp_path, phases="examples,fuzzing", per_operation=15, at_least=50, timeout_s=250, real_ids=real_ids)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_answers_are_as_described(tmp_path: Path) -> None:
    fuzz(tmp_path, phases="examples,fuzzing", per_operation=1600, at_least=10_000, timeout_s=3500)
