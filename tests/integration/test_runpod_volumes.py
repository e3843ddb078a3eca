"""`comfypin runpod volume` against an S3 server behind Runpod's limits: push, resume after kill -9, ls, verify, gc."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from comfypin.cli.main import main
from comfypin.digest import Digest
from comfypin.errors import StorageError
from comfypin.lock.codec import render_lock
from comfypin.lock.model import EngineSpec, Lock, ModelPin
from comfypin.runpod.errors import VolumeTooSmall
from comfypin.runpod.volume_bucket import VolumeBucket
from comfypin.runpod.volume_push import VolumePusher
from comfypin.runpod.volume_release import FileToPush, PushRecord
from comfypin.runpod.volumes import NetworkVolume, PushDestination, require_space
from comfypin.settings.environment import Settings
from comfypin.storage.s3_settings import S3Credentials, S3Settings
from comfypin.wiring import open_volume_bucket
from tests.conftest import shared_path
from tests.support.models import pin_of, safetensors, some_bytes
from tests.support.object_servers import ACCESS_KEY, SECRET_KEY, S3Server, boto_client
from tests.support.releases import small_release
from tests.support.runpod_api import KEY, FakeRunPod
from tests.support.runpod_volumes import VolumeGate

SMALL = safetensors(some_bytes(100_000, seed=1))
LARGE = safetensors(some_bytes(22 << 20, seed=2))
RECORDS = "comfypin/releases/"


@dataclass
class Desk:
    """A user's machine with a release, an account with volumes, and the gateway before their S3."""

    folder: Path
    runpod: FakeRunPod
    gate: VolumeGate
    s3: S3Server
    capture: pytest.CaptureFixture[str]

    def volume(self, name: str = "models", center: str = "EU-RO-1", size: int = 10) -> str:
        body = {"name": name, "size": size, "dataCenter": center}
        _status, made = self.runpod.answer("POST", "/v2/network-volumes", body)
        # The buckets of this server are everybody's: the volume's id is made this test's own.
        identifier = f"{made['id']}-{abs(hash(str(self.folder))) % 10**9}"
        volumes = self.runpod.state["networkVolumes"]
        volumes[identifier] = {**volumes.pop(made["id"]), "id": identifier}
        return self.s3.new_bucket(identifier)

    def lock(self, *pins: ModelPin, name: str = "wan22") -> str:
        path = self.folder / f"{name}.lock.json"
        path.write_bytes(render_lock(Lock(version_name=name, models=pins, engine=EngineSpec(kind="embedded"))))
        return str(path)

    def pin(self, data: bytes, target: str = "vae/x.safetensors", **more: Any) -> ModelPin:
        source = self.folder / "sources" / target.rpartition("/")[2]
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(data)
        return pin_of(data, source.as_uri(), target=f"$MODELS_DIR/{target}", **more)

    def run(self, verb: str, *arguments: str) -> tuple[int, str, str]:
        code = main(["runpod", "volume", verb, *arguments])
        said = self.capture.readouterr()
        return code, said.out, said.err

    def push(self, lock: str, *arguments: str, volume: str = "models") -> tuple[int, str, str]:
        return self.run("push", lock, "--volume", volume, "--part-size", "5", *arguments)

    def pushed(self, lock: str, *arguments: str) -> Any:
        code, out, err = self.push(lock, "--json", *arguments)
        assert code == 0, err
        return json.loads(out)["volumes"]


@pytest.fixture
def desk(
    tmp_path: Path, moto: S3Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    openapi = shared_path("openapi") / "runpod-rest-v2.openapi.json"
    with FakeRunPod(openapi) as runpod, VolumeGate(moto.url) as gate:
        for name, value in {
            "RUNPOD_API_URL": runpod.url,
            "RUNPOD_API_KEY": KEY,
            "RUNPOD_S3_URL": gate.url,
            "RUNPOD_S3_ACCESS_KEY": ACCESS_KEY,
            "RUNPOD_S3_SECRET_KEY": SECRET_KEY,
            "MODELS_DIR": str(tmp_path / "models"),
            "COMFY_HOME": str(tmp_path / "comfy"),
            "COMFYPIN_STATE_DIR": str(tmp_path / "state"),
            "COMFYPIN_CACHE_DIR": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        yield Desk(tmp_path, runpod, gate, moto, capsys)
    assert runpod.violations == []


def files_of(s3: S3Server, bucket: str) -> dict[str, bytes]:
    return {key: data for key, data in s3.objects(bucket).items() if not key.endswith(".json")}


def test_a_release_is_on_the_volume_where_a_pod_looks_for_it(desk: Desk) -> None:
    bucket = desk.volume()
    lock = desk.lock(desk.pin(SMALL), desk.pin(LARGE, "unet/large.safetensors"))
    code, out, err = desk.push(lock)
    assert code == 0, err
    assert "models in EU-RO-1: 2 files there (2 models), 23.2 MB sent" in out
    assert files_of(desk.s3, bucket) == {
        "models/vae/x.safetensors": SMALL,
        "models/unet/large.safetensors": LARGE,
    }
    assert desk.gate.refused == []
    mounted = desk.folder / "mounted"
    for key, data in desk.s3.objects(bucket).items():
        (mounted / key).parent.mkdir(parents=True, exist_ok=True)
        (mounted / key).write_bytes(data)
    assert main(["models", "verify", "--lock", lock, "--models-dir", str(mounted / "models")]) == 0
    assert main(["models", "ls", "--models-dir", str(mounted / "models"), "--json"]) == 0


def test_a_second_push_sends_no_write_and_needs_no_model_here(desk: Desk) -> None:
    desk.volume()
    lock = desk.lock(desk.pin(SMALL), desk.pin(LARGE, "unet/large.safetensors"))
    assert desk.push(lock)[0] == 0
    desk.gate.log.clear()
    subprocess.run(["rm", "-rf", str(desk.folder / "models"), str(desk.folder / "sources")], check=True)
    (volume,) = desk.pushed(lock)
    assert volume["sent_bytes"] == 0
    assert desk.gate.writes == []


def test_only_what_changed_is_sent(desk: Desk) -> None:
    bucket = desk.volume()
    desk.push(desk.lock(desk.pin(SMALL), desk.pin(LARGE, "unet/large.safetensors")))
    other = safetensors(some_bytes(5_000, seed=9))
    lock = desk.lock(desk.pin(other), desk.pin(LARGE, "unet/large.safetensors"))
    (volume,) = desk.pushed(lock)
    assert [item["key"] for item in volume["pushed"]] == ["models/vae/x.safetensors"]
    assert files_of(desk.s3, bucket)["models/vae/x.safetensors"] == other


@pytest.mark.parametrize("listed", [True, False])
def test_a_push_killed_in_the_middle_goes_on_and_sends_no_part_twice(desk: Desk, listed: bool) -> None:
    bucket = desk.volume()
    lock = desk.lock(desk.pin(LARGE, "unet/large.safetensors"))
    desk.gate.hold_after, desk.gate.lists_uploads = 3, listed
    command = [sys.executable, "-m", "comfypin.cli.main", "runpod", "volume", "push", lock]
    process = subprocess.Popen(
        [*command, "--volume", "models", "--part-size", "5"], env=os.environ, stdout=subprocess.DEVNULL
    )
    assert desk.gate.held.wait(120)
    process.kill()
    process.wait()
    assert bucket_is_empty(desk.s3, bucket)
    first = set(desk.gate.parts)
    desk.gate.hold_after = None
    (volume,) = desk.pushed(lock)
    assert volume["pushed"][0]["state"] == "resumed"
    assert set(desk.gate.parts.values()) == {1}
    assert len(first) == 3
    assert len(desk.gate.parts) == 5
    assert files_of(desk.s3, bucket) == {"models/unet/large.safetensors": LARGE}
    assert desk.s3.unfinished_uploads(bucket) == []


@pytest.mark.soak
def test_a_push_killed_after_every_part_gets_there_and_sends_no_part_twice(desk: Desk) -> None:
    bucket = desk.volume()
    lock = desk.lock(desk.pin(LARGE, "unet/large.safetensors"))
    command = [sys.executable, "-m", "comfypin.cli.main", "runpod", "volume", "push", lock]
    for sent in range(1, 5):
        desk.gate.hold_after, desk.gate.waiting = sent, 0
        desk.gate.held.clear()
        process = subprocess.Popen([*command, "--volume", "models", "--part-size", "5"], env=os.environ)
        assert desk.gate.held.wait(120)
        process.kill()
        process.wait()
        assert len(desk.gate.parts) == sent
    desk.gate.hold_after = None
    assert desk.push(lock)[0] == 0
    assert set(desk.gate.parts.values()) == {1}
    assert files_of(desk.s3, bucket) == {"models/unet/large.safetensors": LARGE}


def test_an_interrupted_push_ends_soon_and_goes_on_later(desk: Desk) -> None:
    bucket = desk.volume()
    lock = desk.lock(desk.pin(LARGE, "unet/large.safetensors"))
    desk.gate.hold_after = 0
    command = [sys.executable, "-m", "comfypin.cli.main", "runpod", "volume", "push", lock]
    process = subprocess.Popen([*command, "--volume", "models", "--part-size", "5"], env=os.environ)
    assert desk.gate.held.wait(120)
    process.send_signal(signal.SIGINT)
    desk.gate.hold_after = None
    desk.gate.released.set()
    assert process.wait(60) == 130
    assert desk.push(lock)[0] == 0
    assert files_of(desk.s3, bucket) == {"models/unet/large.safetensors": LARGE}


def bucket_is_empty(s3: S3Server, bucket: str) -> bool:
    return s3.objects(bucket) == {}


def test_a_part_that_was_damaged_meanwhile_is_sent_again(desk: Desk) -> None:
    bucket = desk.volume()
    lock = desk.lock(desk.pin(LARGE, "unet/large.safetensors"))
    key = "models/unet/large.safetensors"
    upload = desk.s3.boto.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    desk.s3.boto.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"x" * (5 << 20))
    desk.s3.boto.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=2, Body=LARGE[5 << 20 : 10 << 20])
    (volume,) = desk.pushed(lock)
    assert volume["sent_bytes"] == len(LARGE) - (5 << 20)
    assert files_of(desk.s3, bucket)[key] == LARGE


def test_what_was_there_before_its_record_is_recognized(desk: Desk) -> None:
    bucket = desk.volume()
    lock = desk.lock(desk.pin(SMALL), desk.pin(LARGE, "unet/large.safetensors"))
    desk.push(lock)
    for key in desk.s3.objects(bucket):
        if key.startswith(RECORDS):
            desk.s3.boto.delete_object(Bucket=bucket, Key=key)
    (volume,) = desk.pushed(lock)
    assert {item["state"] for item in volume["pushed"]} == {"recognized"}
    assert volume["sent_bytes"] == 0


def test_an_answer_lost_after_joining_is_no_failure(desk: Desk) -> None:
    bucket = desk.volume()
    desk.gate.lose_answers_of.append("^POST .*uploadId")
    lock = desk.lock(desk.pin(LARGE, "unet/large.safetensors"))
    assert desk.push(lock)[0] == 0
    assert files_of(desk.s3, bucket) == {"models/unet/large.safetensors": LARGE}


def test_the_env_pack_goes_along_and_makes_the_env_on_the_other_side(desk: Desk) -> None:
    bucket = desk.volume()
    release = small_release(desk.folder / "release")
    lock = str(release.write_lock())
    (volume,) = desk.pushed(lock)
    (pack,) = [item["key"] for item in volume["pushed"] if item["key"].startswith("packs/")]
    packs = desk.folder / "volume" / "packs"
    packs.mkdir(parents=True)
    (packs / pack.removeprefix("packs/")).write_bytes(desk.s3.objects(bucket)[pack])
    home = ["--home", str(desk.folder / "pod"), "--packs", str(packs)]
    assert main(["realize", lock, *home, "--offline", "--no-models", "--json"]) == 0
    assert json.loads(desk.capture.readouterr().out)["action"] == "unpack"
    desk.gate.log.clear()
    subprocess.run(["rm", "-rf", str(desk.folder / "comfy"), str(desk.folder / "cache" / "packs")], check=True)
    (again,) = desk.pushed(lock)
    assert again["sent_bytes"] == 0
    assert desk.gate.writes == []


def test_volumes_in_several_data_centres_are_pushed_at_once(desk: Desk) -> None:
    buckets = [desk.volume("eu", "EU-RO-1"), desk.volume("us", "US-KS-2")]
    lock = desk.lock(desk.pin(SMALL))
    code, out, err = desk.run("push", lock, "--volume", "eu", "--volume", "us")
    assert code == 0, err
    assert out.count("1 file there (1 model)") == 2
    assert [files_of(desk.s3, bucket) for bucket in buckets] == [{"models/vae/x.safetensors": SMALL}] * 2


def test_a_volume_that_fails_does_not_keep_the_others(desk: Desk) -> None:
    desk.volume("small", "EU-RO-1")
    other = desk.volume("us", "US-KS-2")
    desk.s3.boto.put_object(Bucket=other, Key="models/vae/x.safetensors", Body=b"somebody else's")
    lock = desk.lock(desk.pin(SMALL))
    code, _out, err = desk.run("push", lock, "--volume", "small", "--volume", "us")
    assert code == 70
    assert "1 of 2 volumes failed" in err
    assert "models/vae/x.safetensors holds a different file, of somebody else" in err
    assert desk.run("push", lock, "--volume", "us", "--overwrite")[0] == 0
    assert files_of(desk.s3, other) == {"models/vae/x.safetensors": SMALL}


def test_what_does_not_fit_is_refused_before_it_is_sent(desk: Desk) -> None:
    bucket = open_volume_bucket(desk.volume(), "EU-RO-1", Settings(os.environ))
    pusher = VolumePusher(bucket, PushRecord(release="wan22", lock_digest="", complete=False, files={}))
    volume = NetworkVolume(identifier="v", name="models", data_center="EU-RO-1", size_gb=10)
    huge = FileToPush(key="models/x", path=desk.folder, sha256=Digest.of(b""), size_bytes=11 << 30)
    with pytest.raises(VolumeTooSmall, match="grow it"):
        require_space(PushDestination(volume=volume, pusher=pusher), [huge])


def test_signatures_are_those_that_a_server_computes(rclone: S3Server, tmp_path: Path) -> None:
    name = rclone.new_bucket("signed")

    def volume(secret: str) -> VolumeBucket:
        keys = S3Credentials(access_key_id=ACCESS_KEY, secret_access_key=secret)
        return VolumeBucket(S3Settings(bucket=name, endpoint=rclone.url, region="EU-RO-1", credentials=keys))

    bucket = volume(SECRET_KEY)
    key = "models/a folder/x=1+2 ~(ä).safetensors"
    bucket.put_object(key, b"bytes")
    assert [item.key for item in bucket.list_objects("models/a folder/")] == [key]
    assert bucket.read_object(key) == b"bytes"
    bucket.delete_object(key)
    assert bucket.head_object(key) is None
    with pytest.raises(StorageError, match="RUNPOD_S3_SECRET_KEY"):
        volume("wrong").put_object(key, b"bytes")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"RUNPOD_S3_ACCESS_KEY": ""}, 3, "RUNPOD_S3_ACCESS_KEY and RUNPOD_S3_SECRET_KEY are not set"),
        ({"RUNPOD_API_KEY": ""}, 3, "RUNPOD_API_KEY is not set"),
        ({"RUNPOD_S3_URL": "http://127.0.0.1:9"}, 31, "could not be reached"),
    ],
)
def test_what_is_missing_is_named(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], code: int, said: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    desk.volume()
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    got, _out, err = desk.run("ls", "--volume", "models")
    assert (got, said in err) == (code, True), err


def test_an_unknown_volume_is_answered_with_those_that_exist(desk: Desk) -> None:
    desk.volume()
    code, _out, err = desk.run("ls", "--volume", "mdoels")
    assert code == 70
    assert "it has models in EU-RO-1" in err
    assert desk.run("ls", "--volume", "models", "--dc", "US-KS-2")[0] == 70


def test_verify_finds_what_is_missing_short_or_other(desk: Desk) -> None:
    bucket = desk.volume()
    desk.push(desk.lock(desk.pin(SMALL), desk.pin(LARGE, "unet/large.safetensors")))
    assert desk.run("verify", "--volume", "models", "--deep")[0] == 0
    desk.s3.boto.delete_object(Bucket=bucket, Key="models/unet/large.safetensors")
    desk.s3.boto.put_object(Bucket=bucket, Key="models/vae/x.safetensors", Body=SMALL[:-1] + b"?")
    code, _out, err = desk.run("verify", "--volume", "models")
    assert code == 70
    assert "models/unet/large.safetensors is missing" in err
    assert "models/vae/x.safetensors has the sha256" in err


def test_gc_takes_what_no_kept_release_names_and_nothing_else(desk: Desk) -> None:
    bucket = desk.volume()
    old = desk.lock(desk.pin(SMALL), desk.pin(SMALL + b"", "vae/shared.safetensors"), name="old")
    desk.push(old)
    desk.push(desk.lock(desk.pin(SMALL, "vae/shared.safetensors"), name="new"))
    desk.s3.boto.put_object(Bucket=bucket, Key="models/mine.safetensors", Body=b"mine")
    code, out, _err = desk.run("gc", "--volume", "models", "--keep", "new")
    assert code == 0
    assert "models/vae/x.safetensors" in out
    assert "would be removed" in out
    assert "models/vae/x.safetensors" in files_of(desk.s3, bucket)
    assert desk.run("gc", "--volume", "models", "--keep", "new", "--yes")[0] == 0
    assert set(files_of(desk.s3, bucket)) == {"models/vae/shared.safetensors", "models/mine.safetensors"}
    assert desk.run("gc", "--volume", "models", "--keep", "typo")[0] == 64
    assert desk.run("verify", "--volume", "models")[0] == 0


def test_the_gateway_of_the_tests_has_runpods_limits(desk: Desk) -> None:
    bucket = desk.volume()
    boto = boto_client(desk.gate.url)
    for refused in (
        lambda: boto.put_object(Bucket=bucket, Key="x", Body=b"x" * 8_000_000),
        lambda: boto.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "x"}]}),
    ):
        with pytest.raises(ClientError):
            refused()
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(boto.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "x"}))
    assert desk.gate.refused == ["EntityTooLarge", "NotImplemented", "PresignedNotSupported"]
