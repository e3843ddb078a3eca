"""Why a process ended, in words."""

import pytest

from comfypin.engine.exit_reason import explain_exit, is_port_taken


@pytest.mark.parametrize(
    "code, tail, words",
    [
        (1, [], "exit code 1"),
        (0, [], "exit code 0"),
        (-9, [], "killed by SIGKILL (exit code 137), most likely out of memory"),
        (137, [], "killed by SIGKILL (exit code 137), most likely out of memory"),
        (-11, [], "killed by SIGSEGV (exit code 139)"),
        (-15, [], "killed by SIGTERM (exit code 143)"),
        (1, ["torch.OutOfMemoryError: CUDA out of memory. Tried"], "exit code 1, out of memory: the GPU's"),
        (1, ["torch.cuda.OutOfMemoryError: x"], "out of memory: the GPU's"),
        (1, ["MemoryError"], "out of memory: the machine's"),
        (-6, ["terminate called after throwing an instance of 'std::bad_alloc'"], "SIGABRT"),
    ],
)
def test_code_signal_and_memory_are_named(code: int, tail: list[str], words: str) -> None:
    assert words in explain_exit(code, tail)


def test_the_kernel_s_own_word_counts() -> None:
    assert "out-of-memory killer" in explain_exit(-9, [], oom_killed=True)


def test_a_taken_port_is_recognised() -> None:
    assert is_port_taken(["OSError: [Errno 98] error while attempting to bind on address: address already in use"])
    assert not is_port_taken(["all is well"])
