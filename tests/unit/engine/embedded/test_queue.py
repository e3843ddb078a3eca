import pytest

from comfypin.engine.embedded.queue import EndedPrompt, PromptQueue, QueuedPrompt


def prompt(prompt_id: str, number: float = 0) -> QueuedPrompt:
    return QueuedPrompt(number=number, prompt_id=prompt_id, graph={}, extra_data={}, outputs=())


ENDED = EndedPrompt(status="success", messages=())


def taken(queue: PromptQueue) -> str:
    task = queue.take_next()
    assert isinstance(task, QueuedPrompt)
    return task.prompt_id


def test_the_lowest_number_runs_first_and_equal_ones_as_they_came() -> None:
    queue = PromptQueue()
    for each in (prompt("b", 1), prompt("c", 1), prompt("front", -2), prompt("a", 0)):
        queue.add_prompt(each)
    assert [taken(queue) for _ in range(4)] == ["front", "a", "b", "c"]


def test_a_deleted_prompt_never_runs() -> None:
    queue = PromptQueue()
    queue.add_prompt(prompt("a"))
    queue.add_prompt(prompt("b"))
    assert (queue.delete_waiting("a"), queue.delete_waiting("nope")) == (True, False)
    assert taken(queue) == "b"


def test_the_running_prompt_counts_as_remaining_until_its_history_is_written() -> None:
    queue = PromptQueue()
    queue.add_prompt(prompt("a"))
    task = queue.take_next()
    assert isinstance(task, QueuedPrompt)
    assert (queue.count_unfinished(), queue.find_history("a")) == (1, {})
    queue.finish_prompt(task, ENDED)
    assert (queue.count_unfinished(), list(queue.find_history("a"))) == (0, ["a"])


def test_the_history_forgets_its_oldest_beyond_its_limit() -> None:
    queue = PromptQueue(max_history=2)
    for name in "abc":
        queue.finish_prompt(prompt(name), ENDED)
    assert list(queue.list_history()) == ["b", "c"]


@pytest.mark.parametrize(
    ("max_items", "offset", "expected"), [(2, -1, "cd"), (9, -1, "abcd"), (1, 1, "b"), (0, -1, ""), (3, 3, "d")]
)
def test_a_part_of_the_history(max_items: int, offset: int, expected: str) -> None:
    queue = PromptQueue()
    for name in "abcd":
        queue.finish_prompt(prompt(name), ENDED)
    assert list(queue.list_history(max_items=max_items, offset=offset)) == list(expected)


def test_chores_are_done_before_the_next_prompt() -> None:
    queue = PromptQueue()
    queue.add_prompt(prompt("a"))
    queue.request_chores({"free"})
    assert queue.take_next() == frozenset({"free"})
    assert taken(queue) == "a"
