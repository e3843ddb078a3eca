"""What exceptions of Python's own say of a machine."""

import errno
import os

import pytest

from comfypin.machine_errors import PathUnusable, ResourceRefused, machine_failure


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "threads"),
        (ImportError("libx.so: failed to map segment from shared object"), "memory"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "open files"),
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "processes"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "memory"),
    ],
)
def test_what_is_refused_is_named(error: Exception, word: str) -> None:
    failure = machine_failure(error, {})
    assert isinstance(failure, ResourceRefused)
    assert word in failure.message


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EIO])
def test_a_path_that_cannot_be_used_is_named_with_home(number: int) -> None:
    failure = machine_failure(OSError(number, os.strerror(number), "/h/.cache/x"), {"HOME": "/h"})
    assert isinstance(failure, PathUnusable)
    assert "/h/.cache/x" in failure.message
    assert "HOME is /h" in failure.message


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x"), ImportError("x"), OSError("x")])
def test_a_mistake_of_ours_is_no_matter_of_the_machine(error: Exception) -> None:
    assert machine_failure(error, {}) is None
