"""Failures of the engine itself: it does not start, dies, or answers as no ComfyUI does."""

from comfypin.errors import ConfigError, EngineError, PromptError


class EngineUrlInvalid(ConfigError):
    """Raised when the address of a running engine is not a usable URL."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(
            f"The engine's address is not a URL that can be used: {reason}. Give one like http://127.0.0.1:8188.",
            reason=reason,
        )


class EngineNotFound(ConfigError):
    """Raised when there is no ComfyUI, or no Python to run it with, in the env's place."""

    def __init__(self, *, home: str, looked_for: tuple[str, ...]) -> None:
        super().__init__(
            f"There is no ComfyUI to start in {home}: looked for {', '.join(looked_for)}. "
            "Point COMFY_HOME at a ComfyUI with its virtual environment.",
            home=home,
            looked_for=list(looked_for),
        )


class EngineUnreachable(EngineError):
    """Raised when nothing answers at the engine's address."""

    def __init__(self, *, url: str, reason: str) -> None:
        super().__init__(
            f"The engine at {url} cannot be reached ({reason}); check that ComfyUI runs there.",
            url=url,
            reason=reason,
        )


class EngineAnswerInvalid(EngineError):
    """Raised when the engine answers with an error of its own, or with what no ComfyUI answers."""

    def __init__(self, *, request: str, status: int, body: str, log_tail: tuple[str, ...] = ()) -> None:
        body_text = " ".join(body.split())[:500] or "(nothing)"
        meaning = (
            "which is an error in the engine; look into its log"
            if status >= 500
            else (
                "which is no answer of ComfyUI's; check that a ComfyUI, and no proxy's error page, is at this address"
            )
        )
        super().__init__(
            f"The engine answered {request} with HTTP {status}, {meaning}. It said: {body_text}{_format_log(log_tail)}",
            request=request,
            status=status,
            log_tail=list(log_tail),
        )
        self.status = status


class OutputGone(EngineError):
    """Raised when the engine no longer has a file that it reported."""

    def __init__(self, *, node_id: str, filename: str) -> None:
        super().__init__(
            f"Node {node_id} reported the output {filename}, and the engine does not have that file: it was moved or "
            "deleted after it was made. Run the job again.",
            node_id=node_id,
            filename=filename,
        )


class OutputOutside(EngineError):
    """Raised when a node reports a file outside the engine's folders, which cannot be delivered."""

    def __init__(self, *, node_id: str, filename: str, certain: bool = True) -> None:
        location = "is outside ComfyUI's output folder" + ("" if certain else ", or is named as if it were")
        super().__init__(
            f"Node {node_id} saved {filename}, which {location}, so it cannot be delivered. "
            "Give the node a name, or a folder, inside the output folder (a relative one).",
            node_id=node_id,
            filename=filename,
        )


class EngineStartFailed(EngineError):
    """Raised when the engine's process does not become ready."""

    def __init__(self, *, reason: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(
            f"The engine did not start: {reason}.{_format_log(log_tail)}", reason=reason, log_tail=list(log_tail)
        )


class EngineCrashed(EngineError):
    """Raised when the engine's process dies while it is needed."""

    def __init__(self, *, reason: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(f"The engine died: {reason}.{_format_log(log_tail)}", reason=reason, log_tail=list(log_tail))
        self.reason = reason
        self.log_tail = log_tail


def _format_log(log_tail: tuple[str, ...]) -> str:
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


class OutputEmpty(PromptError):
    """Raised when a node reports a file that has no bytes."""

    def __init__(self, *, node_id: str, class_type: str, filename: str) -> None:
        super().__init__(
            f"Node {node_id} ({class_type}) saved {filename} without a single byte in it: it failed without saying so. "
            "Look at its inputs, and at the engine's log.",
            node_id=node_id,
            class_type=class_type,
            filename=filename,
        )


class PromptInterrupted(PromptError):
    """Raised when somebody interrupted the prompt in the engine."""

    def __init__(self, *, prompt_id: str, node_id: str | None = None) -> None:
        where = f" at node {node_id}" if node_id else ""
        super().__init__(f"The prompt was interrupted in the engine{where}.", prompt_id=prompt_id)


class PromptLost(PromptError):
    """Raised when the engine knows the prompt neither as queued, nor running, nor finished.

    `restarted` is set if the engine was away since the prompt was queued, and has forgotten what it did before.
    """

    def __init__(self, *, prompt_id: str, restarted: bool = False) -> None:
        why = "it was restarted" if restarted else "it was restarted or its queue was cleared"
        super().__init__(f"The engine no longer knows the prompt: {why}. Run the job again.", prompt_id=prompt_id)
        self.restarted = restarted


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
        return "\nThe memory did not suffice: make the picture or the batch smaller, or give the engine --lowvram."
    return ""
