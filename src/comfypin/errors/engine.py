"""Failures of the engine itself: it does not start, dies, or answers as no ComfyUI does."""

from comfypin.errors import EngineError


class EngineUnreachable(EngineError):
    """Nothing answers at the engine's address."""

    def __init__(self, *, url: str, reason: str) -> None:
        super().__init__(
            f"The engine at {url} cannot be reached ({reason}); check that ComfyUI runs there.",
            url=url,
            reason=reason,
        )


class EngineAnswerInvalid(EngineError):
    """The engine answered a request with something that ComfyUI does not say."""

    def __init__(self, *, request: str, status: int, body: str) -> None:
        super().__init__(
            f"The engine answered {request} with HTTP {status}: {body[:500]}", request=request, status=status
        )


class EngineStartFailed(EngineError):
    """The engine's process did not become ready."""

    def __init__(self, *, reason: str, log_tail: tuple[str, ...] = ()) -> None:
        tail = "".join(f"\n  | {line}" for line in log_tail)
        super().__init__(f"The engine did not start: {reason}.{tail}", reason=reason, log_tail=list(log_tail))


class EngineCrashed(EngineError):
    """The engine's process died while it was needed."""

    def __init__(self, *, reason: str, log_tail: tuple[str, ...] = ()) -> None:
        tail = "".join(f"\n  | {line}" for line in log_tail)
        super().__init__(f"The engine died: {reason}.{tail}", reason=reason, log_tail=list(log_tail))
        self.reason = reason
        self.log_tail = log_tail
