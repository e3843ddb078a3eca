"""Whose turn it is to hash a file's next bytes."""

from concurrent.futures import ThreadPoolExecutor

from comfypin.models.download_parts import HASH_STEP_BYTES, FileParts

LENGTH = 4 * HASH_STEP_BYTES


def test_a_hash_is_lent_to_whoever_has_the_bytes_that_it_waits_for() -> None:
    parts = FileParts()
    first, second = parts.add_part(0, LENGTH), parts.add_part(LENGTH, LENGTH)
    with ThreadPoolExecutor(1) as hasher:
        waiting = hasher.submit(parts.wait_for_bytes, first, wait_s=60)
        while not parts.lend_hash(first):
            pass
        assert not parts.lend_hash(second)
        parts.record_written(first, LENGTH, hashed=True)
        assert waiting.result()
    assert first.hashed == first.written == LENGTH


def test_a_hash_that_nobody_waits_with_is_not_lent() -> None:
    assert not FileParts().lend_hash(FileParts().add_part(0, LENGTH))


def test_a_hash_that_is_behind_is_not_lent() -> None:
    parts = FileParts()
    part = parts.add_part(0, LENGTH)
    parts.record_written(part, HASH_STEP_BYTES - 1, hashed=False)
    with ThreadPoolExecutor(1) as hasher:
        waiting = hasher.submit(parts.wait_for_bytes, part, wait_s=60)
        assert not parts.lend_hash(part)
        parts.record_written(part, 1, hashed=False)
        assert waiting.result()
    assert part.hashed == 0


def test_a_hash_that_is_lent_is_not_used_until_it_is_back() -> None:
    parts = FileParts()
    part = parts.add_part(0, LENGTH)
    with ThreadPoolExecutor(1) as hasher:
        waiting = hasher.submit(parts.wait_for_bytes, part, wait_s=60)
        while not parts.lend_hash(part):
            pass
        parts.fail_all(OSError("something else"))
        assert not waiting.result()
    parts.record_written(part, LENGTH, hashed=True)
    assert parts.wait_for_bytes(part, wait_s=0)
