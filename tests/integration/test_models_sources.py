"""The kinds of sources: the hub, Civitai, buckets, files of this machine."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.http.client import Credentials, HttpClient, HttpTransport
from comfypin.models.describe import describe_model
from comfypin.models.errors import SourceFailed
from comfypin.models.http_responses import make_model_client
from comfypin.models.sources.bucket import BucketSource
from comfypin.models.sources.civitai import CivitaiSource
from comfypin.models.sources.huggingface import HubFile, HubSource
from comfypin.settings.environment import Settings
from comfypin.storage.azure import AzureStore
from comfypin.storage.gcs import GcsStore
from comfypin.storage.interface import ObjectStore
from comfypin.storage.memory import MemoryStore
from comfypin.storage.s3 import S3Store
from comfypin.storage.s3_settings import S3Settings
from comfypin.wiring import make_model_describer
from tests.support.faulty_server import FaultyServer, Reply, Request, faulty_server, ranged
from tests.support.model_hubs import COMMIT, HubRepo, civitai, hub
from tests.support.models import Home, pin_of, safetensors, some_bytes, sources_over
from tests.support.object_servers import AzureServer, gcs_server, moto_server
from tests.support.payloads import payload_of
from tests.support.scripted_server import answering

DATA = safetensors(some_bytes(9 << 20))
OTHER = safetensors(some_bytes(1000, seed=5))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "models")


def client_for(server: FaultyServer, token: str | None) -> HttpClient:
    tokens = {server.url: token} if token else {}
    return make_model_client(credentials=Credentials(tokens=tokens), transport=HttpTransport(timeout_s=5))


def hub_source(server: FaultyServer, *, token: str | None = None, caches: tuple[Path, ...] = ()) -> HubSource:
    return HubSource(client_for(server, token), endpoint=server.url, caches=caches)


# -- the hub


def test_a_file_of_the_hub_is_pulled_through_its_redirect(home: Home) -> None:
    with hub(HubRepo(name="org/repo", path="vae/x.safetensors", data=DATA)) as server:
        pin = pin_of(DATA, f"hf://org/repo@{COMMIT}/vae/x.safetensors")
        home.pull(pin, sources=[hub_source(server)]).raise_failures()
        assert server.requests[0].path == f"/org/repo/resolve/{COMMIT}/vae/x.safetensors"
    assert home.path(pin).read_bytes() == DATA


def test_the_hubs_token_does_not_reach_its_content_servers(home: Home) -> None:
    repo = HubRepo(name="org/repo", path="x.safetensors", data=DATA, gated=True)
    with hub(repo) as cdn, hub(repo, cdn=f"http://localhost:{cdn.port}") as server:
        pin = pin_of(DATA, "hf://org/repo/x.safetensors")
        home.pull(pin, sources=[hub_source(server, token="hf_good")]).raise_failures()
        assert {"authorization" in request.headers for request in server.requests} == {True}
        assert {"authorization" in request.headers for request in cdn.requests} == {False}


@pytest.mark.parametrize(
    ("uri", "token", "says"),
    [
        ("hf://org/gated/x.safetensors", None, "the repository is gated: accept its terms at"),
        ("hf://org/gated/x.safetensors", "hf_bad", "with the account of HF_TOKEN"),
        ("hf://org/private/x.safetensors", None, "set HF_TOKEN"),
        ("hf://org/nothing/x.safetensors", "hf_good", "does not exist, or HF_TOKEN may not read it"),
        ("hf://org/gated@v9/x.safetensors", "hf_good", "has no revision v9"),
        ("hf://org/gated/y.safetensors", "hf_good", "has no file y.safetensors at main"),
        ("hf://org/x.safetensors", None, "it is not hf://org/repo"),
    ],
)
def test_what_the_hub_refuses_is_said_plainly(home: Home, uri: str, token: str | None, says: str) -> None:
    gated = HubRepo(name="org/gated", path="x.safetensors", data=DATA, gated=True)
    private = HubRepo(name="org/private", path="x.safetensors", data=DATA, private=True)
    with hub(gated, private) as server:
        report = home.pull(pin_of(DATA, uri), sources=[hub_source(server, token=token)])
    assert says in report.failures[0].message
    assert "hf_bad" not in report.failures[0].message


def test_other_bytes_on_the_hub_are_known_before_they_are_fetched(home: Home) -> None:
    with hub(HubRepo(name="org/repo", path="x.safetensors", data=OTHER)) as server:
        report = home.pull(pin_of(DATA, "hf://org/repo/x.safetensors", size_bytes=None), sources=[hub_source(server)])
    assert hashlib.sha256(OTHER).hexdigest() in report.failures[0].message


def test_a_source_with_other_bytes_costs_nothing_of_what_had_arrived(home: Home) -> None:
    big = some_bytes(20 << 20)

    def until(request: Request) -> Reply:
        return Reply(status=404) if request.range and request.range[0] >= 16 << 20 else ranged(big, request)

    target = "$MODELS_DIR/unet/x.gguf"
    with faulty_server(until) as server:
        home.pull(pin_of(big, f"{server.url}/x", target=target), connections=1)
    other = hub(HubRepo(name="org/repo", path="x.gguf", data=some_bytes(len(big), seed=4)))
    with other as wrong, faulty_server(lambda request: ranged(big, request)) as server:
        pin = pin_of(big, "hf://org/repo/x.gguf", f"{server.url}/x", target=target)
        home.pull(pin, sources=[hub_source(wrong), *sources_over()], connections=1).raise_failures()
        assert [request.range[0] for request in server.requests if request.range] == [16 << 20]


@pytest.mark.parametrize(
    "uri",
    [
        "hf://a/b/%2e%2e/%2e%2e/%2e%2e/secret",
        "hf://a/b/../c",
        "hf://a/b@../c",
        "hf://a/b@%2e%2e%2fx/c",
        "hf://a/b/%2Fx",
    ],
)
def test_addresses_of_the_hub_stay_in_its_cache(home: Home, tmp_path: Path, uri: str) -> None:
    (tmp_path / "hub/models--a--b/snapshots/main").mkdir(parents=True)
    (tmp_path / "hub/secret").write_bytes(DATA)
    with hub() as server:
        source = hub_source(server, caches=(tmp_path / "hub",))
        report = home.pull(pin_of(DATA, uri, sha256=None, size_bytes=None), sources=[source])
    assert "it is not hf://org/repo" in report.failures[0].message


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A file in a cache of the hub's, where its name is a link to its bytes."""
    folder = tmp_path / "hub/models--org--repo"
    name = folder / "snapshots" / COMMIT / "vae/x.safetensors"
    for place in (name.parent, folder / "blobs"):
        place.mkdir(parents=True)
    (folder / "blobs/etag").write_bytes(DATA)
    name.symlink_to("../../../blobs/etag")
    return name


def test_a_model_that_the_platform_has_cached_is_linked_from_there(home: Home, tmp_path: Path, cached: Path) -> None:
    with hub() as server:
        pin = pin_of(DATA, "/not/here", f"hf://org/repo@{COMMIT}/vae/x.safetensors")
        (outcome,) = home.pull(pin, sources=[hub_source(server, caches=(tmp_path / "hub",))]).outcomes
        assert server.requests == []
    assert (outcome.state, outcome.source) == ("adopted", f"hf://org/repo@{COMMIT}/vae/x.safetensors")
    assert home.path(pin).samefile(cached)
    assert home.path(pin).readlink().parts[:2] == ("..", ".comfypin")
    assert list((home.store.root / "tmp").iterdir()) == []


def test_a_cached_model_with_other_bytes_is_fetched_from_the_hub(home: Home, tmp_path: Path, cached: Path) -> None:
    cached.resolve().write_bytes(safetensors(some_bytes(9 << 20, seed=2)))
    with hub(HubRepo(name="org/repo", path="vae/x.safetensors", data=DATA)) as server:
        pin = pin_of(DATA, f"hf://org/repo@{COMMIT}/vae/x.safetensors")
        (outcome,) = home.pull(pin, sources=[hub_source(server, caches=(tmp_path / "hub",))]).outcomes
    assert (outcome.state, outcome.source) == ("fetched", f"hf://org/repo@{COMMIT}/vae/x.safetensors")
    assert str(cached) in outcome.failed_sources[0]
    assert home.path(pin).read_bytes() == DATA
    assert list((home.store.root / "tmp").iterdir()) == []


def test_a_model_cached_on_another_file_system_is_copied(home: Home, tmp_path: Path, cached: Path) -> None:
    if not os.path.ismount("/dev/shm") or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere, hub() as server:
        shutil.copytree(tmp_path / "hub", Path(elsewhere, "hub"), symlinks=True)
        pin = pin_of(DATA, f"hf://org/repo@{COMMIT}/vae/x.safetensors")
        (outcome,) = home.pull(pin, sources=[hub_source(server, caches=(Path(elsewhere, "hub"),))]).outcomes
    assert outcome.state == "fetched"
    assert home.path(pin).read_bytes() == DATA


def test_the_hub_says_commit_digest_and_size_without_giving_the_file() -> None:
    with hub(HubRepo(name="org/repo", path="x.safetensors", data=DATA)) as server:
        facts = hub_source(server).facts("hf://org/repo/x.safetensors")
    assert (facts.uri, facts.size_bytes) == (f"hf://org/repo@{COMMIT}/x.safetensors", len(DATA))
    assert facts.sha256 is not None
    assert facts.sha256.hex == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("hf://a/b/c", "e/a/b/resolve/main/c"),
        ("hf://a/b@v1/c/d", "e/a/b/resolve/v1/c/d"),
        ("hf://a/b/c?rev=v2", "e/a/b/resolve/v2/c"),
        ("hf://a/b@refs/pr/3/c/d", "e/a/b/resolve/refs%2Fpr%2F3/c/d"),
        ("hf://a/b@refs/x", "e/a/b/resolve/refs/x"),
        ("hf://a/b@refs%2Fpr%2F3/c", "e/a/b/resolve/refs%2Fpr%2F3/c"),
        ("hf://datasets/a/b/c d", "e/datasets/a/b/resolve/main/c%20d"),
    ],
)
def test_addresses_of_the_hub_are_read(uri: str, url: str) -> None:
    assert HubFile.parse_uri(uri).file_url("e") == url


# -- Civitai


@pytest.mark.parametrize(
    "uri",
    ["civitai://7", "civitai://version/7", "civitai://7/2", f"civitai://sha256/{hashlib.sha256(DATA).hexdigest()}",
     f"civitai://sha256:{hashlib.sha256(DATA).hexdigest().upper()}"],
)  # fmt: skip
def test_civitai_is_asked_by_version_file_and_digest(home: Home, uri: str) -> None:
    with civitai({1: OTHER, 2: DATA}) as server:
        pin = pin_of(DATA, uri)
        source = CivitaiSource(client_for(server, None), endpoint=server.url)
        home.pull(pin, sources=[source]).raise_failures()
    assert home.path(pin).read_bytes() == DATA


@pytest.mark.parametrize(
    ("uri", "token", "says"),
    [
        ("civitai://7", None, "set CIVITAI_TOKEN"),
        ("civitai://7", "bad", "refuses the token"),
        ("civitai://8", "good", "HTTP 404"),
        ("civitai://7/9", "good", "has no file 9"),
        ("civitai://x", "good", "it is not civitai://<version id>"),
    ],
)
def test_what_civitai_refuses_is_said_plainly(home: Home, uri: str, token: str | None, says: str) -> None:
    with civitai({1: DATA}, token="good") as server:
        source = CivitaiSource(client_for(server, token), endpoint=server.url)
        report = home.pull(pin_of(DATA, uri), sources=[source])
    assert says in report.failures[0].message


def test_civitai_says_digest_size_and_folder_without_giving_the_file() -> None:
    with civitai({1: DATA}) as server:
        facts = CivitaiSource(client_for(server, None), endpoint=server.url).facts("civitai://7")
    assert (facts.uri, facts.folder, facts.size_bytes) == ("civitai://7/1", "vae", len(DATA))


# -- buckets


@pytest.fixture(scope="module")
def buckets(azurite: AzureServer) -> Iterator[dict[str, ObjectStore]]:
    with moto_server() as s3, gcs_server() as gcs:
        for server in (s3, gcs, azurite):
            server.new_bucket("models")
        yield {
            "s3": S3Store(s3.config("models")),
            "gs": GcsStore(gcs.config("models")),
            "az": AzureStore(azurite.config("models")),
        }


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_an_object_of_a_bucket_is_pulled(
    home: Home, buckets: dict[str, ObjectStore], tmp_path: Path, scheme: str
) -> None:
    buckets[scheme].put("vae/x.safetensors", payload_of(tmp_path / "x", DATA))
    pin = pin_of(DATA, f"{scheme}://models/vae/x.safetensors")
    home.pull(pin, sources=[BucketSource(lambda asked, bucket: buckets[asked])]).raise_failures()
    assert home.path(pin).read_bytes() == DATA


@pytest.mark.parametrize(
    ("uri", "says"), [("s3://models/none", "no such object"), ("s3://models/", "it is not s3://bucket/key")]
)
def test_what_a_bucket_has_not_is_said(home: Home, uri: str, says: str) -> None:
    report = home.pull(pin_of(DATA, uri), sources=[BucketSource(lambda scheme, bucket: MemoryStore())])
    assert says in report.failures[0].message


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "SignatureDoesNotMatch", "the secret key does not belong"),
        (400, "AuthorizationHeaderMalformed", "S3_REGION"),
        (404, "NoSuchBucket", "does not exist at this endpoint"),
    ],
)
def test_what_a_bucket_refuses_is_said_though_head_has_no_words(home: Home, status: int, code: str, says: str) -> None:
    with answering(status, f"<Error><Code>{code}</Code></Error>") as url:
        environ = {"S3_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}

        def opened(scheme: str, bucket: str) -> S3Store:
            return S3Store(S3Settings.from_variables({**environ, "S3_BUCKET": bucket}))

        report = home.pull(pin_of(DATA, "s3://b/x"), sources=[BucketSource(opened)])
    assert says in report.failures[0].message


# -- files of this machine


@pytest.mark.parametrize("form", ["{path}", "file://{path}", "file://localhost{path}"])
def test_a_file_of_this_machine_is_a_source(home: Home, tmp_path: Path, form: str) -> None:
    path = tmp_path / "a model.safetensors"
    path.write_bytes(DATA)
    text = str(path) if form == "{path}" else str(path).replace(" ", "%20")
    pin = pin_of(DATA, form.format(path=text))
    home.pull(pin).raise_failures()
    assert home.path(pin).read_bytes() == DATA


def test_a_folder_is_no_model(home: Home, tmp_path: Path) -> None:
    assert "it is not a file" in home.pull(pin_of(DATA, str(tmp_path))).failures[0].message


def test_another_machines_file_is_not_read_here(home: Home) -> None:
    assert "names another machine" in home.pull(pin_of(DATA, "file://nas/x")).failures[0].message


# -- describing


def test_a_source_without_digest_is_read_once_to_describe_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(DATA)
    described = describe_model(str(path), sources_over())
    assert (described.sha256.hex, described.size_bytes) == (hashlib.sha256(DATA).hexdigest(), len(DATA))


def test_what_cannot_be_described_says_why() -> None:
    with faulty_server(lambda request: pytest.fail("not asked")), pytest.raises(SourceFailed, match="no such file"):
        describe_model("/nowhere/x", sources_over())


def test_a_link_of_the_hubs_page_is_pinned_to_the_commit() -> None:
    with hub(HubRepo(name="org/repo", path="vae/x.safetensors", data=DATA)) as server:
        settings = Settings({"HF_ENDPOINT": server.url, "HOME": "/nonexistent"})
        facts = make_model_describer(settings)(f"{server.url}/org/repo/resolve/main/vae/x.safetensors?download=true")
    assert (facts.source, facts.sha256) == (f"hf://org/repo@{COMMIT}/vae/x.safetensors", Digest.of(DATA))
