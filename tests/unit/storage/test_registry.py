"""A kind of store is one module and one line of the registry."""

import sys
from pathlib import Path

import pytest

from comfypin.errors import UsageError
from comfypin.storage import registry
from comfypin.storage.errors import SdkMissing
from comfypin.storage.interface import BucketSettings
from comfypin.storage.registry import (
    KINDS,
    SCHEMES,
    StoreAddress,
    StoreKind,
    find_kind,
    first_configured_kind,
    open_bucket,
)

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "src" / "comfypin"


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_reads_its_settings_from_variables(kind: StoreKind) -> None:
    settings = kind.read_settings({})
    assert isinstance(settings, BucketSettings)
    assert settings.bucket is None
    assert not kind.is_configured({})


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_has_an_extra_and_documents_in_both_languages(kind: StoreKind) -> None:
    assert f"\n{kind.name} = [" in (ROOT / "pyproject.toml").read_text()
    for folder in ("docs", "docs/ru"):
        assert f"{kind.scheme}://" in (ROOT / folder / Path(kind.docs).name).read_text()


def test_a_client_library_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutSdk:
        Settings = BucketSettings

        def open_store(self, settings: BucketSettings, *, prefix: str = "") -> None:
            raise ModuleNotFoundError("No module named 'boto3'", name="boto3")

    monkeypatch.setattr(registry, "import_module", lambda _name: WithoutSdk())
    with pytest.raises(SdkMissing, match=r"S3 needs its client library, comfypin\[s3\]"):
        KINDS["s3"].open_store(BucketSettings(bucket="b"))


def test_r2_addresses_are_s3s() -> None:
    assert find_kind("R2") is KINDS["s3"] is SCHEMES["s3"]


def test_gcs_is_looked_at_before_s3() -> None:
    assert first_configured_kind({"S3_BUCKET": "a", "GCS_BUCKET": "b"}) == "gcs"
    assert first_configured_kind({"S3_BUCKET": "a"}) == "s3"
    assert first_configured_kind({"AZURE_CONTAINER": "a"}) == "azure"
    assert first_configured_kind({}) is None


def test_an_address_is_a_bucket_or_a_folder() -> None:
    assert StoreAddress.parse("s3://b/a/c/") == StoreAddress(scheme="s3", bucket="b", prefix="a/c")
    assert StoreAddress.parse("file:///srv/x").folder == StoreAddress.parse("/srv/x").folder == Path("/srv/x")


@pytest.mark.parametrize("text", ["ftp://host/x", "s3://", "gs:///key"])
def test_an_address_of_no_store_lists_those_that_there_are(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        StoreAddress.parse(text)
    assert all(f" {kind.scheme}://bucket/prefix" in str(caught.value) for kind in KINDS.values())


def test_without_boto3_s3_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("client", "errors", "parts", "transport"):
        monkeypatch.delitem(sys.modules, f"comfypin.storage.s3_{name}", raising=False)
    for name in ("botocore", "botocore.session", "botocore.config", "botocore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SdkMissing, match=r"its client library, comfypin\[s3\]"):
        open_bucket("s3", "b", "", {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"})


def test_only_its_own_files_and_the_registry_know_the_newest_store() -> None:
    named = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(name in path.read_text().lower() for name in ("azure", "az://"))
    }
    own = {f"storage/azure{part}.py" for part in ("", "_client", "_settings")}
    # A child is not shown its keys; helps give examples; an error and a comment name it beside others.
    beside = {
        "engine/command.py",
        "cli/sync.py",
        "settings/errors.py",
        "outputs/errors.py",
        "storage/errors.py",
        "storage/interface.py",
        "storage/sdk_session.py",
    }
    assert named - beside == own | {"storage/registry.py"}
