"""Where a job's own bucket may be."""

import socket
from collections.abc import Sequence

import pytest

from comfypin.errors import ConfigError
from comfypin.jobs.bucket_addresses import require_public_bucket
from comfypin.jobs.errors import JobInvalid
from comfypin.storage.errors import StoreUnreachable
from comfypin.storage.s3_settings import S3Settings
from tests.unit.test_addresses import METADATA_FORMS

_KNOWN = {"s3.example.com": "93.184.216.34", "inside.example.com": "10.0.0.1", "b.s3.trap.com": "127.0.0.1"}


class Names:
    """A resolver that knows a few names."""

    def resolve(self, host: str, port: int) -> Sequence[str]:
        if host not in _KNOWN:
            raise socket.gaierror
        return [_KNOWN[host]]


def asked(host: str, **environ: str) -> S3Settings:
    job = {"bucketName": "b", "endpointUrl": f"https://{host}", "accessId": "i", "accessSecret": "s"}
    return require_public_bucket(S3Settings.from_variables(environ).for_job(job), resolver=Names())


@pytest.mark.parametrize("environ", [{}, {"HTTPS_PROXY": "http://proxy:1"}])
def test_a_bucket_is_at_a_public_address(environ: dict[str, str]) -> None:
    assert asked("s3.example.com", **environ).connect_to == (() if environ else ("93.184.216.34",))
    for host in ("inside.example.com", "s3.trap.com"):
        with pytest.raises(JobInvalid, match=r"private address|not known here"):
            asked(host, **environ)


def test_a_name_that_only_the_proxy_knows_might_lead_inside() -> None:
    for environ in ({}, {"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "example.com"}):
        with pytest.raises(StoreUnreachable, match="its name is not known"):
            asked("nowhere.example.com", **environ)
    with pytest.raises(JobInvalid, match="not known here"):
        asked("nowhere.example.com", HTTPS_PROXY="http://proxy:1")


@pytest.mark.parametrize("environ", [{}, {"HTTPS_PROXY": "http://proxy:1"}])
@pytest.mark.parametrize("host", [*METADATA_FORMS, "127。0。0。1", "[::ffff:127.0.0.1]", "[64:ff9b::a9fe:a9fe]"])
def test_no_way_to_write_a_private_address_gets_a_bucket_there(host: str, environ: dict[str, str]) -> None:
    with pytest.raises((JobInvalid, StoreUnreachable, ConfigError)):
        asked(host, **environ)
