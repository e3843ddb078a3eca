"""`comfypin sync` as people run it: a process of its own, a real S3 server, signals, exhausted watches, overflow."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.object_servers import ACCESS_KEY, SECRET_KEY, AzureServer, S3Server, rclone_server


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


def environment(base: Path, s3: S3Server | None = None) -> dict[str, str]:
    keys = {} if s3 is None else {
        "S3_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }  # fmt: skip
    return {**os.environ, "COMFYPIN_STATE_DIR": str(base / "state"), **keys}


def command(folder: Path, destination: object, *flags: str) -> list[str]:
    return [sys.executable, "-m", "comfypin.cli.main", "sync", str(folder), str(destination), *flags]


def eventually(condition: Callable[[], bool], *, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_arrives_in_a_bucket_and_a_second_run_says_so(tmp_path: Path, s3: S3Server) -> None:
    bucket = s3.new_bucket("sync-once")
    folder = tmp_path / "outputs"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"a")
    (folder / "sub" / "b.mp4").write_bytes(b"b" * 100_000)
    for _ in range(2):
        once = command(folder, f"s3://{bucket}/pods/one", "--once", "--settle", "0.2", "--json")
        run = subprocess.run(once, env=environment(tmp_path, s3), capture_output=True, text=True, check=True)
    assert s3.objects(bucket) == {"pods/one/a.png": b"a", "pods/one/sub/b.mp4": b"b" * 100_000}
    head = s3.boto.head_object(Bucket=bucket, Key="pods/one/sub/b.mp4")
    assert head["ContentType"] == "video/mp4"
    assert json.loads(run.stdout.splitlines()[-1])["done"] == 2


def test_a_folder_arrives_in_an_azure_container(tmp_path: Path, azurite: AzureServer) -> None:
    container = azurite.new_bucket("sync-azure")
    folder = tmp_path / "outputs"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"a")
    (folder / "sub" / "b.mp4").write_bytes(b"b" * 100_000)
    environ = {**os.environ, "COMFYPIN_STATE_DIR": str(tmp_path / "state"), **azurite.environ("another")}
    once = command(folder, f"az://{container}/pods/one", "--once", "--settle", "0.2")
    subprocess.run(once, env=environ, capture_output=True, check=True)
    assert azurite.objects(container) == {"pods/one/a.png": b"a", "pods/one/sub/b.mp4": b"b" * 100_000}


def test_sigterm_delivers_what_is_owed_and_ends_well(tmp_path: Path, s3: S3Server) -> None:
    bucket = s3.new_bucket("sync-term")
    folder = tmp_path / "outputs"
    folder.mkdir()
    syncer = subprocess.Popen(command(folder, f"s3://{bucket}"), env=environment(tmp_path, s3))
    (folder / "first").write_bytes(b"1")
    eventually(lambda: "first" in s3.objects(bucket))
    for index in range(100):
        (folder / f"{index}.bin").write_bytes(os.urandom(1000))
    syncer.send_signal(signal.SIGTERM)
    assert syncer.wait(30) == 0
    assert len(s3.objects(bucket)) == 101


def test_a_bucket_that_does_not_answer_is_said_with_what_is_owed(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"a")
    env = environment(tmp_path) | {
        "S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    flags = ("--settle", "0.1", "--grace", "0.5")
    syncer = subprocess.Popen(command(folder, "s3://nowhere", *flags), env=env, stderr=subprocess.PIPE, text=True)
    time.sleep(4)
    syncer.send_signal(signal.SIGTERM)
    _, said = syncer.communicate(timeout=60)
    assert syncer.returncode == 80
    assert "1 file (1 byte) not uploaded yet: a.bin" in said
    assert "Traceback" not in said
    status = [*command(Path("status"), folder), "s3://nowhere", "--json"]
    told = json.loads(subprocess.run(status, env=env, capture_output=True, text=True, check=True).stdout)
    assert told["pending"] == 1
    assert SECRET_KEY not in said


def test_exhausted_watches_fall_back_to_scanning_with_one_warning(tmp_path: Path) -> None:
    folder, bucket = tmp_path / "outputs", tmp_path / "bucket"
    for index in range(60):
        (folder / f"d{index}").mkdir(parents=True)
    limited = " ".join(command(folder, bucket, "--settle", "0.2", "--poll", "0.3"))
    # The limit is the user's, in a user namespace of its own.
    shell = f"echo 20 > /proc/sys/user/max_inotify_watches && exec {limited}"
    syncer = subprocess.Popen(
        ["unshare", "-Ur", "sh", "-c", shell], env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    )
    time.sleep(2)
    for index in range(60):
        (folder / f"d{index}" / "late.bin").write_bytes(b"x")
    (folder / "d59" / "new").mkdir()
    (folder / "d59" / "new" / "deep.bin").write_bytes(b"y")
    eventually(lambda: bucket.exists() and len(files_below(bucket)) == 61)
    syncer.send_signal(signal.SIGTERM)
    _, said = syncer.communicate(timeout=30)
    assert files_below(bucket) == files_below(folder)
    assert said.count("sysctl fs.inotify.max_user_watches=") == 1


def test_an_overflow_of_the_kernels_queue_loses_nothing(tmp_path: Path) -> None:
    folder, bucket = tmp_path / "outputs", tmp_path / "bucket"
    (folder / "sub").mkdir(parents=True)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    flags = ("--settle", "0.2")
    syncer = subprocess.Popen(
        command(folder, bucket, *flags), env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    )
    (folder / "first").write_bytes(b"1")
    eventually((bucket / "first").exists)
    syncer.send_signal(signal.SIGSTOP)
    # A signal takes a moment: until it is stopped, it empties the queue.
    eventually(lambda: Path(f"/proc/{syncer.pid}/stat").read_text().rpartition(") ")[2][0] == "T")
    # To open for writing and to close is an event, without a byte; two names, or the kernel folds equal events.
    for _ in range(limit // 2 + 100):
        (folder / "sub" / "many.bin").open("ab").close()
        (folder / "sub" / "second.bin").open("ab").close()
    (folder / "after").mkdir()
    (folder / "after" / "the-flood.bin").write_bytes(b"z")
    syncer.send_signal(signal.SIGCONT)
    eventually((bucket / "after" / "the-flood.bin").exists)
    syncer.send_signal(signal.SIGTERM)
    _, said = syncer.communicate(timeout=60)
    assert files_below(bucket) == files_below(folder)
    assert "More changed than the kernel could queue" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["/nowhere/at/all", "s3://b"], 80, "There is no folder /nowhere/at/all"),
        (["."], 64, "takes a folder and a destination"),
        ([".", "ftp://x/y"], 64, "is not the address of a store"),
        ([".", "s3://"], 64, "is not the address of a store"),
        ([".", "./backup"], 64, "synced into itself"),
        ([".", "."], 64, "synced into itself"),
        ([".", "s3://b", "--limit", "fast"], 64, "is not a rate"),
        ([".", "s3://b", "--workers", "0"], 64, "from 1 to 64"),
        (["status", ".", "s3://never-synced"], 64, "Nothing was synced"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "comfypin.cli.main", "sync", *arguments],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stderr
    assert words in run.stderr
    assert "Traceback" not in run.stderr


def test_two_syncers_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    first = subprocess.Popen(command(folder, tmp_path / "bucket"), env=environment(tmp_path))
    (folder / "a").write_bytes(b"a")
    eventually((tmp_path / "bucket" / "a").exists)
    second = subprocess.run(
        command(folder, tmp_path / "bucket"), env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert second.returncode == 80
    assert "is syncing this folder already" in second.stderr
    first.terminate()
    assert first.wait(30) == 0


def test_the_limit_bounds_the_rate(tmp_path: Path) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    for index in range(4):
        (folder / f"{index}.bin").write_bytes(os.urandom(500_000))
    started = time.monotonic()
    flags = ("--once", "--settle", "0.1", "--limit", "1MB/s")
    subprocess.run(command(folder, tmp_path / "bucket", *flags), env=environment(tmp_path), check=True)
    # 2 MB at 1 MB/s; a lower bound, which a slow machine cannot break.
    assert time.monotonic() - started > 1.7


def test_a_read_only_folder_is_delivered_and_what_cannot_be_removed_is_said(tmp_path: Path) -> None:
    folder, bucket = tmp_path / "outputs", tmp_path / "bucket"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"a")
    sync = " ".join(command(folder, bucket, "--once", "--settle", "0.1", "--delete-after"))
    # Read-only in a mount namespace of its own: even root may not write there.
    shell = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && exec {sync}"
    run = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", shell], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert files_below(bucket) == {"a.bin": b"a"}
    assert (folder / "a.bin").exists()
    assert "a.bin is delivered, but was kept here: Read-only file system" in run.stderr
