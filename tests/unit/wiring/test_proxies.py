"""The proxies that the environment names stand before everything that the wiring opens."""

from typing import Any, cast

from comfypin import wiring
from comfypin.http.client import HttpClient
from comfypin.http.deadline import Deadline
from comfypin.http.proxies import Proxies
from comfypin.http.url import HttpUrl
from comfypin.settings.environment import Settings

SETTINGS = Settings({"HTTPS_PROXY": "http://proxy:1", "RUNPOD_API_KEY": "key", "NO_PROXY": "near"})


def stands_before(proxies: Proxies) -> bool:
    proxy = proxies.for_url(HttpUrl.parse("https://far"))
    return (
        proxy is not None and proxy.url == "http://proxy:1" and proxies.for_url(HttpUrl.parse("https://near")) is None
    )


def of_client(client: HttpClient) -> Proxies:
    return client._transport.proxies


def test_before_what_locks_are_made_of() -> None:
    places = wiring.make_lock_places(SETTINGS)
    assert stands_before(places.proxies)
    assert stands_before(places.registry.proxies)


def test_before_the_sources_of_envs() -> None:
    assert stands_before(wiring.make_source_places(SETTINGS).proxies)


def test_before_models() -> None:
    http, hub, civitai, *_ = wiring.open_model_sources(SETTINGS)
    assert all(stands_before(of_client(source._client)) for source in (http, hub, civitai))  # type: ignore[attr-defined]


def test_before_runpod() -> None:
    assert stands_before(of_client(wiring.open_runpod_api(SETTINGS).client))
    assert stands_before(of_client(wiring.open_runpod_jobs_api(SETTINGS).client))


def test_before_the_inputs_of_jobs() -> None:
    nothing = cast("Any", None)
    service = wiring.open_service(nothing, nothing, nothing, settings=SETTINGS)
    assert stands_before(of_client(service.fetcher._open_client(Deadline(1.0))))


def test_nothing_stands_before_where_none_is_named() -> None:
    assert wiring.http_proxies(Settings({})) == Proxies()
