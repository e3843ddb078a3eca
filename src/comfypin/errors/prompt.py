"""Failures of one prompt: a node raised, somebody interrupted it, it is gone, or its time is up."""

from comfypin.errors import PromptError


class NodeFailed(PromptError):
    """A node raised while the prompt ran."""

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
            f"{_advice(exception_type, message)}{advice}",
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
    """A node reported a file that has no bytes."""

    def __init__(self, *, node_id: str, class_type: str, filename: str) -> None:
        super().__init__(
            f"Node {node_id} ({class_type}) saved {filename} without a single byte in it: it failed without saying so. "
            "Look at its inputs, and at the engine's log.",
            node_id=node_id,
            class_type=class_type,
            filename=filename,
        )


class PromptInterrupted(PromptError):
    """Somebody interrupted the prompt in the engine."""

    def __init__(self, *, prompt_id: str, node_id: str | None = None) -> None:
        where = f" at node {node_id}" if node_id else ""
        super().__init__(f"The prompt was interrupted in the engine{where}.", prompt_id=prompt_id)


class PromptLost(PromptError):
    """The engine knows the prompt neither as queued, nor running, nor finished.

    `restarted` is set if the engine was away since the prompt was queued, and has forgotten what it did before.
    """

    def __init__(self, *, prompt_id: str, restarted: bool = False) -> None:
        why = "it was restarted" if restarted else "it was restarted or its queue was cleared"
        super().__init__(f"The engine no longer knows the prompt: {why}. Run the job again.", prompt_id=prompt_id)
        self.restarted = restarted


class DeadlineExceeded(PromptError):
    """The job's time is up; its prompt was cancelled."""

    exit_code = 22

    def __init__(self, *, timeout_s: float, phase: str, setting: str = "--timeout") -> None:
        super().__init__(
            f"The job did not end within {timeout_s:g} s (it was in {phase}); its prompt was cancelled. "
            f"Give it more time with {setting}.",
            timeout_s=timeout_s,
            phase=phase,
        )


_OUT_OF_MEMORY = ("outofmemory", "out of memory", "can't allocate memory", "cannot allocate memory", "memoryerror")


def _advice(exception_type: str, message: str) -> str:
    said = f"{exception_type} {message}".lower()
    if any(sign in said for sign in _OUT_OF_MEMORY):
        return "\nThe memory did not suffice: make the picture or the batch smaller, or give the engine --lowvram."
    return ""
