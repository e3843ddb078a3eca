"""Which sources jobs may name: hosts in any notation, buckets by name, and nothing by accident."""

import pytest

from comfypin.errors import ConfigError
from comfypin.models.allowed_sources import AllowedSources


def allowed(*entries: str) -> AllowedSources:
    return AllowedSources.parse(
        entries, setting="--allow-models", hub="https://huggingface.co", civitai="https://civitai.com", http=False
    )


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("huggingface.co", "hf://org/repo/x.safetensors"),
        ("HuggingFace.co.", "https://HUGGINGFACE.co/org/repo/resolve/main/x.safetensors"),
        ("civitai.com", "civitai://7"),
        ("*.example.com", "https://a.b.example.com:8443/x"),
        ("*", "https://anything.example/x"),
        ("s3://mine", "S3://mine/key"),
    ],
)
def test_what_is_allowed_may_be_used(entry: str, address: str) -> None:
    allowed(entry).check(address, ValueError)


@pytest.mark.parametrize(
    ("entry", "address"),
    [
        ("huggingface.co", "https://huggingface.co.evil.example/x"),
        ("huggingface.co", "https://huggingface.co@evil.example/x"),
        ("*.example.com", "https://example.com/x"),
        ("*.example.com", "https://evilexample.com/x"),
        ("*", "s3://any/key"),
        ("*", "http://anything.example/x"),
        ("*", "file:///etc/passwd"),
        ("*", "/etc/passwd"),
        ("s3://mine", "s3://mine2/key"),
        ("s3://mine", "gs://mine/key"),
        ("s3://mine", "https://mine/key"),
    ],
)
def test_nothing_else_may_be_used(entry: str, address: str) -> None:
    with pytest.raises(ValueError, match=r"may not|must be"):
        allowed(entry).check(address, ValueError)


@pytest.mark.parametrize("entry", ["https://huggingface.co", "s3://mine/prefix", "a b", "*.", "**"])
def test_what_is_no_host_stops_the_start(entry: str) -> None:
    with pytest.raises(ConfigError, match="--allow-models has"):
        allowed(entry)
