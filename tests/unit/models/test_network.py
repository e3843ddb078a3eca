"""Which servers models may come from, and that it is the checked address that is connected to."""

import json
import socket
from collections.abc import Sequence

import pytest

from comfypin.http.client import HttpTransport
from comfypin.models.http_responses import make_model_client
from comfypin.models.sources.civitai import CivitaiSource
from tests.support.faulty_server import Reply, Request, faulty_server, ranged
from tests.support.models import Home, pin_of, safetensors, sources_over

DATA = safetensors(b"weights")


class FakeInternet:
    """Names with addresses of the test's choice; every connection ends at one local server."""

    def __init__(self, names: dict[str, str], port: int) -> None:
        self.names = names
        self.port = port
        self.connected: list[str] = []
        self.asked: list[str] = []

    def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return [self.names[host]]

    def connect(self, unconnected: socket.socket, address: str, port: int) -> None:
        self.connected.append(address)
        unconnected.connect(("127.0.0.1", self.port))


def pulled(tmp_path, names: dict[str, str], url: str, location: str | None = None):
    """What pulling `url` gives, where the server redirects to `location`; the network that was used."""

    def script(request: Request) -> Reply:
        if location is not None and request.path == "/from":
            return Reply(status=302, headers={"Location": location})
        return ranged(DATA, request)

    with faulty_server(script) as server:
        internet = FakeInternet(names, server.port)
        report = Home(tmp_path / "models").pull(pin_of(DATA, url), sources=sources_over(network=internet))
    return report, internet


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/meta-data/", "http://10.1.2.3/x", "http://127.0.0.1:8188/x", "http://inside.example/",
     "http://[::ffff:169.254.169.254]/x", "http://2852039166/x"],
)  # fmt: skip
def test_a_redirect_from_a_public_host_to_a_private_address_is_refused(tmp_path, location: str) -> None:
    names = {"public.example": "93.184.216.34", "inside.example": "192.168.7.7"}
    report, internet = pulled(tmp_path, names, "http://public.example/from", location)
    assert "private address" in report.failures[0].message or "link-local" in report.failures[0].message
    assert internet.connected == ["93.184.216.34"]


def test_a_redirect_to_another_public_host_is_followed(tmp_path) -> None:
    names = {"public.example": "93.184.216.34", "cdn.example": "93.184.216.35"}
    report, internet = pulled(tmp_path, names, "http://public.example/from", "http://cdn.example/x")
    assert report.failures == ()
    assert internet.connected == ["93.184.216.34", "93.184.216.35"]


def test_a_private_host_that_the_lock_names_is_fine(tmp_path) -> None:
    report, internet = pulled(tmp_path, {"nas.local": "192.168.1.5"}, "http://nas.local/x")
    assert report.failures == ()
    assert internet.connected == ["192.168.1.5"]


def test_a_private_host_may_lead_to_another_one(tmp_path) -> None:
    names = {"nas.local": "192.168.1.5", "disk.local": "192.168.1.6"}
    assert pulled(tmp_path, names, "http://nas.local/from", "http://disk.local/x")[0].failures == ()


def test_not_even_a_private_host_may_lead_to_the_metadata_address(tmp_path) -> None:
    report, _ = pulled(tmp_path, {"nas.local": "192.168.1.5"}, "http://nas.local/from", "http://169.254.169.254/x")
    assert "link-local" in report.failures[0].message


def test_a_public_host_on_the_way_may_not_lead_back_into_a_private_network(tmp_path) -> None:
    names = {"nas.local": "192.168.1.5", "public.example": "93.184.216.34"}

    def script(request: Request) -> Reply:
        leads = {"/from": "http://public.example/on", "/on": "http://10.0.0.1/x"}
        return Reply(status=302, headers={"Location": leads[request.path]})

    with faulty_server(script) as server:
        internet = FakeInternet(names, server.port)
        pin = pin_of(DATA, "http://nas.local/from")
        report = Home(tmp_path / "models").pull(pin, sources=sources_over(network=internet))
    assert "from the public host public.example to the private address of 10.0.0.1" in report.failures[0].message
    assert internet.connected == ["192.168.1.5", "93.184.216.34"]


def test_an_address_that_a_public_api_names_may_not_be_private(tmp_path) -> None:
    names = {"civitai.example": "93.184.216.34"}
    found = {"id": 7, "files": [{"id": 1, "name": "x", "downloadUrl": "http://10.0.0.1/x"}]}

    def script(request: Request) -> Reply:
        return Reply(body=json.dumps(found).encode(), headers={"Content-Type": "application/json"})

    with faulty_server(script) as server:
        internet = FakeInternet(names, server.port)
        source = CivitaiSource(
            make_model_client(transport=HttpTransport(network=internet)), endpoint="http://civitai.example"
        )
        report = Home(tmp_path / "models").pull(pin_of(DATA, "civitai://7"), sources=[source])
    assert "from the public host civitai.example to the private address of 10.0.0.1" in report.failures[0].message
    assert internet.connected == ["93.184.216.34"]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://x/", "http://[::1", "http://x:99999999/"])
def test_a_redirect_to_something_else_is_refused(tmp_path, location: str) -> None:
    report, _ = pulled(tmp_path, {"public.example": "93.184.216.34"}, "http://public.example/from", location)
    assert "public.example/from: it leads to" in report.failures[0].message


def test_a_name_is_resolved_once_so_that_it_cannot_move_after_the_check(tmp_path) -> None:
    names = {"public.example": "93.184.216.34"}
    _, internet = pulled(tmp_path, names, "http://public.example/from", "http://public.example/x")
    assert internet.asked.count("public.example") == 1


def test_a_name_with_a_private_address_beside_its_public_one_is_a_public_host(tmp_path) -> None:
    class TwoFaced(FakeInternet):
        def resolve(self, host: str, port: int) -> Sequence[str]:
            return ["93.184.216.34", "127.0.0.1"]

    def script(request: Request) -> Reply:
        return Reply(status=302, headers={"Location": "http://10.0.0.1/x"})

    with faulty_server(script) as server:
        sources = sources_over(network=TwoFaced({}, server.port))
        report = Home(tmp_path / "models").pull(pin_of(DATA, "http://two.example/x"), sources=sources)
    assert "private address of 10.0.0.1" in report.failures[0].message


def test_a_password_in_an_address_is_used_and_not_shown(tmp_path) -> None:
    with faulty_server(lambda request: Reply(status=403)) as server:
        url = server.url.replace("http://", "http://me:s3cret@") + "/x"
        report = Home(tmp_path / "models").pull(pin_of(DATA, url))
    assert server.requests[0].headers["authorization"] == "Basic bWU6czNjcmV0"
    assert "s3cret" not in report.failures[0].message
