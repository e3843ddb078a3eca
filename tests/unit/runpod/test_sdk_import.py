"""The SDK's import: the same SDK, without a second of asking for the processor's name."""

import subprocess
import sys

import pytest

pytest.importorskip("runpod")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


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
