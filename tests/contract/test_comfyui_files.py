"""What a ComfyUI does with files: outputs of every kind, temporary ones, and uploads."""

import json
from pathlib import Path

import pytest

from comfypin.engine.interface import InputFile
from comfypin.workflow.errors import InputFileInvalid, WorkflowRejected
from tests.support.fake_comfyui import PNG, Canned
from tests.support.graphs import a_prompt, graph, loaded, node
from tests.support.scripted_comfyui import engine_at, follow


class TestTemporaryFiles:
    async def test_come_from_the_temp_folder(self) -> None:
        reports = {"2": {"images": [{"filename": "p.png", "subfolder": "s", "type": "temp"}]}}
        async with engine_at(reports=reports, files={"temp/s/p.png": PNG}) as (_, engine):
            prompt = a_prompt()
            await follow(engine, prompt)
            [file] = (await engine.outputs(prompt.prompt_id)).files
            assert file.folder == "temp"
            assert b"".join([chunk async for chunk in file.read()]) == PNG


class TestOutputKeys:
    async def test_every_dict_with_a_filename_is_an_output_under_any_key(self) -> None:
        reports = {
            "2": {
                "images": [{"filename": "a.png", "type": "output"}, None, True],
                "animated": [True],
                "gifs": [{"filename": "b.mp4", "type": "temp", "format": "video/h264-mp4", "fullpath": "/x/b.mp4"}],
                "audio": [{"filename": "c.flac", "subfolder": "audio"}],
                "3d": [{"filename": "d.glb", "subfolder": "mesh", "type": "output"}],
                "latents": [{"filename": "e.latent"}],
                "text": ["a caption"],
                "result": ["f.glb", None, {"position": "front"}],
                "odd": {"nested": [[{"filename": "g.bin"}]]},
            }
        }
        async with engine_at(reports=reports) as (_, engine):
            prompt = a_prompt()
            await follow(engine, prompt)
            outputs = await engine.outputs(prompt.prompt_id)
        assert [(file.key, file.filename, file.subfolder, file.folder) for file in outputs.files] == [
            ("images", "a.png", "", "output"),
            ("gifs", "b.mp4", "", "temp"),
            ("audio", "c.flac", "audio", "output"),
            ("3d", "d.glb", "mesh", "output"),
            ("latents", "e.latent", "", "output"),
            ("odd", "g.bin", "", "output"),
        ]
        assert outputs.texts == {"2": ("a caption", "f.glb")}


class TestUploads:
    async def test_each_job_has_a_folder_of_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "here.png").write_bytes(PNG)
        async with engine_at() as (fake, engine):
            prompts = [
                a_prompt(loaded(), InputFile(node_id="1", input_name="image", path=tmp_path / "here.png")) for _ in "ab"
            ]
            for prompt in prompts:
                await follow(engine, prompt)
            assert list(fake.uploads) == [f"comfypin/{prompt.prompt_id}/here.png" for prompt in prompts]

    async def test_the_name_that_the_engine_answers_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "here.png").write_bytes(PNG)
        async with engine_at() as (fake, engine):
            stored = {"name": "here (1).png", "subfolder": "elsewhere", "type": "input"}
            fake.say_next("POST /upload/image", Canned(body=json.dumps(stored).encode()))
            await follow(
                engine, a_prompt(loaded(), InputFile(node_id="1", input_name="image", path=tmp_path / "here.png"))
            )
            assert fake.asked("POST /prompt")[0]["prompt"]["1"]["inputs"]["image"] == "elsewhere/here (1).png"

    async def test_two_files_of_one_name_stay_two(self, tmp_path: Path) -> None:
        files = []
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "here.png").write_bytes(folder.encode())
            files.append(InputFile(node_id=folder, input_name="image", path=tmp_path / folder / "here.png"))
        both = graph(node("a", "LoadImage", image="x"), node("b", "LoadVideo", image="x"))
        async with engine_at() as (fake, engine):
            await follow(engine, a_prompt(both, *files))
            sent = fake.asked("POST /prompt")[0]["prompt"]
            assert [fake.uploads[sent[name]["inputs"]["image"]] for name in "ab"] == [b"a", b"b"]

    async def test_a_file_over_the_limit_is_refused_before_it_is_sent(self, tmp_path: Path) -> None:
        big = tmp_path / "film.mp4"
        with big.open("wb") as file:
            file.truncate(200_000_000)
        async with engine_at() as (fake, engine):
            with pytest.raises(InputFileInvalid, match=r"200\.0 MB.*at most 104\.9 MB.*upload limit raised to 201 MB"):
                await engine.submit(a_prompt(loaded(), InputFile(node_id="1", input_name="image", path=big)))
            assert fake.asked("POST /upload/image") == []

    async def test_a_413_says_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "film.mp4").write_bytes(bytes(2_000_000))
        async with engine_at(max_upload_size=1_000_000) as (_, engine):
            with pytest.raises(InputFileInvalid, match="upload limit"):
                await engine.submit(
                    a_prompt(loaded(), InputFile(node_id="1", input_name="image", path=tmp_path / "film.mp4"))
                )

    async def test_a_prompt_over_the_limit_is_rejected(self) -> None:
        async with engine_at() as (fake, engine):
            fake.say_next("POST /prompt", Canned(413, b"Maximum request body size 1048576 exceeded.", "text/plain"))
            with pytest.raises(WorkflowRejected, match="upload limit"):
                await engine.submit(a_prompt())
