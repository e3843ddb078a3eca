"""Every code block of the pages is run, or says why not; what is not a command is read by its language's parser."""

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.integration.test_comfy_api_node import install_sdk
from tests.support.doc_blocks import PAGES, Block, english_of, is_russian, read_blocks
from tests.support.doc_scene import Scene, make_scene
from tests.support.object_servers import GcsServer, S3Server

ENGLISH = [page for page in PAGES if not is_russian(page)]
COMMANDS = ("sh", "console")
# Text is what is printed, and drawings.
LANGUAGES = (*COMMANDS, "python", "js", "json", "toml", "yaml", "text")


@dataclass(frozen=True)
class Setting:
    """What is there before a page is typed: locks, variables, and commands of earlier pages."""

    releases: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    before: str = ""


SETTINGS = {
    "index.md": Setting(before="python -m comfypin.engine.embedded --port $PORT_8188 2>/dev/null &"),
    "recipes.md": Setting(
        releases=("mine",), environ={"COMFY_HOME": "~/comfy", "S3_BUCKET": "pictures"}, before="comfypin realize mine"
    ),
    "envs.md": Setting(releases=("wan22",), environ={"COMFY_HOME": "/opt/comfy"}),
    "models.md": Setting(releases=("wan22", "flux"), before="comfypin models pull --lock flux"),
    "workflows.md": Setting(releases=("wan22",)),
    "jobs.md": Setting(before="comfypin serve --lock demo"),
    "sync.md": Setting(before="mkdir output; cp photo.png output"),
    "runpod.md": Setting(environ={"COMFY_VERSION_NAME": "demo", "PYTHONPATH": str(ROOT)}, before="mkdir /tmp/"),
    "comfygit.md": Setting(
        before="mkdir -p ~/comfygit/environments/my-project; cp -a ~/ComfyUI ~/comfygit/environments/my-project/;"
        "mv ~/comfygit/environments/my-project/{ComfyUI/,}.venv"
    ),
}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks_to_type(page: Path) -> list[Block]:
    return [one for one in read_blocks(page) if one.language in COMMANDS and not one.why_not_run and not one.run_by]


pages = pytest.mark.parametrize("page", PAGES, ids=name_of)


@pages
def test_a_block_has_a_language_and_a_note_that_is_true(page: Path) -> None:
    for block in read_blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: name its language ({', '.join(LANGUAGES)})"
        if block.run_by is not None:
            test = ROOT / block.run_by
            assert test.is_file(), f"{block.place}: {block.run_by} is not there"
            assert english_of(page).name in test.read_text() if is_russian(page) else page.name in test.read_text(), (
                block.place
            )


@pages
def test_data_and_programs_are_what_their_language_takes(page: Path, tmp_path: Path) -> None:
    for block in read_blocks(page):
        match block.language:
            case "json":
                json.loads(block.text)
            case "toml":
                tomllib.loads(block.text)
            case "yaml":
                yaml.safe_load(block.text)
            case "python":
                ast.parse(block.text)
            case "sh":
                assert subprocess.run(["bash", "-n"], input=block.text, text=True, check=False).returncode == 0, (
                    block.place
                )
            case _:
                pass


@pytest.mark.parametrize("page", [page for page in PAGES if is_russian(page)], ids=name_of)
def test_a_russian_page_has_the_blocks_of_the_english_one(page: Path) -> None:
    """So that what is run there is run here; comments and words in quotes are translated."""

    def without_words(block: Block) -> str:
        text = re.sub(r"(^|\s)(#|//) .*$", "", block.text, flags=re.MULTILINE)
        return re.sub(r'"[^"\n]*"', '""', re.sub(r"[ \t]+\n", "\n", text))

    assert [(one.language, without_words(one)) for one in read_blocks(page) if one.language != "text"] == [
        (one.language, without_words(one)) for one in read_blocks(english_of(page)) if one.language != "text"
    ]


@pytest.fixture(scope="session")
def stores(moto: S3Server, gcs: GcsServer) -> dict[str, str]:
    """The variables of servers that have the buckets which pages name."""
    for bucket in ("pictures", "my-bucket", "bucket"):
        moto.new_bucket(bucket)
        gcs.new_bucket(bucket)
    return {
        "S3_ENDPOINT_URL": moto.url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "...",
        "AWS_SECRET_ACCESS_KEY": "...",
        "STORAGE_EMULATOR_HOST": gcs.url,
    }


@pytest.fixture
def scene(page: Path, tmp_path: Path, stores: dict[str, str]) -> Iterator[Scene]:
    setting = SETTINGS.get(page.name, Setting())
    with make_scene(tmp_path, releases=setting.releases, environ=stores | dict(setting.environ)) as scene:
        yield scene


@pytest.mark.parametrize("page", [page for page in ENGLISH if blocks_to_type(page)], ids=name_of)
@pytest.mark.timeout(400)
@pytest.mark.needs("jq")
def test_the_commands_of_a_page_work_as_typed(page: Path, scene: Scene) -> None:
    blocks = [(block.place, block.text) for block in blocks_to_type(page)]
    exit_code, printed = scene.type_blocks(blocks, before=SETTINGS.get(page.name, Setting()).before)
    assert exit_code == 0, printed


@pytest.mark.parametrize("page", [ROOT / "docs/api.md"], ids=name_of)
@pytest.mark.timeout(400)
@pytest.mark.needs("npm")
@pytest.mark.network
def test_the_programs_of_the_api_page_work_against_a_server(page: Path, scene: Scene) -> None:
    """Comfy's own clients from registries, and Node's fetch; a program that follows events is read for a moment."""
    blocks = [block for block in read_blocks(page) if block.language in ("python", "js")]
    typed = []
    for block in blocks:
        text, is_endless = scene.adapt(block.text), "/events`" in block.text
        name = f"program_{block.line}.{'py' if block.language == 'python' else 'mjs'}"
        # The page's last program takes both from the reader.
        given = "const server = process.env.COMFY_BASE_URL, token = process.env.TOKEN;\n" if is_endless else ""
        (scene.folder / name).write_text(given + text)
        run = f"{'python' if block.language == 'python' else 'node'} {name}"
        typed.append((block.place, f"(timeout 5 {run} || true) | grep snapshot" if is_endless else run))
    typed.append(("outputs", "ls -l out.png uploaded_*.png"))
    install_sdk(scene.folder)
    server = "comfypin serve --lock demo; export COMFY_BASE_URL=http://127.0.0.1:$PORT_8000 COMFY_API_KEY=$TOKEN"
    exit_code, printed = scene.type_blocks(typed, before=server)
    assert exit_code == 0, printed
