"""Declares the failures of an engine: it does not start, dies, or answers as no ComfyUI does."""

from comfypin.errors import ConfigError, EngineError, PromptError, declare


@declare
class EngineUrlInvalid(ConfigError):
    """Raised when the address of a running engine is not a usable URL."""

    template = (
        "The engine's address is not a usable URL: {reason}. "
        "Set --engine-url, or the lock's engine.url, to one like http://127.0.0.1:8188."
    )
    reason: str


@declare
class EngineNotFound(ConfigError):
    """Raised when there is no ComfyUI in the env's place."""

    template = (
        "There is no ComfyUI to start in {home}: looked for {candidates}. "
        "Point --comfy-home or COMFY_HOME at the folder of a ComfyUI (the one with main.py)."
    )
    home: str
    looked_for: tuple[str, ...]

    @property
    def candidates(self) -> str:
        return ", ".join(self.looked_for)


@declare
class EnginePythonNotFound(ConfigError):
    """Raised when there is a ComfyUI, and no Python that has what it imports (torch, aiohttp)."""

    template = (
        "There is no Python to run {main} with: {reason} ({candidates}). "
        "Name the Python of its environment with --python or COMFY_PYTHON, such as ~/ComfyUI/venv."
    )
    main: str
    looked_for: tuple[str, ...]
    named: bool = False

    @property
    def reason(self) -> str:
        return "the one that was named is not there" if self.named else "none of these is there and has torch"

    @property
    def candidates(self) -> str:
        return ", ".join(self.looked_for)


@declare
class EngineUnreachable(EngineError):
    """Raised when nothing answers at the engine's address."""

    template = "The engine at {url} cannot be reached ({reason}); check that ComfyUI runs there."
    url: str
    reason: str


@declare
class EngineAnswerInvalid(EngineError):
    """Raised when the engine answers with an error, or unlike any ComfyUI."""

    template = "The engine answered {request} with HTTP {status}, {meaning}. It said: {excerpt}{log_lines}"
    request: str
    status: int
    _body: str
    log_tail: tuple[str, ...] = ()

    @property
    def meaning(self) -> str:
        if self.status >= 500:
            return "an error inside the engine; look into its log"
        return "which ComfyUI never does; check that this address is a ComfyUI's, and not a proxy's"

    @property
    def excerpt(self) -> str:
        return " ".join(self._body.split())[:500] or "(nothing)"

    @property
    def log_lines(self) -> str:
        return _indent_log(self.log_tail)


@declare
class OutputGone(EngineError):
    """Raised when the engine no longer has a file that it reported."""

    template = (
        "Node {node_id} reported the output {filename}, but the engine does not have that file: it was moved or "
        "deleted after it was made. Run the job again."
    )
    node_id: str
    filename: str


@declare
class OutputOutside(EngineError):
    """Raised when a node reports a file outside the engine's folders, which cannot be delivered."""

    template = (
        "Node {node_id} saved {filename}, which {location}, so it cannot be delivered. "
        "Give the node a relative name or folder, inside the output folder."
    )
    node_id: str
    filename: str
    _is_certain: bool = True

    @property
    def location(self) -> str:
        return "is outside ComfyUI's output folder" + ("" if self._is_certain else ", or is named as if it were")


@declare
class EngineStartFailed(EngineError):
    """Raised when the engine's process does not become ready."""

    template = "The engine did not start: {reason}.{log_lines}"
    reason: str
    log_tail: tuple[str, ...] = ()

    @property
    def log_lines(self) -> str:
        return _indent_log(self.log_tail)


@declare
class EngineCrashed(EngineError):
    """Raised when the engine's process dies while it is needed."""

    template = "The engine died: {reason}.{log_lines}"
    reason: str
    log_tail: tuple[str, ...] = ()

    @property
    def log_lines(self) -> str:
        return _indent_log(self.log_tail)


def _indent_log(log_tail: tuple[str, ...]) -> str:
    return "".join(f"\n  | {line}" for line in log_tail)


class NodeFailed(PromptError):
    """Raised when a node failed while the prompt ran."""

    def __init__(
        self,
        *,
        node_id: str,
        class_type: str,
        exception_type: str,
        message: str,
        traceback: tuple[str, ...] = (),
        advice: str = "",
        command_hint: str = "",
    ) -> None:
        super().__init__(
            f"Node {node_id} ({class_type}) failed: {exception_type}: {message.strip()}"
            f"{_memory_advice(exception_type, message)}{advice}",
            node_id=node_id,
            class_type=class_type,
            exception_type=exception_type,
        )
        self.node_id = node_id
        self.class_type = class_type
        self.exception_type = exception_type
        self.said = message
        self.traceback = traceback
        self.command_hint = command_hint


@declare
class OutputEmpty(PromptError):
    """Raised when a node reports a file that has no bytes."""

    template = (
        "Node {node_id} ({class_type}) saved {filename} as an empty file: it failed without reporting an error. "
        "Check its inputs, and the engine's log."
    )
    node_id: str
    class_type: str
    filename: str


@declare
class PromptInterrupted(PromptError):
    """Raised when somebody interrupted the prompt in the engine."""

    template = "The prompt was interrupted in the engine{location}."
    prompt_id: str
    node_id: str | None = None

    @property
    def location(self) -> str:
        return f" at node {self.node_id}" if self.node_id else ""


@declare
class PromptLost(PromptError):
    """Raised when the engine knows the prompt neither as queued, nor running, nor finished.

    `restarted` is set if the engine has restarted since the prompt was queued, and so has forgotten it.
    """

    template = "The engine no longer knows the prompt: {cause}. Run the job again."
    prompt_id: str
    restarted: bool = False

    @property
    def cause(self) -> str:
        return "it was restarted" if self.restarted else "it was restarted or its queue was cleared"


class DeadlineExceeded(PromptError):
    """Raised when the job's time is up and its prompt was cancelled."""

    exit_code = 22

    def __init__(self, *, timeout_s: float, phase: str, setting: str = "--timeout") -> None:
        super().__init__(
            f"The job did not end within {timeout_s:g} s (it was in {phase}); its prompt was cancelled. "
            f"Give it more time with {setting}.",
            timeout_s=timeout_s,
            phase=phase,
        )


_OUT_OF_MEMORY = ("outofmemory", "out of memory", "can't allocate memory", "cannot allocate memory", "memoryerror")


def _memory_advice(exception_type: str, message: str) -> str:
    failure_text = f"{exception_type} {message}".lower()
    if any(sign in failure_text for sign in _OUT_OF_MEMORY):
        return (
            "\nThe engine ran out of memory: make the picture or the batch smaller, or use a machine with more memory."
        )
    return ""
