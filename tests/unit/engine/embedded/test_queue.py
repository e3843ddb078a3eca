import pytest

from comfypin.engine.embedded.queue import Ended, PromptQueue, QueuedPrompt


def prompt(prompt_id: str, number: float = 0) -> QueuedPrompt:
    return QueuedPrompt(number=number, prompt_id=prompt_id, graph={}, extra_data={}, outputs=())


ENDED = Ended(status="success", messages=())


def taken(queue: PromptQueue) -> str:
    task = queue.take()
    assert isinstance(task, QueuedPrompt)
    return task.prompt_id


def test_the_lowest_number_runs_first_and_equal_ones_as_they_came() -> None:
    queue = PromptQueue()
    for each in (prompt("b", 1), prompt("c", 1), prompt("front", -2), prompt("a", 0)):
        queue.put(each)
    assert [taken(queue) for _ in range(4)] == ["front", "a", "b", "c"]


def test_a_deleted_prompt_never_runs() -> None:
    queue = PromptQueue()
    queue.put(prompt("a"))
    queue.put(prompt("b"))
    assert (queue.delete("a"), queue.delete("nope")) == (True, False)
    assert taken(queue) == "b"


def test_the_running_prompt_counts_as_remaining_until_its_history_is_written() -> None:
    queue = PromptQueue()
    queue.put(prompt("a"))
    task = queue.take()
    assert isinstance(task, QueuedPrompt)
    assert (queue.remaining(), queue.history_of("a")) == (1, {})
    queue.finish(task, ENDED)
    assert (queue.remaining(), list(queue.history_of("a"))) == (0, ["a"])


def test_the_history_forgets_its_oldest_beyond_its_limit() -> None:
    queue = PromptQueue(max_history=2)
    for name in "abc":
        queue.finish(prompt(name), ENDED)
    assert list(queue.history()) == ["b", "c"]


@pytest.mark.parametrize(
    ("max_items", "offset", "expected"), [(2, -1, "cd"), (9, -1, "abcd"), (1, 1, "b"), (0, -1, ""), (3, 3, "d")]
)
def test_a_part_of_the_history(max_items: int, offset: int, expected: str) -> None:
    queue = PromptQueue()
    for name in "abcd":
        queue.finish(prompt(name), ENDED)
    assert list(queue.history(max_items=max_items, offset=offset)) == list(expected)


def test_chores_are_done_before_the_next_prompt() -> None:
    queue = PromptQueue()
    queue.put(prompt("a"))
    queue.ask({"free"})
    assert queue.take() == frozenset({"free"})
    assert taken(queue) == "a"
