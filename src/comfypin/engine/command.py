"""Describes how to start an engine as a child process: program, arguments, environment. Starts nothing itself."""

import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from comfypin.engine.errors import EngineNotFound, EnginePythonNotFound
from comfypin.engine.find_python import find_python
from comfypin.engine.host import LocalFolders
from comfypin.lock.model import EngineSpec

log = logging.getLogger(__name__)

# Whoever can read the engine's environment (every custom node can) must not find our keys there. These are what clouds
# and tools set; the caller adds what the kinds of stores read.
_SECRET_PREFIXES = (
    "AWS_", "AZURE_", "CIVITAI", "CLOUDSDK_", "GCLOUD_", "GCP_", "GITHUB_", "GIT_", "GOOGLE_", "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN", "KUBERNETES_", "OBSTORE_", "RUNPOD_", "SSH_", "UV_", "PIP_",
)  # fmt: skip
# Whole words between underscores, so that MONKEY or TOKENIZERS_PARALLELISM is not taken for a secret.
_SECRET_WORD = re.compile(
    r"(^|_)(API_?KEYS?|AUTH|AUTHORIZATION|CREDENTIALS?|DSN|JWT|KEYS?|PASS|PASSPHRASE|PASSWD|PASSWORD|PAT|PRIVATE|PWD"
    r"|SAS|SECRETS?|SIGNATURE|TOKENS?)(_|$)"
)
# The shell's working directory, which the pattern would take for a password.
_NOT_SECRET = frozenset({"PWD"})
# A secret may hide in a variable with a harmless name, such as DATABASE_URL.
_URL_WITH_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
# The child's Python is another one: these would make it load our packages.
_OUR_PYTHON = frozenset({"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "PYTHONSTARTUP"})
_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")

# argparse refuses --cpu beside any of these.
_MEMORY_MODES = frozenset({"--gpu-only", "--highvram", "--normalvram", "--lowvram", "--novram"})
# Options that newer versions gave up, because what they asked for became the default there.
_RETIRED = frozenset({"--normalvram", "--disable-ipex-optimize"})
# ComfyUI's own folder names: https://github.com/comfyanonymous/ComfyUI/blob/master/folder_paths.py
MODEL_FOLDERS = (
    "audio_encoders", "checkpoints", "clip_vision", "configs", "controlnet", "diffusion_models", "embeddings",
    "gligen", "hypernetworks", "loras", "photomaker", "style_models", "text_encoders", "upscale_models", "vae",
    "vae_approx",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """Describes the program to start, without the port and the folders, which change with each start.

    `options` are the long options that the program knows; None if it takes the five that all our engines have.
    """

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    cwd: Path | None = None
    options: frozenset[str] | None = None
    models_dir: Path | None = None
    fast_models_dir: Path | None = None

    def command_line(self, *, port: int, work_folder: "WorkFolder") -> list[str]:
        """Return the whole command line. Our address and folders win over the lock's arguments."""
        arguments = {
            "--listen": "127.0.0.1",
            "--port": str(port),
            "--input-directory": str(work_folder.engine_folders.input),
            "--output-directory": str(work_folder.engine_folders.output),
            # ComfyUI makes its folder `temp` inside the one that it is given.
            "--temp-directory": str(work_folder.engine_folders.temp.parent),
        }
        if self._supports_option("--user-directory"):
            arguments["--user-directory"] = str(work_folder.user_folder)
        if self._supports_option("--database-url"):
            arguments["--database-url"] = f"sqlite:///{work_folder.user_folder / 'comfyui.db'}"
        if self.models_dir is not None or self.fast_models_dir is not None:
            arguments["--extra-model-paths-config"] = str(work_folder.model_paths_file)
        return [*self.argv, *(argument for pair in arguments.items() for argument in pair), "--disable-auto-launch"]

    def _supports_option(self, option: str) -> bool:
        return self.options is not None and option in self.options and option not in self.argv


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """Holds everything an engine writes: inputs, outputs, user folder and log, outside the read-only install."""

    root: Path

    @property
    def engine_folders(self) -> LocalFolders:
        """Return the three folders that the API knows."""
        return LocalFolders(input=self.root / "input", output=self.root / "output", temp=self.root / "temp")

    @property
    def user_folder(self) -> Path:
        """Return the folder for settings and the database."""
        return self.root / "user"

    @property
    def log_path(self) -> Path:
        """Return the path of the engine's log."""
        return self.root / "engine.log"

    @property
    def model_paths_file(self) -> Path:
        """Return the path of the file that lists further model folders."""
        return self.root / "extra_model_paths.yaml"

    def create_folders(self, models_dir: Path | None, fast_models_dir: Path | None = None) -> None:
        """Create the folders, and the file that lists the model folders."""
        for folder in (
            self.engine_folders.input,
            self.engine_folders.output,
            self.engine_folders.temp,
            self.user_folder,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        if models_dir is not None or fast_models_dir is not None:
            self.model_paths_file.write_text(model_paths(models_dir, fast_models_dir))


def comfyui_child(
    home: Path,
    engine: EngineSpec,
    environ: Mapping[str, str],
    *,
    gpu: bool,
    python: Path | None = None,
    models_dir: Path | None = None,
    fast_models_dir: Path | None = None,
    secret_prefixes: tuple[str, ...] = (),
) -> ChildSpec:
    """Describe a ComfyUI from an env: `home/ComfyUI/main.py` or `home/main.py`. Raises `EngineNotFound`."""
    # An env of comfypin has ComfyUI in a folder of its own; other people's installs are that folder.
    main = _first_file((home / "ComfyUI" / "main.py", home / "main.py"), home)
    python = choose_python(home, main, environ, named_python=python)
    options = _known_options(main.parent / "comfy" / "cli_args.py")
    arguments = engine_arguments(_without_retired(engine.args, options), gpu=gpu)
    return ChildSpec(
        # Not resolved: a virtual environment's Python is a link, and finds its packages by where the link is.
        argv=(str(python.absolute()), str(main.absolute()), *arguments),
        environ=child_environ(environ, engine.env, same_python=False, secret_prefixes=secret_prefixes),
        cwd=main.parent.absolute(),
        options=options,
        models_dir=_other_models(models_dir, main.parent),
        fast_models_dir=fast_models_dir.absolute() if fast_models_dir is not None else None,
    )


def choose_python(home: Path, main: Path, environ: Mapping[str, str], *, named_python: Path | None = None) -> Path:
    """Return the Python that runs `main`: the named one (a program or an environment), else the one that is found.

    Raises `EnginePythonNotFound`.
    """
    if named_python is not None:
        # --python may name the environment, as --venv of `lock capture` does.
        candidates: tuple[Path, ...] = (
            (named_python / "bin/python", named_python / "python") if named_python.is_dir() else (named_python,)
        )
        existing_python = next((candidate for candidate in candidates if candidate.is_file()), None)
    else:
        existing_python, candidates = find_python(home, main, environ)
    if existing_python is None:
        raise EnginePythonNotFound(
            main=str(main), looked_for=tuple(map(str, candidates)), named=named_python is not None
        )
    return existing_python


def embedded_child(
    engine: EngineSpec,
    environ: Mapping[str, str],
    *,
    version: str | None = None,
    secret_prefixes: tuple[str, ...] = (),
) -> ChildSpec:
    """Describe the embedded engine, in this Python, as ComfyUI `version` unless the lock's arguments name one."""
    release = () if version is None else ("--comfyui-version", version)
    return ChildSpec(
        argv=(sys.executable, "-m", "comfypin.engine.embedded", *release, *engine.args),
        environ=child_environ(environ, engine.env, same_python=True, secret_prefixes=secret_prefixes),
    )


def engine_arguments(arguments: Iterable[str], *, gpu: bool) -> tuple[str, ...]:
    """Return the lock's arguments; without a GPU, add --cpu and drop the options that exclude it."""
    arguments = tuple(arguments)
    # ComfyUI ends at once if torch finds no GPU and nothing told it to do without.
    if gpu or "--cpu" in arguments or "--directml" in arguments:
        return arguments
    return (*(argument for argument in arguments if argument not in _MEMORY_MODES), "--cpu")


def _known_options(cli_args: Path) -> frozenset[str]:
    """Return the long options that a ComfyUI declares; none if it is too old to have the file."""
    source_code = cli_args.read_text() if cli_args.is_file() else ""
    return frozenset(re.findall(r"--[a-z][a-z0-9_-]+", source_code))


def _without_retired(arguments: Iterable[str], options: frozenset[str]) -> tuple[str, ...]:
    """Drop the arguments that this ComfyUI gave up: newer versions exit at once when they get one."""
    remaining = []
    for argument in arguments:
        # An empty set of options means that the program could not be read, so nothing is known to be retired.
        if argument in _RETIRED and options and argument not in options:
            log.warning(
                "%s was left out: this ComfyUI no longer has that option",
                argument,
                extra={"action": "engine_option_retired", "option": argument},
            )
        else:
            remaining.append(argument)
    return tuple(remaining)


def child_environ(
    ours: Mapping[str, str], wanted: Mapping[str, str], *, same_python: bool, secret_prefixes: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return our environment without secrets, plus the lock's `engine.env`; `secret_prefixes` are further secrets'.

    A value `$NAME` or `${NAME}` passes on our variable of that name, secret or not; an unset one is left out.
    """
    environ = {
        variable_name: value
        for variable_name, value in ours.items()
        if not _is_secret(variable_name, value, secret_prefixes)
    }
    if not same_python:
        environ = {variable_name: value for variable_name, value in environ.items() if variable_name not in _OUR_PYTHON}
    # Otherwise the last lines before a crash stay in the dead process's buffer.
    environ["PYTHONUNBUFFERED"] = "1"
    for variable_name, value in wanted.items():
        reference = _REFERENCE.fullmatch(value)
        defined = ours.get(reference[1] or reference[2]) if reference else value
        if defined is not None:
            # After the secrets are gone: what the lock names is passed on purpose.
            environ[variable_name] = defined
    return environ


def has_gpu(environ: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Return whether PyTorch could find an accelerator here: NVIDIA, AMD, Intel or WSL devices, or a Mac."""
    if environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or environ.get("NVIDIA_VISIBLE_DEVICES") in ("none", "void"):
        return False
    # Importing torch to ask it would take seconds; device files answer at once.
    devices = ("dev/nvidia0", "dev/nvidiactl", "proc/driver/nvidia/gpus", "dev/kfd", "dev/dxg")
    return sys.platform == "darwin" or any((root / device).exists() for device in devices)


def model_paths(models_dir: Path | None, fast_models_dir: Path | None = None) -> str:
    """Return extra_model_paths.yaml, with the fast folder first: as JSON, because JSON is YAML too."""
    sections: dict[str, dict[str, str | bool]] = {}
    if models_dir is not None:
        sections["comfypin"] = {**_paths_section(models_dir)}
    if fast_models_dir is not None:
        # ComfyUI searches a default folder before all others, even its own.
        sections["comfypin_fast"] = {**_paths_section(fast_models_dir), "is_default": True}
    return json.dumps(sections)


def _paths_section(models_dir: Path) -> dict[str, str]:
    # Custom nodes define further kinds of models, so every folder that is there counts.
    existing = {folder.name for folder in models_dir.iterdir() if folder.is_dir()} if models_dir.is_dir() else set()
    # A folder that does not exist yet may be filled while the engine runs.
    model_kinds = sorted(
        {*MODEL_FOLDERS, *(folder_name for folder_name in existing if not folder_name.startswith("."))}
    )
    return {"base_path": str(models_dir.absolute()), **{model_kind: model_kind for model_kind in model_kinds}}


def _other_models(models_dir: Path | None, install: Path) -> Path | None:
    # ComfyUI searches its own folder anyway; a second mention would list every model twice.
    if models_dir is None or models_dir.resolve() == (install / "models").resolve():
        return None
    return models_dir.absolute()


def _first_file(candidates: Iterable[Path], home: Path) -> Path:
    candidates = list(candidates)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise EngineNotFound(home=str(home), looked_for=tuple(str(candidate) for candidate in candidates))


def _is_secret(variable_name: str, value: str, prefixes: tuple[str, ...]) -> bool:
    upper_name = variable_name.upper()
    if upper_name in _NOT_SECRET:
        return False
    # Proxies need their password: without it custom nodes cannot download anything.
    secret_url = _URL_WITH_PASSWORD.search(value) is not None and not upper_name.endswith("_PROXY")
    return (
        secret_url
        or upper_name.startswith((*_SECRET_PREFIXES, *prefixes))
        or _SECRET_WORD.search(upper_name) is not None
    )
