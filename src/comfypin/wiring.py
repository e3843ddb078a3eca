"""The only place that names adapters: settings and locks in, engines, stores and sinks out; SDKs imported lazily."""

from pathlib import Path
from typing import TYPE_CHECKING

from comfypin.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from comfypin.deploy.api import Api
    from comfypin.outputs.interface import OutputSink
    from comfypin.settings import OutputMode, RunpodSettings, Settings


def runpod_api() -> "Api":
    """RunPod's management API with the environment's key. Raises `ApiKeyMissing`."""
    from comfypin.settings import RunpodSettings

    settings = RunpodSettings.from_environment()
    return _runpod(settings, settings.api_url)


def runpod_jobs_api() -> "Api":
    """The job API of RunPod's endpoints, or of the server that RUNPOD_ENDPOINT_BASE_URL names."""
    from comfypin.settings import RunpodSettings

    settings = RunpodSettings.from_environment()
    return _runpod(settings, settings.jobs_url)


def _runpod(settings: "RunpodSettings", base_url: str) -> "Api":
    from comfypin.deploy.api import Api
    from comfypin.errors.deploy import ApiKeyMissing

    if settings.api_key is None:
        raise ApiKeyMissing
    return Api(key=settings.api_key, base_url=base_url)
