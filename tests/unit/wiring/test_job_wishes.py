"""What a job wishes for its outputs: typed values over the server's own, refused by the names of the job's fields."""

import pytest

from comfypin import wiring
from comfypin.errors import ConfigError
from comfypin.jobs.errors import JobInvalid
from comfypin.jobs.job_input import OutputWish, S3Wish
from comfypin.outputs.delivery_settings import OutputConfig
from comfypin.outputs.image_format import ConvertingSink, ImageConversion
from comfypin.settings.environment import Settings
from comfypin.settings.errors import SettingInvalid

BASE64 = Settings({"OUTPUT_MODE": "base64", "OUTPUT_FORMAT": "webp", "OUTPUT_QUALITY": "70"})


@pytest.mark.parametrize("template", ["{filename}", "{job_id}/{nothing}", "", "{job_id"])
def test_a_wrong_template_is_reported_as_the_field_of_the_job(template: str) -> None:
    sink_for = wiring.open_sinks(BASE64)
    with pytest.raises(JobInvalid, match=r"output\.template is ") as caught:
        sink_for(OutputWish(template=template), None)
    assert "OUTPUT_KEY_TEMPLATE" not in str(caught.value)
    assert not isinstance(caught.value, ConfigError)


def test_a_wrong_template_of_the_server_is_reported_as_its_variable() -> None:
    with pytest.raises(SettingInvalid, match=r"^OUTPUT_KEY_TEMPLATE is "):
        wiring.open_sinks(Settings({"OUTPUT_MODE": "base64", "OUTPUT_KEY_TEMPLATE": "{filename}"}))


def test_a_worker_refuses_its_own_disk_by_the_field_of_the_job() -> None:
    with pytest.raises(JobInvalid, match=r"output\.mode is file"):
        wiring.open_sinks(BASE64)(OutputWish(mode="file"), None)


@pytest.mark.parametrize("field", ["bucketName", "endpointUrl", "accessId"])
def test_a_wrong_bucket_of_the_job_is_reported_as_its_field(field: str) -> None:
    given = {"bucketName": "b", "endpointUrl": "https://s3.example.com", "accessId": "a", "accessSecret": "b"}
    wish = S3Wish.model_validate({**given, field: "a b//c"})
    with pytest.raises(JobInvalid, match=rf"s3Config\.{field} "):
        wiring.open_sinks(BASE64)(OutputWish(), wish)


def test_what_a_job_does_not_wish_is_as_the_server_does_it() -> None:
    sink = wiring.open_sinks(BASE64)(OutputWish(quality=20), None)
    assert isinstance(sink, ConvertingSink)
    usual = OutputConfig.from_variables(BASE64.variables)
    assert usual.with_wishes(quality=20).conversion == ImageConversion(format="webp", quality=20)
    assert usual.with_wishes(keep_workflow=False).conversion == ImageConversion(
        format="webp", quality=70, keep_workflow=False
    )
    assert usual.with_wishes() == usual


def test_equal_wishes_share_a_sink() -> None:
    sink_for = wiring.open_sinks(BASE64)
    assert sink_for(OutputWish(quality=20), None) is sink_for(OutputWish(quality=20), None)
    assert sink_for(OutputWish(quality=20), None) is not sink_for(OutputWish(quality=21), None)
