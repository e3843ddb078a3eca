"""Failures of the engine itself: it does not start, dies, or answers as no ComfyUI does."""

from comfypin.errors import ConfigError, EngineError


class EngineUrlInvalid(ConfigError):
    """What was given as a running engine's address is none."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(
            f"The engine's address is not a URL that can be used: {reason}. Give one like http://127.0.0.1:8188.",
            reason=reason,
        )


class EngineNotFound(ConfigError):
    """There is no ComfyUI, or no Python to run it with, where the env should be."""

    def __init__(self, *, home: str, looked_for: tuple[str, ...]) -> None:
        super().__init__(
            f"There is no ComfyUI to start in {home}: looked for {', '.join(looked_for)}. "
            "Point COMFY_HOME at a ComfyUI with its virtual environment.",
            home=home,
            looked_for=list(looked_for),
        )


class EngineUnreachable(EngineError):
    """Nothing answers at the engine's address."""

    def __init__(self, *, url: str, reason: str) -> None:
        super().__init__(
            f"The engine at {url} cannot be reached ({reason}); check that ComfyUI runs there.",
            url=url,
            reason=reason,
        )


class EngineAnswerInvalid(EngineError):
    """The engine answered a request with an error of its own, or with something that ComfyUI does not say."""

    def __init__(self, *, request: str, status: int, body: str, log_tail: tuple[str, ...] = ()) -> None:
        said = " ".join(body.split())[:500] or "(nothing)"
        what = (
            "which is an error in the engine; look into its log"
            if status >= 500
            else (
                "which is no answer of ComfyUI's; check that a ComfyUI, and no proxy's error page, is at this address"
            )
        )
        super().__init__(
            f"The engine answered {request} with HTTP {status}, {what}. It said: {said}{_lines(log_tail)}",
            request=request,
            status=status,
            log_tail=list(log_tail),
        )
        self.status = status


class OutputGone(EngineError):
    """The engine reported a file that it does not have (any more)."""

    def __init__(self, *, node_id: str, filename: str) -> None:
        super().__init__(
            f"Node {node_id} reported the output {filename}, and the engine does not have that file: it was moved or "
            "deleted after it was made. Run the job again.",
            node_id=node_id,
            filename=filename,
        )


class OutputOutside(EngineError):
    """A node reported a file that is not in the engine's folders, from where alone outputs are delivered."""

    def __init__(self, *, node_id: str, filename: str, certain: bool = True) -> None:
        place = "is outside ComfyUI's output folder" + ("" if certain else ", or is named as if it were")
        super().__init__(
            f"Node {node_id} saved {filename}, which {place}, so it cannot be delivered. "
            "Give the node a name, or a folder, inside the output folder (a relative one).",
            node_id=node_id,
            filename=filename,
        )


class EngineStartFailed(EngineError):
    """The engine's process did not become ready."""

    def __init__(self, *, reason: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(
            f"The engine did not start: {reason}.{_lines(log_tail)}", reason=reason, log_tail=list(log_tail)
        )


class EngineCrashed(EngineError):
    """The engine's process died while it was needed."""

    def __init__(self, *, reason: str, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(f"The engine died: {reason}.{_lines(log_tail)}", reason=reason, log_tail=list(log_tail))
        self.reason = reason
        self.log_tail = log_tail


def _lines(log_tail: tuple[str, ...]) -> str:
    return "".join(f"\n  | {line}" for line in log_tail)
