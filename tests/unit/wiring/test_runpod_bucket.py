"""Runpod's three bucket variables: addresses that open, or a sentence before anything is started."""

import pytest

from comfypin import wiring
from comfypin.settings.environment import Settings
from comfypin.settings.errors import SettingMissing
from comfypin.storage.s3_settings import S3Settings

KEYS = {"BUCKET_ACCESS_KEY_ID": "id", "BUCKET_SECRET_ACCESS_KEY": "secret"}
WEEK_S = 604_800


@pytest.mark.parametrize(
    ("variables", "ttl_s"),
    [
        ({"BUCKET_ENDPOINT_URL": "https://b.s3.eu-west-1.amazonaws.com"}, WEEK_S),
        ({"BUCKET_ENDPOINT_URL": "https://minio.example.com:9000", "BUCKET_NAME": "b"}, WEEK_S),
        ({"BUCKET_ENDPOINT_URL": "https://b.s3.eu-west-1.amazonaws.com", "S3_SIGNED_URL_TTL": "0"}, 0),
        ({"BUCKET_ENDPOINT_URL": "https://b.s3.eu-west-1.amazonaws.com", "S3_PUBLIC_BASE_URL": "https://cdn.a.b"}, 0),
        ({"BUCKET_ENDPOINT_URL": "https://s3api-eu-ro-1.runpod.io/volume"}, 0),
        ({"S3_ENDPOINT_URL": "https://minio.example.com:9000", "S3_BUCKET": "b"}, 0),
    ],
)
def test_addresses_of_runpods_bucket_open_for_a_week(variables: dict[str, str], ttl_s: int) -> None:
    assert S3Settings.from_variables({**KEYS, **variables}).signed_url_ttl_s == ttl_s


def test_an_endpoint_without_a_bucket_is_refused() -> None:
    with pytest.raises(SettingMissing, match=r"^BUCKET_NAME is not set \(or S3_BUCKET\)"):
        wiring.open_sinks(Settings({"BUCKET_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com", **KEYS}))


def test_who_asks_for_base64_gets_it() -> None:
    variables = {"BUCKET_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com", "OUTPUT_MODE": "base64"}
    wiring.open_sinks(Settings({**variables, **KEYS}))
