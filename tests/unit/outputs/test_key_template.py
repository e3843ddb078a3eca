"""Keys of outputs: what a template gives, that keys stay inside their prefix, and that none is there twice."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfypin.digest import Digest
from comfypin.lock.model import Release
from comfypin.outputs.interface import JobFacts, Output
from comfypin.outputs.key_template import JobKeys, KeyTemplate, TemplateInvalid, safe_word
from comfypin.storage.errors import KeyInvalid

DAY = date(2026, 3, 4)


def an_output(index: int = 0, **changes: object) -> Output:
    output = Output(
        index=index,
        node_id="9",
        kind="image",
        filename="cat_00001_.png",
        subfolder="",
        media_type="image/png",
        size_bytes=1,
        sha256=Digest.of(b"x"),
        path=Path("/nowhere"),
    )
    return replace(output, **changes)  # type: ignore[arg-type]


def keys(template: str, *outputs: Output, job_id: str = "job-1", prefix: str = "p") -> JobKeys:
    job = JobFacts(job_id=job_id, release=Release(name="wan22", digest=Digest.of(b"lock")))
    return KeyTemplate.parse(template).make_keys(job, outputs, prefix=prefix, day=DAY)


DIGEST = Digest.of(b"x").hex


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("{prefix}/{job_id}/{filename}", "p/job-1/cat_00001_.png"),
        ("{job_id}/{filename}", "p/job-1/cat_00001_.png"),
        ("{prefix}/{date}/{release}/{job_id}-{node}-{counter:03}.{ext}", "p/2026-03-04/wan22/job-1-9-001.png"),
        ("{digest}.{ext}", f"p/{DIGEST}.png"),
        ("{job_id}/{subfolder}/{stem}_{counter}.{ext}", "p/job-1/cat_00001__1.png"),
    ],
)
def test_a_template_is_filled_in(template: str, key: str) -> None:
    assert keys(template, an_output()).outputs == (key,)


def test_a_subfolder_may_be_a_part_of_keys() -> None:
    assert keys("{job_id}/{subfolder}/{filename}", an_output(subfolder="a/b")).outputs == (
        "p/job-1/a/b/cat_00001_.png",
    )


@pytest.mark.parametrize(
    "template",
    [
        "{prefix}/{filename}",
        "{job_id",
        "{job_id}/{nothing}",
        "{job_id.__class__}",
        "{job_id!r}",
        "{job_id:>99}",
        "{0}",
        "{job_id}/../{filename}",
        "/{job_id}",
        "{job_id}//{filename}",
        "",
    ],
)
def test_a_template_that_cannot_be_kept_to_is_refused(template: str) -> None:
    with pytest.raises(TemplateInvalid):
        KeyTemplate.parse(template)


@pytest.mark.parametrize(
    ("template", "manifest"),
    [
        ("{job_id}/{filename}", "p/job-1/manifest.json"),
        ("{date}/{job_id}/{filename}", "p/2026-03-04/job-1/manifest.json"),
        ("{digest}.{ext}", "p/job-1/manifest.json"),
        ("{job_id}/{node}/{filename}", "p/job-1/manifest.json"),
        ("{job_id}-{filename}", "p/job-1/manifest.json"),
    ],
)
def test_the_manifest_lies_beside_the_outputs_where_the_folder_is_the_jobs(template: str, manifest: str) -> None:
    assert keys(template, an_output()).manifest == manifest


def test_outputs_of_one_name_get_different_keys() -> None:
    found = keys("{job_id}/{filename}", an_output(0), an_output(1), an_output(2, filename="b.png"))
    assert found.outputs == ("p/job-1/cat_00001_.png", "p/job-1/cat_00002_.png", "p/job-1/b.png")


def test_an_output_cannot_take_the_manifests_place() -> None:
    found = keys("{job_id}/{filename}", an_output(filename="manifest.json"))
    assert found.outputs == ("p/job-1/manifest-2.json",)


def test_no_prefix_is_a_prefix_too() -> None:
    assert keys("{job_id}/{filename}", an_output(), prefix="").outputs == ("job-1/cat_00001_.png",)


def test_a_key_that_no_store_takes_is_refused() -> None:
    with pytest.raises(KeyInvalid, match="1024"):
        keys("{job_id}/{filename}", an_output(), prefix="x" * 1010)


@given(job_id=st.text(max_size=300), filename=st.text(max_size=300), subfolder=st.text(max_size=100))
def test_no_name_whatever_leaves_the_jobs_prefix(job_id: str, filename: str, subfolder: str) -> None:
    output = an_output(filename=filename, subfolder=subfolder)
    (key,) = keys("{job_id}/{subfolder}/{filename}", output, job_id=job_id).outputs
    parts = key.split("/")
    assert parts[:2] == ["p", safe_word(job_id)]
    assert not {"", ".", ".."} & set(parts)


@given(st.text(max_size=120), st.text(max_size=120))
def test_different_jobs_never_share_a_key(one: str, other: str) -> None:
    assert (safe_word(one) == safe_word(other)) == (one == other)


@given(st.lists(st.text(max_size=12), max_size=12))
def test_no_key_is_there_twice(filenames: list[str]) -> None:
    found = keys("{job_id}/{filename}", *(an_output(index, filename=name) for index, name in enumerate(filenames)))
    assert len({*found.outputs, found.manifest}) == len(filenames) + 1
