"""How engines are started: which program, which arguments, which environment."""

import itertools
import json
import sys
from pathlib import Path

import pytest

from comfypin.engine.command import (
    ChildSpec,
    WorkFolder,
    child_environ,
    choose_python,
    comfyui_child,
    embedded_child,
    engine_arguments,
    has_gpu,
    model_paths,
)
from comfypin.engine.embedded.arguments import parse_arguments
from comfypin.engine.errors import EngineNotFound, EnginePythonNotFound
from comfypin.lock.model import EngineSpec
from comfypin.storage.registry import variable_prefixes


def install(main: Path, python: Path, flags: str = "") -> None:
    for file, text in ((main, ""), (python, ""), (main.parent / "comfy" / "cli_args.py", flags)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def child(home: Path, spec: EngineSpec | None = None, *, gpu: bool = True, models_dir: Path | None = None) -> ChildSpec:
    return comfyui_child(home, spec or EngineSpec(), {"PATH": "/bin"}, gpu=gpu, models_dir=models_dir)


@pytest.mark.parametrize("main", ["ComfyUI/main.py", "main.py"])
@pytest.mark.parametrize("python", [".venv/bin/python", "venv/bin/python"])
def test_every_layout_of_a_home_is_found(main: str, python: str, tmp_path: Path) -> None:
    install(tmp_path / main, tmp_path / python)
    assert child(tmp_path).argv == (str(tmp_path / python), str(tmp_path / main))


def test_a_venv_inside_comfyui_is_found(tmp_path: Path) -> None:
    install(tmp_path / "ComfyUI/main.py", tmp_path / "ComfyUI/.venv/bin/python")
    assert child(tmp_path).argv[0] == str(tmp_path / "ComfyUI/.venv/bin/python")


def test_a_python_that_is_a_link_is_not_resolved_for_a_venv_is_known_by_it(tmp_path: Path) -> None:
    install(tmp_path / "main.py", tmp_path / "real")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(tmp_path / "real")
    assert child(tmp_path).argv[0] == str(tmp_path / ".venv/bin/python")


def test_a_home_without_comfyui_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(EngineNotFound, match=r"ComfyUI/main\.py.*COMFY_HOME"):
        child(tmp_path)


def test_a_home_without_a_python_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    with pytest.raises(EnginePythonNotFound, match=r"\.venv/bin/python.*--python or COMFY_PYTHON"):
        child(tmp_path)


@pytest.mark.parametrize(
    "place", ["env/bin/python3", "conda/bin/python", "python_embeded/python", "../venv/bin/python"]
)
def test_the_python_of_every_kind_of_install_is_found(place: str, tmp_path: Path) -> None:
    home = tmp_path / "ComfyUI"
    install(home / "main.py", home / place)
    assert Path(child(home).argv[0]).resolve() == (home / place).resolve()


def a_python(path: Path, *, has_torch: bool) -> Path:
    """A program that answers as a Python does which has torch, or has not."""
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\nexit {0 if has_torch else 1}\n")
    path.chmod(0o755)
    return path


def test_without_an_environment_beside_it_the_first_python_with_torch_runs_it(tmp_path: Path) -> None:
    install(tmp_path / "comfy/ComfyUI/main.py", tmp_path / "elsewhere")
    ours = a_python(tmp_path / "ours/bin/python", has_torch=False)
    conda = a_python(tmp_path / "home/miniconda3/envs/comfy/bin/python", has_torch=True)
    environ = {"PATH": "/nowhere", "HOME": str(tmp_path / "home"), "VIRTUAL_ENV": str(ours.parent.parent)}
    home = tmp_path / "comfy/ComfyUI"
    assert choose_python(home, home / "main.py", environ) == conda


@pytest.mark.parametrize("named", ["other/bin/python", "other"])
def test_a_named_python_wins(named: str, tmp_path: Path) -> None:
    install(tmp_path / "main.py", tmp_path / ".venv/bin/python")
    other = a_python(tmp_path / "other/bin/python", has_torch=False)
    assert choose_python(tmp_path, tmp_path / "main.py", {}, named_python=tmp_path / named) == other


def test_everything_that_is_written_goes_into_the_work_folder(tmp_path: Path) -> None:
    flags = '"--user-directory" "--database-url"'
    install(tmp_path / "main.py", tmp_path / "venv/bin/python", flags)
    command = child(tmp_path).command_line(port=1234, work_folder=WorkFolder(Path("/w")))
    pairs = dict(itertools.pairwise(command))
    assert pairs["--listen"] == "127.0.0.1"
    assert pairs["--port"] == "1234"
    assert pairs["--input-directory"] == "/w/input"
    assert pairs["--output-directory"] == "/w/output"
    assert pairs["--temp-directory"] == "/w"
    assert pairs["--user-directory"] == "/w/user"
    assert pairs["--database-url"] == "sqlite:////w/user/comfyui.db"
    assert command[-1] == "--disable-auto-launch"


def test_options_that_an_old_comfyui_does_not_know_are_left_out(tmp_path: Path) -> None:
    install(tmp_path / "main.py", tmp_path / "venv/bin/python")
    assert "--database-url" not in child(tmp_path).command_line(port=1, work_folder=WorkFolder(Path("/w")))


def test_our_address_comes_after_the_lock_s_arguments(tmp_path: Path) -> None:
    install(tmp_path / "main.py", tmp_path / "venv/bin/python")
    command = child(tmp_path, EngineSpec(args=("--listen", "0.0.0.0", "--port", "80"))).command_line(
        port=1234, work_folder=WorkFolder(Path("/w"))
    )
    assert command.index("1234") > command.index("80")
    assert command.index("127.0.0.1") > command.index("0.0.0.0")


@pytest.mark.parametrize(
    "arguments, gpu, expected",
    [
        (("--lowvram",), True, ("--lowvram",)),
        (("--lowvram", "--fast"), False, ("--fast", "--cpu")),
        ((), False, ("--cpu",)),
        (("--cpu",), False, ("--cpu",)),
    ],
)
def test_a_machine_without_a_gpu_uses_its_cpu(arguments: tuple[str, ...], gpu: bool, expected: tuple[str, ...]) -> None:
    assert engine_arguments(arguments, gpu=gpu) == expected


def test_models_elsewhere_are_told_to_comfyui(tmp_path: Path) -> None:
    install(tmp_path / "main.py", tmp_path / "venv/bin/python")
    (tmp_path / "elsewhere/odd_kind").mkdir(parents=True)
    spec = child(tmp_path, models_dir=tmp_path / "elsewhere")
    assert "--extra-model-paths-config" in spec.command_line(port=1, work_folder=WorkFolder(Path("/w")))
    told = json.loads(model_paths(tmp_path / "elsewhere"))["comfypin"]
    assert (told["base_path"], told["odd_kind"], told["vae"]) == (str(tmp_path / "elsewhere"), "odd_kind", "vae")


def test_models_in_their_own_place_need_not_be_told(tmp_path: Path) -> None:
    install(tmp_path / "main.py", tmp_path / "venv/bin/python")
    assert child(tmp_path, models_dir=tmp_path / "models").models_dir is None


def test_the_embedded_engine_runs_in_our_python() -> None:
    spec = embedded_child(EngineSpec(kind="embedded", args=("--cache-none",)), {})
    assert spec.argv == (sys.executable, "-m", "comfypin.engine.embedded", "--cache-none")


SECRETS = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SESSION_TOKEN",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GCS_BUCKET",
    "RUNPOD_API_KEY",
    "RUNPOD_POD_ID",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "CIVITAI_API_KEY",
    "CIVITAI_TOKEN",
    "GITHUB_TOKEN",
    "MY_PASSWORD",
    "DB_PASS",
    "api_key",
    "OPENAI_API_KEY",
    "R2_SECRET",
    "BUCKET_ENDPOINT_URL",
    "SSH_AUTH_SOCK",
    "SENTRY_DSN",
    "PIP_INDEX_URL",
    "COMFY_ORG_APIKEY",
]
HARMLESS = [
    "PATH",
    "HOME",
    "LANG",
    "CUDA_VISIBLE_DEVICES",
    "HF_HOME",
    "LD_LIBRARY_PATH",
    "PWD",
    "TMPDIR",
    "MONKEY",
    "KEYBOARD_LAYOUT",
]


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_stay_with_us(name: str) -> None:
    assert name not in child_environ({name: "x"}, {}, same_python=True, secret_prefixes=variable_prefixes())


@pytest.mark.parametrize("name", HARMLESS)
def test_the_rest_goes_along(name: str) -> None:
    assert child_environ({name: "x"}, {}, same_python=True)[name] == "x"


def test_a_password_in_a_url_is_a_secret_but_a_proxy_is_needed() -> None:
    ours = {"DATABASE": "postgres://me:pw@host/db", "HTTPS_PROXY": "http://me:pw@proxy:1"}
    assert child_environ(ours, {}, same_python=True).keys() == {"HTTPS_PROXY", "PYTHONUNBUFFERED"}


def test_the_lock_hands_a_secret_on_by_naming_it() -> None:
    ours = {"HF_TOKEN": "t", "AWS_SECRET_ACCESS_KEY": "s"}
    wanted = {"HF_TOKEN": "$HF_TOKEN", "OTHER": "${HF_TOKEN}", "UNSET": "$NOT_THERE", "PLAIN": "a $HF_TOKEN"}
    environ = child_environ(ours, wanted, same_python=True)
    assert (environ["HF_TOKEN"], environ["OTHER"], environ["PLAIN"]) == ("t", "t", "a $HF_TOKEN")
    assert "UNSET" not in environ


def test_another_python_does_not_see_our_packages() -> None:
    ours = {"PYTHONPATH": "/ours", "VIRTUAL_ENV": "/ours"}
    assert child_environ(ours, {}, same_python=False).keys() == {"PYTHONUNBUFFERED"}
    assert child_environ(ours, {"PYTHONPATH": "/theirs"}, same_python=False)["PYTHONPATH"] == "/theirs"


@pytest.mark.parametrize(
    "device, environ, expected",
    [
        ("dev/nvidia0", {}, True),
        ("dev/kfd", {}, True),
        ("dev/null", {}, False),
        ("dev/nvidia0", {"CUDA_VISIBLE_DEVICES": ""}, False),
        ("dev/nvidia0", {"CUDA_VISIBLE_DEVICES": "0"}, True),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has its GPU in itself")
def test_a_gpu_is_known_by_its_device(device: str, environ: dict[str, str], expected: bool, tmp_path: Path) -> None:
    (tmp_path / device).parent.mkdir(parents=True)
    (tmp_path / device).touch()
    assert has_gpu(environ, tmp_path) is expected


def test_staged_models_are_looked_for_first(tmp_path: Path) -> None:
    (tmp_path / "nvme" / "mine").mkdir(parents=True)
    told = json.loads(model_paths(None, tmp_path / "nvme"))
    assert list(told) == ["comfypin_fast"]
    assert told["comfypin_fast"]["base_path"] == str(tmp_path / "nvme")
    assert told["comfypin_fast"]["is_default"] is True
    assert told["comfypin_fast"]["mine"] == "mine"
    assert list(json.loads(model_paths(tmp_path / "volume", tmp_path / "nvme"))) == ["comfypin", "comfypin_fast"]


def test_the_embedded_engine_is_the_comfyui_that_is_asked_for() -> None:
    argv = embedded_child(EngineSpec(kind="embedded"), {}, version="0.33.0").argv
    assert argv[-2:] == ("--comfyui-version", "0.33.0")


def test_a_lock_that_names_the_embedded_engines_version_wins() -> None:
    spec = EngineSpec(kind="embedded", args=("--comfyui-version", "0.3.64"))
    argv = embedded_child(spec, {}, version="0.33.0").argv
    assert parse_arguments(argv[3:]).release.version == "0.3.64"


def test_an_option_that_this_comfyui_gave_up_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(tmp_path / "main.py", tmp_path / "venv/bin/python", '"--lowvram" "--fast"')
    spec = EngineSpec(args=("--normalvram", "--disable-ipex-optimize", "--fast", "--not-known"))
    assert child(tmp_path, spec).argv[2:] == ("--fast", "--not-known")
    assert "--normalvram was left out" in caplog.text


def test_an_option_that_this_comfyui_has_goes_along(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    install(tmp_path / "main.py", tmp_path / "venv/bin/python", '"--normalvram" "--lowvram"')
    assert child(tmp_path, EngineSpec(args=("--normalvram",))).argv[2:] == ("--normalvram",)
    assert caplog.text == ""
