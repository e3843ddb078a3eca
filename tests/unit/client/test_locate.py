"""Which server of jobs an address means."""

import pytest

from comfypin.client.errors import ServerAddressInvalid
from comfypin.client.locate import locate_by_address

RUNPOD = "https://api.runpod.ai/v2"


@pytest.mark.parametrize(
    ("named", "kind", "base_url"),
    [
        ("runpod://abc123", "runpod", f"{RUNPOD}/abc123"),
        ("https://api.runpod.ai/v2/abc123/", "runpod", f"{RUNPOD}/abc123"),
        ("https://cloud.example/api/v2", "comfy", "https://cloud.example/api/v2"),
        ("https://x.example/deployment/7/api/v2/", "comfy", "https://x.example/deployment/7/api/v2"),
    ],
)
def test_an_address_tells_what_the_server_is(named: str, kind: str, base_url: str) -> None:
    found = locate_by_address(named, RUNPOD)
    assert found is not None
    assert (found.kind, found.base_url) == (kind, base_url)


@pytest.mark.parametrize("named", ["http://127.0.0.1:8000", "https://pod-8000.proxy.runpod.net", "http://h:1/v2/x"])
def test_any_other_server_is_asked(named: str) -> None:
    assert locate_by_address(named, RUNPOD) is None


@pytest.mark.parametrize(
    "named",
    [
        "runpod://",
        "runpod://a/b",
        "localhost:8000",
        "ftp://host/x",
        "http://",
        "http://host:99999",
        "http://user:secret@host:8000",
        "https://host/api/v2?token=secret",
        "https://host/#secret",
    ],
)
def test_what_is_no_address_of_a_server_is_refused_without_its_secrets(named: str) -> None:
    with pytest.raises(ServerAddressInvalid) as refused:
        locate_by_address(named, RUNPOD)
    assert "secret" not in str(refused.value)
    assert refused.value.exit_code == 64
