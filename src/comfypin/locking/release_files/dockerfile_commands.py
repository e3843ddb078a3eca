"""Reads the commands of a Dockerfile's RUN: what they put into a ComfyUI becomes parts of a release (pure)."""

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from comfypin.lock.errors import SpecInvalid
from comfypin.lock.model_spec import ModelSpec
from comfypin.lock.requirements import parse_requirement
from comfypin.locking.node_registry import REGISTRY_SCHEME
from comfypin.locking.release_files.dockerfile_syntax import ShellCommand, substitute
from comfypin.locking.release_files.document import ReleaseParts
from comfypin.locking.release_files.manager import below_models
from comfypin.locking.repository_refs import COMFYUI, RepoSpec, parse_repo_spec, repo_folder

# What changes no ComfyUI: the shell's own, cleaning, looking, permissions.
_WITHOUT_EFFECT = frozenset(
    {
        *(
            ":",
            "true",
            "set",
            "echo",
            "printf",
            "yes",
            "tee",
            "ls",
            "cat",
            "pwd",
            "exit",
            "sleep",
            "date",
            "which",
            "test",
            "[",
        ),
        *(
            "rm",
            "rmdir",
            "mkdir",
            "chmod",
            "chown",
            "ldconfig",
            "sync",
            "find",
            "du",
            "df",
            "hash",
            "fi",
            "for",
            "case",
            "done",
            "esac",
        ),
        *("comfy-manager-set-mode", "add-apt-repository", "update-ca-certificates"),
    }
)
# Tools that a lock needs no package for: comfypin brings what installs, and downloads models itself.
_TOOLS = frozenset({"pip", "setuptools", "wheel", "uv", "comfy-cli", "huggingface-hub", "hf-transfer", "runpod"})
_READ_IN_PIPES = frozenset({"comfy", "comfy-node-install", "pip", "pip3", "uv", "python", "python3"})
_TORCH_INDEX = re.compile(r"https://download\.pytorch\.org/whl/(?:nightly/)?((?:cu|rocm|cpu|xpu)[\w.]*)/?")
_ROOT = PurePosixPath("/")
# What may stand before a command's own first word.
_PREFIXES = frozenset({"sudo", "export", "exec", "!", "if", "elif", "while", "until", "then", "else", "do", "{"})
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.S)


@dataclass(slots=True)
class BuildState:
    """What the build has done so far: the parts, where it stands, its variables, and what it cloned (by folder)."""

    parts: ReleaseParts = field(default_factory=ReleaseParts)
    folder: PurePosixPath = _ROOT
    variables: dict[str, str] = field(default_factory=dict)
    clones: dict[PurePosixPath, RepoSpec] = field(default_factory=dict)
    comfyui_folder: PurePosixPath | None = None
    requirements: list[str] = field(default_factory=list)
    system_packages: list[str] = field(default_factory=list)
    torch: str | None = None

    def path(self, text: str) -> PurePosixPath:
        """Return a path of the image, from the folder where the build stands."""
        return PurePosixPath(posixpath.normpath(self.folder / text))


@dataclass(frozen=True, slots=True)
class Words:
    """A command's flags with their values, and its other words."""

    flags: Mapping[str, str]
    rest: tuple[str, ...]

    def first(self, *names: str) -> str | None:
        """Return the value of the first of these flags that is there."""
        return next((self.flags[name] for name in names if name in self.flags), None)


def split_flags(words: Sequence[str], with_value: str) -> Words:
    """Split words into flags and the rest; `with_value` names the flags that take the next word, `-o` and `--out`."""
    valued, flags, rest = frozenset(with_value.split()), dict[str, str](), list[str]()
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        name, equals, value = word.partition("=")
        if word.startswith("--") and len(word) > 2:
            flags[name] = value if equals else remaining.pop(0) if name in valued and remaining else ""
        elif word.startswith("-") and len(word) > 1:
            # Short flags stand together: `-fsSLo FILE`, `-x16`.
            for index, letter in enumerate(word[1:], start=2):
                short, inner = f"-{letter}", word[index:]
                if short in valued:
                    flags[short] = inner or (remaining.pop(0) if remaining else "")
                    break
                flags[short] = ""
        else:
            rest.append(word)
    return Words(flags, tuple(rest))


def read_command(command: ShellCommand, state: BuildState) -> str | None:
    """Take what a command does into the state; return None if it was understood, else what to write instead or ""."""
    words = [substitute(word, state.variables) for word in command.words]
    while words and (words[0] in _PREFIXES or _ASSIGNMENT.match(words[0])):
        if assignment := _ASSIGNMENT.fullmatch(words[0]):
            state.variables[assignment[1]] = assignment[2]
        words.pop(0)
    if not words:
        return None
    program = words[0].rpartition("/")[2]
    arguments = words[1:]
    if program in ("python", "python3") and arguments[:2] in (["-m", "pip"], ["-m", "uv"]):
        program, arguments = arguments[1], arguments[2:]
    if program == "uv" and arguments[:1] == ["pip"]:
        program, arguments = "pip", arguments[1:]
    if program in _WITHOUT_EFFECT or program == "}" or (command.is_piped and program in ("sh", "bash")):
        return None
    if command.in_block:
        return "it stands in a block that may run or not; give what it adds by flags"
    if command.is_piped and program not in _READ_IN_PIPES:
        return ""
    reader = _READERS.get(program)
    return "" if reader is None else reader(arguments, state)


def _change_folder(arguments: list[str], state: BuildState) -> str | None:
    state.folder = state.path(arguments[0] if arguments else "/root")
    return None


def _read_apt(arguments: list[str], state: BuildState) -> str | None:
    words = split_flags(arguments, "-o -t --target-release -c")
    if words.rest[:1] == ("install",):
        state.system_packages += [word.partition("=")[0] for word in words.rest[1:]]
    return None


def _read_pip(arguments: list[str], state: BuildState) -> str | None:
    words = split_flags(
        arguments,
        "-i --index-url --extra-index-url --index --default-index -f --find-links -r --requirement -c --constraint "
        "-t --target -p --python --prefix --root --only-binary --no-binary --cache-dir --torch-backend -e --editable",
    )
    if words.rest[:1] != ("install",):
        # `pip cache purge`, `pip list`; what is uninstalled was asked for by something else.
        return "--drop-requirement NAME leaves a package out" if words.rest[:1] == ("uninstall",) else None
    if "-e" in words.flags or "--editable" in words.flags:
        return "a lock holds no editable installation; --package 'NAME @ git+https://...' takes one from git"
    problems: list[str] = []
    file_name = words.first("-r", "--requirement")
    if file_name is not None and not _is_below_clone(state.path(file_name), state):
        problems.append(f"add --requirements {PurePosixPath(file_name).name}")
    for index in ("-i", "--index-url", "--extra-index-url", "--index", "--default-index"):
        if address := words.flags.get(index):
            if build := _TORCH_INDEX.fullmatch(address):
                state.torch = build[1]
            else:
                problems.append("add --index with its address")
    for requirement in words.rest[1:]:
        parsed = parse_requirement(requirement, "the Dockerfile")
        if parsed is None or "file:" in requirement or "$" in requirement or requirement.startswith((".", "/")):
            problems.append(f"{requirement} cannot be resolved on another machine")
        elif parsed.name not in _TOOLS:
            state.requirements.append(parsed.text)
    return "; ".join(problems) or None


def _is_below_clone(path: PurePosixPath, state: BuildState) -> bool:
    """Return whether a file belongs to ComfyUI or a node, whose requirements are resolved anyway."""
    # A node of the registry lies below custom_nodes, under a name that only its installer knows.
    return (
        "custom_nodes" in path.parts
        or path.parent.name.lower() == "comfyui"
        or any(path.is_relative_to(clone) for clone in state.clones)
    )


def _read_comfy(arguments: list[str], state: BuildState) -> str | None:
    words = split_flags(
        arguments,
        "--workspace --mode --channel --url --relative-path --filename --downloader --set-civitai-api-token "
        "--set-hf-api-token --version --commit --cuda-version",
    )
    match words.rest[:2]:
        case ("install", *_):
            version = words.first("--version") or "latest"
            if not re.fullmatch(r"v?\d+(\.\d+)+", version):
                return "name the release: --comfyui URL@REF"
            workspace = PurePosixPath(words.first("--workspace") or "/root/comfy/ComfyUI")
            _clone_comfyui(parse_repo_spec(f"{COMFYUI}@v{version.removeprefix('v')}"), workspace, state)
            return None
        case ("node", "install"):
            return _install_nodes(list(words.rest[2:]), state)
        case ("node", "registry-install"):
            return _install_nodes(["@".join(words.rest[2:4])], state)
        case ("node", "restore-snapshot"):
            return "comfypin lock create NAME --from reads that snapshot itself; give the rest by flags"
        case ("model", "download"):
            return _download_model(words, state)
    # `comfy tracking disable`, `comfy set-default`: settings of comfy-cli.
    return None if words.rest[:1] in (("tracking",), ("set-default",), ("env",), ("which",)) else ""


def _install_nodes(names: list[str], state: BuildState) -> str | None:
    problems = []
    for name in split_flags(names, "--mode --channel").rest:
        node_id, _, version = name.partition("@")
        if "://" in name:
            problems += [problem] if (problem := _add_node(name, None, None, state)) else []
        elif not re.fullmatch(r"[\w.-]+", node_id) or version in ("nightly", "unknown"):
            problems.append(f"{name} has no version of the registry; add --node URL@COMMIT")
        else:
            ref = None if version in ("", "latest") else version
            _append_node(RepoSpec(repo=f"{REGISTRY_SCHEME}{node_id}", ref=ref), state)
    return "; ".join(problems) or None


def _add_node(address: str, ref: str | None, folder: str | None, state: BuildState) -> str | None:
    try:
        spec = parse_repo_spec(address)
    except SpecInvalid:
        return f"{address} is not the address of a repository"
    _append_node(replace(spec, ref=ref or spec.ref, folder=folder), state)
    return None


def _append_node(spec: RepoSpec, state: BuildState) -> None:
    if spec not in state.parts.nodes:
        state.parts.nodes.append(spec)


def _download_model(words: Words, state: BuildState) -> str | None:
    address, folder, filename = (words.first(flag) for flag in ("--url", "--relative-path", "--filename"))
    if not address:
        return "it names no --url"
    target = None if folder is None else f"{below_models(folder).strip('/')}/{filename or ''}"
    return add_model(address, target, state)


def add_model(address: str, target: str | None, state: BuildState) -> str | None:
    """Add a model; return what is wrong with its address."""
    if "$" in address or "://" not in address:
        return "its address has a variable without a value here; add --model TARGET=URL"
    state.parts.models.append(ModelSpec(sources=(address,), target=target))
    return None


def models_target(path: PurePosixPath) -> str | None:
    """Return a path of the image as one below the models folder, None if it is not there."""
    if "models" not in path.parts or "custom_nodes" in path.parts:
        return None
    return below_models(str(path)) or None


def _read_wget(arguments: list[str], state: BuildState) -> str | None:
    words = split_flags(
        arguments,
        "-O --output-document -P --directory-prefix --header -t --tries -T --timeout -U --user-agent -o --output-file",
    )
    return _add_downloads(
        words.rest, words.first("-O", "--output-document"), words.first("-P", "--directory-prefix"), state
    )


def _read_curl(arguments: list[str], state: BuildState) -> str | None:
    words = split_flags(
        arguments,
        "-o --output --output-dir -H --header --retry --retry-delay --retry-max-time -A --user-agent -u --user "
        "--connect-timeout -m --max-time -X --request -d --data -C --continue-at -e --referer -w --write-out --url",
    )
    addresses = words.rest + ((words.flags["--url"],) if "--url" in words.flags else ())
    return _add_downloads(addresses, words.first("-o", "--output"), words.first("--output-dir"), state)


def _read_aria2(arguments: list[str], state: BuildState) -> str | None:
    words = split_flags(
        arguments,
        "-o --out -d --dir -x --max-connection-per-server -s --split -k --min-split-size -j --header --max-tries "
        "--console-log-level --summary-interval --retry-wait",
    )
    return _add_downloads(words.rest, words.first("-o", "--out"), words.first("-d", "--dir"), state)


def _add_downloads(
    addresses: Sequence[str], file_name: str | None, folder: str | None, state: BuildState
) -> str | None:
    if not addresses:
        return "it names no address"
    problems = []
    for address in addresses:
        name = file_name or PurePosixPath(address.partition("?")[0]).name
        target = models_target(state.path(str(PurePosixPath(folder or ".") / name)))
        if target is None:
            return "what it downloads does not go into models"
        problems += [problem] if (problem := add_model(address, target, state)) else []
    return "; ".join(problems) or None


def _read_hub(arguments: list[str], state: BuildState) -> str | None:
    words = split_flags(arguments, "--local-dir --revision --token --repo-type --cache-dir --include --exclude")
    folder = words.first("--local-dir")
    if words.rest[:1] != ("download",):
        # Logins, and settings of the tool.
        return None
    if len(words.rest) < 3 or folder is None or "--include" in words.flags:
        return "name each file: --model TARGET=hf://ORG/REPO/FILE"
    revision = words.first("--revision")
    repository = words.rest[1] + (f"@{revision}" if revision else "")
    for file_name in words.rest[2:]:
        target = models_target(state.path(f"{folder}/{file_name}"))
        if target is None:
            return "what it downloads does not go into models"
        add_model(f"hf://{repository}/{file_name}", target, state)
    return None


def _read_git(arguments: list[str], state: BuildState) -> str | None:
    folder = state.folder
    while arguments[:1] in (["-C"], ["-c"]) and len(arguments) > 1:
        folder = state.path(arguments[1]) if arguments[0] == "-C" else folder
        arguments = arguments[2:]
    words = split_flags(
        arguments, "-b --branch --depth --filter -j --jobs -o --origin --reference --shallow-since -c --config"
    )
    match words.rest:
        case ("clone", address, *rest):
            return _clone(address, state.path(str(folder / (rest[0] if rest else repo_folder(address)))), words, state)
        case ("checkout" | "switch" | "reset", ref, *_) if folder in state.clones:
            _move_clone(folder, ref, state)
            return None
        case ("fetch" | "pull" | "submodule" | "lfs" | "config" | "status" | "log" | "clean", *_):
            # Of a clone that a lock holds by its commit, with its submodules.
            return None
    return ""


def _clone(address: str, target: PurePosixPath, words: Words, state: BuildState) -> str | None:
    if "$" in address:
        return "its address has a variable without a value here; add --node URL@REF"
    ref = words.first("-b", "--branch")
    try:
        spec = replace(parse_repo_spec(address), ref=ref)
    except SpecInvalid:
        return f"{address} is not the address of a repository"
    if repo_folder(address).lower() == "comfyui" and "custom_nodes" not in target.parts:
        _clone_comfyui(spec, target, state)
        return None
    if target.parent.name != "custom_nodes":
        return "it is not cloned into custom_nodes"
    spec = replace(spec, folder=None if target.name == repo_folder(address) else target.name)
    state.clones[target] = spec
    _append_node(spec, state)
    return None


def _clone_comfyui(spec: RepoSpec, target: PurePosixPath, state: BuildState) -> None:
    state.comfyui_folder = target
    state.clones[target] = spec


def _move_clone(folder: PurePosixPath, ref: str, state: BuildState) -> None:
    earlier = state.clones[folder]
    moved = replace(earlier, ref=ref)
    state.clones[folder] = moved
    state.parts.nodes = [moved if node == earlier else node for node in state.parts.nodes]


def _read_python(arguments: list[str], state: BuildState) -> str | None:
    if arguments and PurePosixPath(arguments[0]).name == "install.py":
        name = state.path(arguments[0]).parent.name
        return f"add --install-script {name} if it has to run"
    return ""


_READERS: dict[str, Callable[[list[str], BuildState], str | None]] = {
    "cd": _change_folder,
    "pushd": _change_folder,
    "apt-get": _read_apt,
    "apt": _read_apt,
    "pip": _read_pip,
    "pip3": _read_pip,
    "comfy": _read_comfy,
    "comfy-node-install": _install_nodes,
    "wget": _read_wget,
    "curl": _read_curl,
    "aria2c": _read_aria2,
    "hf": _read_hub,
    "huggingface-cli": _read_hub,
    "git": _read_git,
    "python": _read_python,
    "python3": _read_python,
}
