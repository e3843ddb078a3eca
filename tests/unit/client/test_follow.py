"""Following a job: over lost connections, restarts and slow servers, until it ends or nobody wants to wait."""

from collections.abc import Iterator

import pytest

from comfypin.client.errors import JobNotFound, ServerRefused, ServerUnreachable, WaitedLongEnough
from comfypin.client.follow import FollowReports, follow_job
from comfypin.client.interface import JobOrder, JobPage, RemoteJob, RemoteJobFilter, RemoteProgress, ServerAddress

LOST = ServerUnreachable(server="s", reason="it closed the connection")
BUSY = ServerRefused(server="s", request="GET /status/j", status=502, reason="bad gateway")


def job(status: str, fraction: float | None = None) -> RemoteJob:
    progress = None if fraction is None else RemoteProgress(fraction=fraction)
    return RemoteJob(id="j", status=status, progress=progress)


class ScriptedServer:
    """A server that answers each `show` with the next of its answers; the last one stays."""

    address = ServerAddress(kind="serve", base_url="http://s", named="http://s")

    def __init__(self, *answers: RemoteJob | Exception) -> None:
        self._answers = list(answers)
        self.asked = 0

    def show(self, job_id: str) -> RemoteJob:
        assert job_id == "j"
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit(self, order: JobOrder) -> RemoteJob:
        raise NotImplementedError

    def list_jobs(self, wanted: RemoteJobFilter) -> JobPage:
        raise NotImplementedError

    def cancel(self, job_id: str) -> RemoteJob:
        raise NotImplementedError

    def retry(self, job_id: str) -> RemoteJob:
        raise NotImplementedError


class TellingServer(ScriptedServer):
    """A server that tells of changes: each time that it is followed, those of the next list, or a failure."""

    def __init__(self, *answers: RemoteJob | Exception, tells: list[list[RemoteJob] | Exception | None]) -> None:
        super().__init__(*answers)
        self._tells = tells
        self.followed = 0

    def changes(self, job_id: str, *, within_s: float | None) -> Iterator[RemoteJob] | None:
        self.followed += 1
        told = self._tells.pop(0)
        if isinstance(told, Exception):
            raise told
        return None if told is None else iter(told)


class Told:
    """What a follower was told, and a clock that its sleeps move."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.now_s = 0.0
        self.reports = FollowReports(
            changed=lambda seen: self.words.append(seen.status),
            lost=lambda reason: self.words.append("lost"),
            found=lambda: self.words.append("found"),
        )

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def follow(self, server: ScriptedServer, start: RemoteJob | str, timeout_s: float | None = None) -> RemoteJob:
        return follow_job(server, start, self.reports, timeout_s=timeout_s, clock=lambda: self.now_s, sleep=self.sleep)


def test_every_change_is_told_once() -> None:
    told = Told()
    running = job("IN_PROGRESS", 0.5)
    server = ScriptedServer(job("IN_QUEUE"), job("IN_QUEUE"), running, running, job("COMPLETED"))
    assert told.follow(server, job("IN_QUEUE")).status == "COMPLETED"
    assert told.words == ["IN_PROGRESS", "COMPLETED"]


@pytest.mark.parametrize("failure", [LOST, BUSY])
def test_a_job_that_was_seen_is_followed_however_long_the_server_is_away(failure: Exception) -> None:
    told = Told()
    server = ScriptedServer(job("IN_PROGRESS"), *[failure] * 50, job("COMPLETED"))
    assert told.follow(server, "j").status == "COMPLETED"
    assert told.words == ["IN_PROGRESS", "lost", "found", "COMPLETED"]


def test_a_server_that_never_answered_is_given_up_soon() -> None:
    server = ScriptedServer(LOST)
    with pytest.raises(ServerUnreachable):
        Told().follow(server, "j")
    assert server.asked == 3


def test_a_job_that_is_not_there_is_not_asked_for_again() -> None:
    server = ScriptedServer(job("IN_QUEUE"), JobNotFound(server="s", job_id="j"))
    with pytest.raises(JobNotFound):
        Told().follow(server, "j")
    assert server.asked == 2


def test_waiting_ends_when_it_was_asked_to_and_the_job_goes_on() -> None:
    with pytest.raises(WaitedLongEnough, match="jobs watch j") as ended:
        Told().follow(ScriptedServer(job("IN_PROGRESS")), "j", timeout_s=5)
    assert ended.value.exit_code == 22
    with pytest.raises(WaitedLongEnough):
        Told().follow(ScriptedServer(job("IN_PROGRESS"), LOST), "j", timeout_s=5)


def test_a_server_that_tells_of_changes_is_not_asked_between_them() -> None:
    told = Told()
    changes = [job("IN_PROGRESS"), job("IN_PROGRESS", 0.5), job("COMPLETED")]
    server = TellingServer(job("IN_QUEUE"), job("COMPLETED"), tells=[changes])
    ended = follow_job(server, job("IN_QUEUE"), told.reports, clock=lambda: told.now_s, sleep=told.sleep)
    assert ended.status == "COMPLETED"
    assert told.words == ["IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]
    assert (server.asked, server.followed, told.now_s) == (2, 1, 0.0)


def test_a_stream_that_is_cut_is_opened_again_and_one_that_there_is_not_is_done_without() -> None:
    told = Told()
    cut = TellingServer(
        job("IN_QUEUE"), job("IN_PROGRESS"), job("COMPLETED"), tells=[[job("IN_PROGRESS")], LOST, [job("COMPLETED")]]
    )
    assert follow_job(cut, "j", told.reports, clock=lambda: told.now_s, sleep=told.sleep).status == "COMPLETED"
    assert cut.followed == 2
    without = TellingServer(job("IN_QUEUE"), job("IN_PROGRESS"), job("COMPLETED"), tells=[None])
    assert follow_job(without, "j", told.reports, clock=lambda: told.now_s, sleep=told.sleep).status == "COMPLETED"
    assert (without.asked, without.followed) == (3, 1)
