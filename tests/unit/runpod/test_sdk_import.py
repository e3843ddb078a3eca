"""The SDK's import: the same SDK, without a second of asking for the processor's name."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("runpod")


def run(code: str, environ: dict[str, str] | None = None) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ).stdout


def test_the_sdk_starts_no_program_for_the_processors_name() -> None:
    watch = (
        "import subprocess, sys\n"
        "started = []\n"
        "sys.addaudithook(lambda name, args: started.append(args[0]) if name == 'subprocess.Popen' else None)\n"
        "from comfypin.runpod.sdk_import import import_sdk\n"
        "sdk = import_sdk()\n"
        "print([name for name in started if 'nvidia-smi' not in str(name)], callable(sdk.serverless.start))"
    )
    assert run(watch).strip() == "[] True"


def test_the_stand_in_is_gone_afterwards() -> None:
    code = (
        "from comfypin.runpod.sdk_import import import_sdk\n"
        "import_sdk()\n"
        "import cpuinfo\n"
        "print(hasattr(cpuinfo, 'CPUINFO_VERSION'))"
    )
    assert run(code).strip() == "True"


@pytest.mark.parametrize(("variables", "level"), [({}, "INFO"), ({"RUNPOD_LOG_LEVEL": "ERROR"}, "ERROR")])
def test_the_sdk_does_not_log_what_jobs_give(variables: dict[str, str], level: str) -> None:
    code = (
        "from comfypin.runpod.sdk_import import import_sdk\n"
        "import_sdk()\n"
        "from runpod.serverless.modules.rp_logger import RunPodLogger\n"
        "print(RunPodLogger().level)"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD")}
    assert run(code, {**environ, **variables}).strip() == level
