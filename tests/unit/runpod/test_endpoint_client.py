"""What an endpoint's answer becomes on this machine."""

import pytest

from comfypin.runpod.endpoint_client import run_endpoint_job
from comfypin.runpod.errors import JobTooLarge
from comfypin.runpod.management_api import ManagementApi


def test_a_job_that_no_endpoint_takes_is_not_sent() -> None:
    api = ManagementApi(key="k", base_url="http://127.0.0.1:9", sleep=lambda _s: None)
    with pytest.raises(JobTooLarge, match="bucket"):
        run_endpoint_job(api, "e", {"workflow": {}, "inputs": ["x" * 10_000_000]}, timeout_s=1)
