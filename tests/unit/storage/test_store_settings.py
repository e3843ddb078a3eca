"""The variables of buckets: names, defaults, precedence, and endpoints in all the ways people write them."""

import re
from pathlib import Path

import pytest

from comfypin.errors import ConfigError
from comfypin.settings.errors import SettingInvalid, SettingMissing, SettingsConflict
from comfypin.storage.endpoint import ParsedEndpoint
from comfypin.storage.errors import BucketMissing, CredentialsRefused
from comfypin.storage.gcs_settings import GcsSettings
from comfypin.storage.s3 import S3Store
from comfypin.storage.s3_errors import S3Location, explain_response
from comfypin.storage.s3_setting_names import S3SettingNames
from comfypin.storage.s3_settings import S3Credentials, S3Settings


def test_the_documented_defaults_of_gcs() -> None:
    assert GcsSettings.from_variables({}) == GcsSettings(
        bucket=None,
        prefix="comfy/outputs",
        project=None,
        credentials_file=None,
        retries=3,
        retry_base_sleep_s=0.5,
        public=False,
        signed_url_ttl_s=0,
        validate=True,
    )


def test_every_variable_of_gcs_is_read() -> None:
    environ = {
        "GCS_BUCKET": "gs://pictures/",
        "GCS_PREFIX": "/mine/",
        "GCS_PROJECT": "p2",
        "GOOGLE_CLOUD_PROJECT": "p1",
        "GOOGLE_APPLICATION_CREDENTIALS": "/key.json",
        "GCS_RETRIES": "0",
        "GCS_RETRY_BASE_SLEEP": "1.5",
        "GCS_PUBLIC": "TRUE",
        "GCS_SIGNED_URL_TTL": "3600",
        "GCS_VALIDATE": "false",
    }
    assert GcsSettings.from_variables(environ) == GcsSettings(
        bucket="pictures",
        prefix="mine",
        project="p1",
        credentials_file=Path("/key.json"),
        credentials_named="GOOGLE_APPLICATION_CREDENTIALS names /key.json",
        retries=0,
        retry_base_sleep_s=1.5,
        public=True,
        signed_url_ttl_s=3600,
        validate=False,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GCS_RETRIES", "many"),
        ("GCS_RETRIES", "-1"),
        ("GCS_RETRY_BASE_SLEEP", "nan"),
        ("GCS_PUBLIC", "maybe"),
        ("GCS_SIGNED_URL_TTL", "604801"),
        ("GCS_PREFIX", "../up"),
        ("GCS_PREFIX", "long/" * 110),
    ],
)
def test_a_wrong_value_is_refused(name: str, value: str) -> None:
    with pytest.raises(Exception, match=r"\.\.|" + name):
        GcsSettings.from_variables({name: value})


@pytest.mark.parametrize(
    "name", ["S3_RETRIES", "S3_SIGNED_URL_TTL", "S3_ADDRESSING_STYLE", "S3_ENDPOINT_URL", "S3_PUBLIC_BASE_URL"]
)
def test_a_wrong_value_of_s3_names_its_variable(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        S3Settings.from_variables({name: "://wrong"})


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "BUCKET_ACCESS_KEY_ID"])
@pytest.mark.parametrize("value", ["hush\nhush", "hüsh", "hu sh"])
def test_a_key_that_fits_into_no_header_is_refused_and_not_shown(name: str, value: str) -> None:
    pair = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"} if name.startswith("AWS") else {}
    with pytest.raises(ConfigError, match=name) as caught:
        S3Settings.from_variables({**pair, "BUCKET_SECRET_ACCESS_KEY": "s", name: value})
    assert value not in str(caught.value)


@pytest.mark.parametrize("value", ["aHVzaA" * 500, "hush\nhush"])
def test_a_google_key_in_the_place_of_its_file_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(
        ConfigError, match=r"GOOGLE_APPLICATION_CREDENTIALS .*not shown.*save the content to a file"
    ) as caught:
        GcsSettings.from_variables({"GOOGLE_APPLICATION_CREDENTIALS": value})
    assert "hush" not in str(caught.value)
    assert value not in repr(caught.value.facts)


def test_an_account_alone_makes_r2s_endpoint_and_region() -> None:
    account = "0123456789abcdef0123456789abcdef"
    config = S3Settings.from_variables({"R2_ACCOUNT_ID": account, "S3_BUCKET": "b", "AWS_REGION": "eu-west-1"})
    assert (config.endpoint, config.region) == (f"https://{account}.r2.cloudflarestorage.com", "auto")


@pytest.mark.parametrize(
    ("url", "bucket", "expected"),
    [
        ("https://pics.s3.eu-west-1.amazonaws.com", None, ("https://s3.eu-west-1.amazonaws.com", "pics", "eu-west-1")),
        ("https://s3.eu-west-1.amazonaws.com/pics", None, ("https://s3.eu-west-1.amazonaws.com", "pics", "eu-west-1")),
        ("https://a.b.s3.us-east-2.amazonaws.com/", None, ("https://s3.us-east-2.amazonaws.com", "a.b", "us-east-2")),
        (
            "https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com/pics",
            None,
            ("https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com", "pics", "auto"),
        ),
        ("https://pics.fra1.digitaloceanspaces.com", None, ("https://fra1.digitaloceanspaces.com", "pics", "fra1")),
        ("https://fra1.digitaloceanspaces.com", "pics", ("https://fra1.digitaloceanspaces.com", "pics", "fra1")),
        ("https://s3api-eu-ro-1.runpod.io", "vol", ("https://s3api-eu-ro-1.runpod.io", "vol", "eu-ro-1")),
        ("https://pics.minio.example:9000", "pics", ("https://minio.example:9000", "pics", None)),
        ("http://localhost:9000", "pics", ("http://localhost:9000", "pics", None)),
        ("http://[::1]:9000", "pics", ("http://[::1]:9000", "pics", None)),
        ("minio.example", "pics", ("https://minio.example", "pics", None)),
        ("http://minio:9000/pics", None, ("http://minio:9000", "pics", None)),
        ("http://minio:9000/pics/", "pics", ("http://minio:9000", "pics", None)),
        # R2's dashboard shows the address of another bucket than the one that is named.
        (
            "https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com/other",
            "pics",
            ("https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com", "pics", "auto"),
        ),
        ("https://s3.amazonaws.com/pics/folder", "pics", ("https://s3.amazonaws.com", "pics", None)),
        ("https://s3.amazonaws.com/pics/folder", None, ("https://s3.amazonaws.com", "pics", None)),
        ("https://pics.s3.amazonaws.com/folder", None, ("https://s3.amazonaws.com", "pics", None)),
        ("https://s3.wasabisys.com/other", "pics", ("https://s3.wasabisys.com", "pics", None)),
        ("https://storage.googleapis.com/pics", "pics", ("https://storage.googleapis.com", "pics", None)),
        ("https://p.supabase.co/storage/v1/s3", "pics", ("https://p.supabase.co/storage/v1/s3", "pics", None)),
        ("https://p.supabase.co/storage/v1/s3", "s3", ("https://p.supabase.co/storage/v1/s3", "s3", None)),
        ("https://p.supabase.co/storage/v1/s3/", None, ("https://p.supabase.co/storage/v1/s3", None, None)),
        ("https://p.supabase.co/storage/v1/s3/pics", None, ("https://p.supabase.co/storage/v1/s3", "pics", None)),
        ("https://p.supabase.co/storage/v1/s3/pics", "pics", ("https://p.supabase.co/storage/v1/s3", "pics", None)),
        ("http://gateway:80/tenant%20a/ü//s3", "pics", ("http://gateway:80/tenant%20a/%C3%BC/s3", "pics", None)),
        ("http://gateway/tenant/s3/pics", "pics", ("http://gateway/tenant/s3", "pics", None)),
        ("http://gateway/tenant/s3", None, ("http://gateway/tenant/s3", None, None)),
        ("http://gateway/tenant", "pics", ("http://gateway/tenant", "pics", None)),
        (None, "pics", (None, "pics", None)),
    ],
)
def test_an_endpoint_is_understood(url: str | None, bucket: str | None, expected: tuple[str, str, str]) -> None:
    place = ParsedEndpoint.parse(url, bucket=bucket)
    assert (place.endpoint, place.bucket, place.region) == expected


@pytest.mark.parametrize(
    "url",
    ["ftp://host", "https://", "https://user:secret@host", "http://host:99999", "https://host/a/../b", "https://h/?k=secret",
     "https://host/#secret", "https:///path", "https://[", "https://[::1", "https://a b", "https://.host",
     "https://" + "x" * 64, "https://ho%st", "https://host:port", "https://h\\u"],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(SettingInvalid) as caught:
        ParsedEndpoint.parse(url, bucket="b")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "BUCKET_ENDPOINT_URL"])
def test_the_variable_that_held_it_is_named(name: str) -> None:
    with pytest.raises(SettingInvalid, match=f"^{name} is "):
        S3Settings.from_variables({name: "ftp://host"})
    job = {"accessId": "i", "accessSecret": "s", "bucketName": "b", "endpointUrl": "ftp://host"}
    with pytest.raises(SettingInvalid, match=r"^s3Config\.endpointUrl is "):
        S3Settings().for_job(job)


def test_a_host_with_other_letters_is_asked_for_as_name_servers_know_it() -> None:
    assert ParsedEndpoint.parse("https://münchen.example/b", bucket="b").endpoint == "https://xn--mnchen-3ya.example"


@pytest.mark.parametrize(
    "value",
    ["a b", "a/b", "s3://a/b", "gs://a/b", "a//b", "..", "/", "s3://", "gs://", "https://h/b", "a\nb", "größe", "a?b",
     "-a", "x" * 256],
)  # fmt: skip
@pytest.mark.parametrize("name", ["S3_BUCKET", "BUCKET_NAME", "GCS_BUCKET", "s3Config.bucketName"])
def test_what_is_no_buckets_name_is_refused(name: str, value: str) -> None:
    job = {"accessId": "i", "accessSecret": "s", "bucketName": value, "endpointUrl": "https://h"}
    read = (GcsSettings if name.startswith("GCS") else S3Settings).from_variables
    with pytest.raises(SettingInvalid, match=f"^{re.escape(name)} is .*the name of a bucket alone.*_PREFIX") as caught:
        S3Settings().for_job(job) if name.startswith("s3Config") else read({name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["pics", "s3://pics", "s3://pics/", "Old_Bucket.Name", "tenant:pics", "3a"])
def test_what_is_a_buckets_name_is_taken(value: str) -> None:
    assert S3Settings.from_variables({"S3_BUCKET": value}).bucket == value.removeprefix("s3://").rstrip("/")


@pytest.mark.parametrize("value", ["a b", "a\nb", "europa/west", "größe", "x" * 65])
@pytest.mark.parametrize("name", ["S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"])
def test_what_is_no_region_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingInvalid, match=f"^{name} is .*a region like"):
        S3Settings.from_variables({name: value})


@pytest.mark.parametrize(
    "name", ["S3_BUCKET", "S3_PREFIX", "S3_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GCS_PREFIX"]
)
def test_what_is_no_text_is_refused_and_not_shown(name: str) -> None:
    value = b"s3cr3t\xff".decode(errors="surrogateescape")
    pair = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    with pytest.raises(ConfigError, match=name) as caught:
        (GcsSettings if name.startswith("GCS") else S3Settings).from_variables({**pair, name: value})
    assert "s3cr3t" not in str(caught.value)
    job = {"accessId": "i", "accessSecret": "s3cr3t\ud800", "bucketName": "b", "endpointUrl": "https://h"}
    with pytest.raises(SettingInvalid, match=r"s3Config\.accessSecret .*UTF-8"):
        S3Settings().for_job(job)


@pytest.mark.parametrize(
    "value", ["https://[", "h:99999", "https://u:s3cr3t@h", "https://h/?k=s3cr3t", "ftp://h", ".h"]
)
def test_other_addresses_are_looked_at_too(value: str) -> None:
    for name in ("S3_PUBLIC_BASE_URL", "STORAGE_EMULATOR_HOST"):
        with pytest.raises(SettingInvalid, match=name) as caught:
            (GcsSettings if name.startswith("STORAGE") else S3Settings).from_variables({name: value})
        assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("name", ["S3_PREFIX", "S3_REGION", "S3_RETRIES", "S3_BUCKET", "AWS_CA_BUNDLE", "S3_VALIDATE"])
def test_a_password_in_the_wrong_place_is_not_shown(name: str) -> None:
    with pytest.raises(SettingInvalid, match=f"{name} .*not shown") as caught:
        S3Settings.from_variables({name: "https://user:s3cr3t@host//a"})
    assert "s3cr3t" not in f"{caught.value} {caught.value.facts}"


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_certificates_that_are_not_there_are_missed_at_once(name: str) -> None:
    with pytest.raises(SettingInvalid, match=f"^{name} is '/nowhere'"):
        S3Settings.from_variables({name: "/nowhere"})


def test_runpods_variables_are_understood() -> None:
    config = S3Settings.from_variables(
        {
            "BUCKET_ENDPOINT_URL": "https://pics.s3.eu-west-1.amazonaws.com",
            "BUCKET_ACCESS_KEY_ID": "k",
            "BUCKET_SECRET_ACCESS_KEY": "s",
        }
    )
    assert (config.bucket, config.region) == ("pics", "eu-west-1")
    assert config.credentials == S3Credentials(access_key_id="k", secret_access_key="s")


def test_keys_belong_to_their_endpoint_and_are_never_mixed() -> None:
    both = {
        "S3_BUCKET": "b",
        "AWS_ACCESS_KEY_ID": "aws",
        "AWS_SECRET_ACCESS_KEY": "aws-secret",
        "AWS_SESSION_TOKEN": "aws-token",
        "BUCKET_ACCESS_KEY_ID": "runpod",
        "BUCKET_SECRET_ACCESS_KEY": "runpod-secret",
        "BUCKET_ENDPOINT_URL": "https://runpods.example",
    }
    assert S3Settings.from_variables(both).credentials == S3Credentials(
        access_key_id="runpod", secret_access_key="runpod-secret"
    )
    assert S3Settings.from_variables({**both, "S3_ENDPOINT_URL": "https://mine.example"}).credentials == S3Credentials(
        access_key_id="aws", secret_access_key="aws-secret", session_token="aws-token"
    )


_RUNPODS_KEYS = {"BUCKET_ACCESS_KEY_ID": "key", "BUCKET_SECRET_ACCESS_KEY": "secret"}


@pytest.mark.parametrize(
    ("environ", "bucket", "endpoint", "key"),
    [
        ({}, "S3_BUCKET", "S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"),
        (
            {"BUCKET_ENDPOINT_URL": "http://127.0.0.1:9000/mine", **_RUNPODS_KEYS},
            "BUCKET_ENDPOINT_URL", "BUCKET_ENDPOINT_URL", "BUCKET_ACCESS_KEY_ID",
        ),
        (
            {"BUCKET_ENDPOINT_URL": "http://127.0.0.1:9000", "BUCKET_NAME": "mine", **_RUNPODS_KEYS},
            "BUCKET_NAME", "BUCKET_ENDPOINT_URL", "BUCKET_ACCESS_KEY_ID",
        ),
        ({"R2_ACCOUNT_ID": "abc", "S3_BUCKET": "mine"}, "S3_BUCKET", "R2_ACCOUNT_ID", "AWS_ACCESS_KEY_ID"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_variables_that_the_user_set(
    environ: dict[str, str], bucket: str, endpoint: str, key: str
) -> None:
    names = S3Settings.from_variables(environ).names
    assert (names.bucket, names.endpoint, names.access_key_id) == (bucket, endpoint, key)
    location = S3Location(bucket="mine", endpoint=None, region="us-east-1", names=names)
    refused = explain_response(
        {"Error": {"Code": "SignatureDoesNotMatch"}}, location=location, action="write", object_uri="s3://mine/a"
    )
    assert isinstance(refused, CredentialsRefused)
    assert f"check {key}, {key.replace('ACCESS_KEY_ID', 'SECRET_ACCESS_KEY')} and endpoint" in str(refused)
    missing = explain_response(
        {"Error": {"Code": "NoSuchBucket"}}, location=location, action="write", object_uri="s3://mine/a"
    )
    assert isinstance(missing, BucketMissing)
    assert missing.variable == bucket


def test_a_bucket_that_no_variable_names_is_missed_by_the_variables_in_use() -> None:
    with pytest.raises(SettingMissing, match=r"^BUCKET_NAME is not set \(or S3_BUCKET\).*BUCKET_ENDPOINT_URL"):
        S3Store(S3Settings.from_variables({"BUCKET_ENDPOINT_URL": "http://127.0.0.1:9000", **_RUNPODS_KEYS}))
    with pytest.raises(SettingMissing, match=r"^S3_BUCKET is not set: "):
        S3Store(S3Settings.from_variables({}))


def test_half_a_key_pair_is_refused() -> None:
    with pytest.raises(SettingsConflict, match="AWS_SECRET_ACCESS_KEY"):
        S3Settings.from_variables({"AWS_ACCESS_KEY_ID": "k"})


def test_a_job_brings_all_of_its_own_s3_config() -> None:
    config = S3Settings.from_variables(
        {"S3_BUCKET": "ours", "S3_PREFIX": "p", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    ).for_job(
        {
            "accessId": "jk",
            "accessSecret": "js",
            "bucketName": "theirs",
            "endpointUrl": "https://s3.eu-west-3.amazonaws.com",
        }
    )
    assert (config.bucket, config.region, config.prefix) == ("theirs", "eu-west-3", "p")
    assert config.credentials == S3Credentials(access_key_id="jk", secret_access_key="js")
    # Advice about the server's variables would help no client.
    assert config.names == S3SettingNames(
        bucket="s3Config.bucketName",
        endpoint="s3Config.endpointUrl",
        access_key_id="s3Config.accessId",
        secret_access_key="s3Config.accessSecret",
    )


@pytest.mark.parametrize("missing", ["accessId", "accessSecret", "bucketName", "endpointUrl"])
def test_a_jobs_s3_config_is_whole_or_refused(missing: str) -> None:
    whole = {"accessId": "jk", "accessSecret": "hush", "bucketName": "b", "endpointUrl": "https://h"}
    with pytest.raises(SettingInvalid, match=missing) as caught:
        S3Settings().for_job({**whole, missing: ""})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "https://pics.s3.us-east-1.amazonaws.com"),
        ({"S3_REGION": "cn-north-1"}, "https://pics.s3.cn-north-1.amazonaws.com.cn"),
        ({"S3_BUCKET": "with.dots"}, "https://s3.us-east-1.amazonaws.com/with.dots"),
        ({"S3_ADDRESSING_STYLE": "path"}, "https://s3.us-east-1.amazonaws.com/pics"),
        ({"S3_ENDPOINT_URL": "https://minio.example"}, "https://minio.example/pics"),
        ({"S3_ENDPOINT_URL": "https://oss.example:444", "S3_ADDRESSING_STYLE": "virtual"}, "https://pics.oss.example:444"),
        ({"S3_ENDPOINT_URL": "https://p.supabase.co/storage/v1/s3/"}, "https://p.supabase.co/storage/v1/s3/pics"),
        ({"S3_ENDPOINT_URL": "https://oss.example/base", "S3_ADDRESSING_STYLE": "virtual"}, "https://pics.oss.example/base"),
        ({"S3_ENDPOINT_URL": "http://[::1]:9000"}, "http://[::1]:9000/pics"),
    ],
)  # fmt: skip
def test_the_bucket_is_in_the_host_or_in_the_path(environ: dict[str, str], expected: str) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    store = S3Store(S3Settings.from_variables({"S3_BUCKET": "pics", **keys, **environ}))
    assert store.signed_url("a/b.png", ttl_s=60).partition("?")[0] == f"{expected}/a/b.png"
