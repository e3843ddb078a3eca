"""Variables of an image: facts go in, secrets do not."""

import re

import pytest

from comfypin.image.build_context import render_dockerfile, set_defaults
from comfypin.image.errors import VariableRefused
from comfypin.image.image_variables import read_variables
from tests.conftest import ROOT

TEMPLATE = (ROOT / "docker" / "Dockerfile").read_text()


def test_variables_are_lines_of_the_dockerfile() -> None:
    variables = read_variables(["OUTPUT_FORMAT=webp", 'GREETING=a "b" $c \\d', "OUTPUT_FORMAT=png"])
    dockerfile = render_dockerfile(TEMPLATE, 0, variables)
    assert 'ENV OUTPUT_FORMAT="png"\n' in dockerfile
    assert 'ENV GREETING="a \\"b\\" \\$c \\\\d"\n' in dockerfile
    assert "[variables]" not in dockerfile


def test_without_variables_nothing_is_left_of_their_block() -> None:
    assert "variables]" not in render_dockerfile(TEMPLATE, 0)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("HF_TOKEN=hf_s3cret", "looks like a secret"),
        ("SETTINGS=hf_" + "s3cret" * 5, "looks like a secret"),
        ("S3_URL=https://user:s3cret@host/", "looks like a secret"),
        ('GOOGLE_APPLICATION_CREDENTIALS={"private_key": "s3cret"}', "looks like a secret"),
        ("A=s3cret\nRUN rm -rf /", "line breaks"),
        ("PATH=/s3cret", "sets it itself"),
        ("COMFY_VERSION_NAME=s3cret", "sets it itself"),
        ("NAME", "write --env NAME=VALUE"),
        ("1X=s3cret", "not NAME=VALUE"),
    ],
)
def test_what_is_no_part_of_an_image_is_refused_and_not_shown(assignment: str, words: str) -> None:
    with pytest.raises(VariableRefused, match=words) as refused:
        read_variables([assignment])
    assert "s3cret" not in refused.value.message


def test_a_context_alone_says_all_that_a_build_is_told() -> None:
    arguments = {"BASE": "python:3.12-slim-bookworm", "BAKE_ENV": "yes", "SYSTEM_PACKAGES": "ffmpeg git"}
    dockerfile = set_defaults(TEMPLATE, arguments)
    told = dict(re.findall(r'^ARG (\w+)="(.*)"$', dockerfile, re.MULTILINE))
    assert {name: told[name] for name in arguments} == arguments
