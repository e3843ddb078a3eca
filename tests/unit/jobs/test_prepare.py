"""What a caller asks for becomes a job, or one report of all that is wrong with it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import pytest

from comfypin.digest import Digest
from comfypin.jobs.job import Job
from comfypin.jobs.prepare import RunRequest, prepare_job
from comfypin.lock.codec import lock_digest, release_identity
from comfypin.lock.model import EngineSpec, Lock
from comfypin.testing import FAKE_CATALOGUE
from comfypin.workflow.document import read_document
from comfypin.workflow.errors import InputFileInvalid, OverrideInvalid, WorkflowInvalid
from comfypin.workflow.object_info import InputSpec, NodeDefinition
from comfypin.workflow.overrides import parse_override
from tests.support.ui_graphs import node, ui

LOCK = Lock(version_name="test", engine=EngineSpec(kind="embedded"))
NOW = datetime(2026, 3, 4, 5, 6, 7)
WORKFLOW = """{
  "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
  "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "%date:yyyy-MM-dd%/cat"}}
}"""


def a_request(folder: Path, workflow: str = WORKFLOW) -> RunRequest:
    return RunRequest(
        document=read_document(workflow, source="w.json"), job_id="job", submission_id="first", input_folder=folder
    )


# Of core classes the engine's own checks are known.
CATALOGUE = {name: {**definition, "python_module": "nodes"} for name, definition in FAKE_CATALOGUE.items()}


def prepared(request: RunRequest) -> Job:
    return prepare_job(request, lock=LOCK, catalogue=CATALOGUE, now=NOW, release=release_identity(LOCK))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photo.png").write_bytes(b"a photo")
    return tmp_path


def test_a_job_knows_its_release_and_its_input_files(folder: Path) -> None:
    job = prepared(a_request(folder))
    assert job.release.digest == lock_digest(LOCK)
    assert [file.path for file in job.inputs] == [folder / "photo.png"]
    assert job.input_digests == {"photo.png": Digest.of(b"a photo")}


class CountedDefinition(NodeDefinition):
    """A class's definition that counts how often its inputs are parsed."""

    parsed = 0

    @cached_property
    def specs(self) -> Mapping[str, InputSpec]:
        self.parsed += 1
        return super().specs


def test_the_inputs_of_a_class_are_parsed_once_a_run(folder: Path) -> None:
    images = {str(number): {"class_type": "LoadImage", "inputs": {"image": "photo.png"}} for number in range(3, 9)}
    catalogue = {name: CountedDefinition(definition) for name, definition in CATALOGUE.items()}
    request = a_request(folder, json.dumps({**json.loads(WORKFLOW), **images}))
    for _ in range(2):
        prepare_job(request, lock=LOCK, catalogue=catalogue, now=NOW)
    assert catalogue["LoadImage"].parsed == 1


def test_dates_are_filled_in_and_the_users_own_name_is_kept(folder: Path) -> None:
    job = prepared(a_request(folder))
    assert job.graph.nodes["2"].inputs["filename_prefix"] == "2026-03-04/cat"


def test_the_graph_for_a_second_try_has_the_mark_before_the_name(folder: Path) -> None:
    job = prepared(a_request(folder))
    assert job.mark is not None
    assert job.marked_graph is not None
    assert job.marked_graph.nodes["2"].inputs["filename_prefix"] == f"2026-03-04/{job.mark.text}cat"


def test_the_tag_is_the_same_for_the_same_job_and_another_for_another(folder: Path) -> None:
    def tag_of(request: RunRequest) -> object:
        return prepared(request).graph.nodes["2"].inputs["comfypin"]

    request = a_request(folder)
    assert tag_of(request) == tag_of(replace(request, submission_id="second"))
    others = [
        replace(request, overrides=(parse_override("SaveImage.filename_prefix=dog"),)),
        replace(request, extra_data={"extra_pnginfo": {"workflow": {"a": 1}}}),
    ]
    assert len({tag_of(request), *map(tag_of, others)}) == 3
    (folder / "photo.png").write_bytes(b"another photo")
    assert tag_of(request) not in {*map(tag_of, others)}


def test_other_seeds_of_a_workflow_without_one_are_warned_of(folder: Path) -> None:
    request = replace(a_request(folder), randomize_seeds=True)
    assert prepared(request).warnings == ("The workflow has no seed, so it makes the same again.",)
    assert not prepared(a_request(folder)).warnings


SAVED = ui(
    [
        node(1, "LoadImage", ["photo.png"]),
        node(2, "SaveImage", ["%date:yyyy-MM-dd%/cat"], wires={"images": 1}, pos=[400, 50]),
    ],
    [[1, 1, 0, 2, 0, "IMAGE"]],
)


def opened(job: Job) -> list[object]:
    pnginfo = job.extra_data["extra_pnginfo"]
    assert isinstance(pnginfo, dict)
    return [one["widgets_values"] for one in pnginfo["workflow"]["nodes"]]


def test_the_saved_workflow_holds_the_values_of_the_job(folder: Path) -> None:
    request = a_request(folder, json.dumps(SAVED))
    assert opened(prepared(request)) == [["photo.png"], ["%date:yyyy-MM-dd%/cat"]]
    (folder / "cat.png").write_bytes(b"a cat")
    other = replace(
        request,
        input_files=(f"1={folder / 'cat.png'}",),
        overrides=(parse_override("2.filename_prefix=%date:yyyy%/dog"),),
    )
    job = prepared(other)
    assert job.graph.nodes["2"].inputs["filename_prefix"] == "2026/dog"
    # The page fills the date in when it runs the workflow again.
    assert opened(job) == [["cat.png"], ["%date:yyyy%/dog"]]


def test_a_workflow_that_came_beside_a_prompt_follows_its_values_or_is_left_out(folder: Path) -> None:
    request = a_request(folder, json.dumps({"prompt": json.loads(WORKFLOW)}))
    beside = replace(request, extra_data={"extra_pnginfo": {"workflow": SAVED, "other": 1}})
    assert opened(prepared(beside)) == [["photo.png"], ["%date:yyyy-MM-dd%/cat"]]
    changed = replace(beside, overrides=(parse_override("2.filename_prefix=dog"),))
    assert opened(prepared(changed)) == [["photo.png"], ["dog"]]
    strange = {"workflow": ui([node(7, "LoadImage", ["photo.png"])]), "other": 1}
    job = prepared(replace(changed, extra_data={"extra_pnginfo": strange}))
    assert job.extra_data["extra_pnginfo"] == {"other": 1}
    assert [warning for warning in job.warnings if "cannot hold this job's values" in warning]


@pytest.mark.parametrize("text", ["%basename%", "%counter%"])
def test_a_text_that_nothing_fills_in_is_named_in_a_warning(text: str, folder: Path) -> None:
    job = prepared(a_request(folder, WORKFLOW.replace("%date:yyyy-MM-dd%/cat", f"%width%_{text}")))
    assert [warning.partition(",")[0] for warning in job.warnings] == [f"Node 2 names its files with {text}"]


def test_an_input_file_is_named_by_its_bytes(folder: Path) -> None:
    job = prepared(a_request(folder))
    assert [file.digest for file in job.inputs] == [Digest.of_file(folder / "photo.png")]


def test_two_submissions_of_one_job_have_marks_of_their_own(folder: Path) -> None:
    request = a_request(folder)
    assert prepared(request).mark != prepared(replace(request, submission_id="second")).mark


def test_a_load_node_can_be_pointed_at_another_file(folder: Path) -> None:
    other = folder / "other.png"
    other.write_bytes(b"another")
    job = prepared(replace(a_request(folder), input_files=(f"LoadImage={other}",)))
    assert [file.path for file in job.inputs] == [other]
    assert job.graph.nodes["1"].inputs["image"] == "other.png"


def test_a_file_that_is_not_there_is_told_with_the_closest_names(folder: Path) -> None:
    workflow = WORKFLOW.replace("photo.png", "foto.png")
    with pytest.raises(WorkflowInvalid, match=r"foto\.png.*photo\.png.*--input 1=FILE"):
        prepared(a_request(folder, workflow))


def test_a_file_given_for_a_node_must_be_there(folder: Path) -> None:
    with pytest.raises(InputFileInvalid):
        prepared(replace(a_request(folder), input_files=("1=/nowhere/photo.png",)))


def test_overrides_change_the_graph(folder: Path) -> None:
    job = prepared(replace(a_request(folder), overrides=(parse_override("SaveImage.filename_prefix=dog"),)))
    assert job.graph.nodes["2"].inputs["filename_prefix"] == "dog"


def test_an_override_of_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(OverrideInvalid):
        prepared(replace(a_request(folder), overrides=(parse_override("99.text=x"),)))


def test_everything_wrong_is_said_at_once(folder: Path) -> None:
    workflow = """{
      "1": {"class_type": "LoadImgae", "inputs": {}},
      "2": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}
    }"""
    with pytest.raises(WorkflowInvalid) as caught:
        prepared(a_request(folder, workflow))
    assert "LoadImage" in caught.value.message
    assert {finding["node"] for finding in caught.value.findings} == {"1", "2"}


def test_an_empty_workflow_is_the_smoke_test(folder: Path) -> None:
    job = prepared(a_request(folder, "{}"))
    assert {node.class_type for node in job.graph.nodes.values()} == {"EmptyImage", "SaveImage"}


def test_a_workflow_from_windows_runs_with_warnings(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "photo.png").write_bytes(b"another photo")
    windows = WORKFLOW.replace("photo.png", "sub\\\\photo.png").replace("%date:yyyy-MM-dd%/cat", "cats\\\\cat")
    job = prepared(a_request(folder, windows))
    assert job.graph.nodes["2"].inputs["filename_prefix"] == "cats/cat"
    assert [file.path for file in job.inputs] == [folder / "sub" / "photo.png"]
    assert [warning.partition(":")[0] for warning in job.warnings] == ["node 2 (SaveImage), input filename_prefix"]


def test_a_class_that_another_one_replaced_runs_with_a_warning(folder: Path) -> None:
    classes = {**CATALOGUE, "ConditioningAverage": CATALOGUE["SaveImage"]}
    request = a_request(folder, WORKFLOW.replace("SaveImage", "ConditioningAverage "))
    job = prepare_job(request, lock=LOCK, catalogue=classes, now=NOW)
    assert job.graph.nodes["2"].class_type == "ConditioningAverage"
    assert "'ConditioningAverage '" in job.warnings[0]


def test_names_of_app_mode_can_be_set_beside_all_others(folder: Path) -> None:
    workflow = ui(
        [node(1, "LoadImage", ["photo.png"]), node(2, "SaveImage", ["cat"], wires={"images": 1})],
        [[1, 1, 0, 2, 0, "IMAGE"]],
        extra={"linearData": {"inputs": [["root:2:filename_prefix", "Call it"]]}},
    )
    for override in ("Call it=dog", "2.filename_prefix=dog", "SaveImage.filename_prefix=dog"):
        request = replace(a_request(folder, json.dumps(workflow)), overrides=(parse_override(override),))
        assert str(prepared(request).graph.nodes["2"].inputs["filename_prefix"]).endswith("dog")
