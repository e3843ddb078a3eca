"""Every source of AWS credentials, from stand-ins on loopback: which keys come out, and that they are renewed."""

import hashlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.aws_cloud import ACCOUNT, AwsCloud, Machine, aws_cloud, key_of

_STATIC = "aws_access_key_id = {0}\naws_secret_access_key = {0}-secret\n"


@pytest.fixture
def cloud() -> Iterator[AwsCloud]:
    with aws_cloud() as made:
        yield made


@pytest.fixture
def machine(tmp_path: Path, cloud: AwsCloud) -> Machine:
    return Machine(tmp_path / "home", cloud)


def test_the_environments_keys_win_over_a_profiles(machine: Machine) -> None:
    machine.write(".aws/credentials", "[default]\n" + _STATIC.format("D"))
    (url,) = machine.signed(AWS_ACCESS_KEY_ID="E", AWS_SECRET_ACCESS_KEY="s", AWS_SESSION_TOKEN="t")
    assert key_of(url) == "E t"


def test_runpods_pair_is_enough_where_its_endpoint_is_meant(machine: Machine) -> None:
    environ = {
        "BUCKET_ENDPOINT_URL": "https://s3.example",
        "BUCKET_ACCESS_KEY_ID": "R",
        "BUCKET_SECRET_ACCESS_KEY": "s",
    }
    (url,) = machine.signed(**environ)
    assert (key_of(url), url.partition("?")[0]) == ("R", "https://s3.example/pics/a")


def test_a_profile_gives_keys_region_and_endpoint(machine: Machine) -> None:
    machine.write(
        ".aws/credentials", f"[default]\n{_STATIC.format('D')}[work]\n{_STATIC.format('W')}aws_session_token = wt\n"
    )
    machine.write(
        ".aws/config",
        "[default]\nregion = eu-north-1\n"
        f"[profile minio]\n{_STATIC.format('M')}region = eu-south-1\nendpoint_url = http://minio.example:9000\n",
    )
    (url,) = machine.signed(AWS_REGION="")
    assert (key_of(url), url.partition("?")[0]) == ("D", "https://pics.s3.eu-north-1.amazonaws.com/a")
    (url,) = machine.signed(AWS_PROFILE="work")
    assert (key_of(url), url.partition("?")[0]) == ("W wt", "https://pics.s3.eu-west-1.amazonaws.com/a")
    (url,) = machine.signed(AWS_PROFILE="minio", AWS_REGION="")
    assert (key_of(url), url.partition("?")[0]) == ("M", "http://minio.example:9000/pics/a")
    assert "%2Feu-south-1%2F" in url


def test_files_may_lie_elsewhere(machine: Machine) -> None:
    credentials = machine.write("elsewhere", "[p]\n" + _STATIC.format("P"))
    (url,) = machine.signed(AWS_SHARED_CREDENTIALS_FILE=str(credentials), AWS_PROFILE="p")
    assert key_of(url) == "P"


def test_a_role_is_assumed_with_another_profiles_keys(machine: Machine, cloud: AwsCloud) -> None:
    machine.write(".aws/credentials", "[base]\n" + _STATIC.format("B"))
    machine.write(".aws/config", f"[profile uploader]\nrole_arn = {ACCOUNT}uploader\nsource_profile = base\n")
    (url,) = machine.signed(AWS_PROFILE="uploader")
    assert key_of(url) == "KEY-1 token-1"
    assert cloud.asked == ["sts AssumeRole uploader "]


def test_a_role_may_be_assumed_with_the_environments_keys(machine: Machine, cloud: AwsCloud) -> None:
    machine.write(".aws/config", f"[profile up]\nrole_arn = {ACCOUNT}up\ncredential_source = EcsContainer\n")
    (url,) = machine.signed(AWS_PROFILE="up", AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{cloud.url}/container")
    assert key_of(url) == "KEY-2 token-2"
    assert cloud.asked == ["container None", "sts AssumeRole up "]


def test_a_role_may_be_assumed_with_the_instances_keys(machine: Machine, cloud: AwsCloud) -> None:
    machine.write(".aws/config", f"[profile up]\nrole_arn = {ACCOUNT}up\ncredential_source = Ec2InstanceMetadata\n")
    (url,) = machine.signed(AWS_PROFILE="up", AWS_EC2_METADATA_SERVICE_ENDPOINT=cloud.url)
    assert key_of(url) == "KEY-2 token-2"
    assert cloud.asked == ["imds imds-token", "sts AssumeRole up "]


def test_a_program_gives_keys(machine: Machine) -> None:
    keys = json.dumps({"Version": 1, "AccessKeyId": "P", "SecretAccessKey": "s", "SessionToken": "t"})
    program = machine.write("keys.py", f"print({keys!r})")
    machine.write(".aws/config", f"[profile vault]\ncredential_process = {sys.executable} {program}\n")
    (url,) = machine.signed(AWS_PROFILE="vault")
    assert key_of(url) == "P t"


def _log_in(machine: Machine, *, hours: float, **more: str) -> None:
    machine.write(
        ".aws/config",
        "[profile corp]\nsso_session = corporation\nsso_account_id = 123456789012\nsso_role_name = uploader\n"
        "[sso-session corporation]\nsso_region = eu-west-1\nsso_start_url = https://corp.example/start\n",
    )
    until = (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = hashlib.sha1(b"corporation", usedforsecurity=False).hexdigest()
    token = {"startUrl": "https://corp.example/start", "region": "eu-west-1", "accessToken": "old-token"}
    machine.write(f".aws/sso/cache/{name}.json", json.dumps({**token, "expiresAt": until, **more}))


def test_a_session_of_sso_gives_a_roles_keys(machine: Machine, cloud: AwsCloud) -> None:
    _log_in(machine, hours=5)
    (url,) = machine.signed(AWS_PROFILE="corp")
    assert key_of(url) == "KEY-1 token-1"
    assert cloud.asked == ["sso uploader old-token"]


def test_a_session_of_sso_is_renewed(machine: Machine, cloud: AwsCloud) -> None:
    later = (datetime.now(UTC) + timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    _log_in(machine, hours=-1, refreshToken="refresh", clientId="c", clientSecret="s", registrationExpiresAt=later)
    (url,) = machine.signed(AWS_PROFILE="corp")
    assert key_of(url) == "KEY-1 token-1"
    assert cloud.asked == ["sso-oidc refresh", "sso uploader new-token"]


def test_a_session_of_sso_that_is_over_says_how_to_log_in(machine: Machine) -> None:
    _log_in(machine, hours=-1)
    (said,) = machine.signed(AWS_PROFILE="corp")
    assert said.startswith("CredentialsMissing")
    assert "aws sso login" in said


@pytest.mark.parametrize("where", ["profile", "variables"])
def test_a_role_is_lent_against_the_token_in_a_file(machine: Machine, cloud: AwsCloud, where: str) -> None:
    token = machine.write("token", "eyJ.jwt")
    if where == "profile":
        machine.write(".aws/config", f"[default]\nrole_arn = {ACCOUNT}web\nweb_identity_token_file = {token}\n")
        (url,) = machine.signed()
    else:
        (url,) = machine.signed(AWS_WEB_IDENTITY_TOKEN_FILE=str(token), AWS_ROLE_ARN=f"{ACCOUNT}web")
    assert key_of(url) == "KEY-1 token-1"
    assert cloud.asked == ["sts AssumeRoleWithWebIdentity web eyJ.jwt"]


def test_a_container_lends_keys_against_its_token(machine: Machine, cloud: AwsCloud) -> None:
    token = machine.write("token", "sesame")
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{cloud.url}/container"}
    (url,) = machine.signed(**environ, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token))
    assert key_of(url) == "KEY-1 token-1"
    assert cloud.asked == ["container sesame"]


def test_an_instance_lends_its_roles_keys(machine: Machine, cloud: AwsCloud) -> None:
    (url,) = machine.signed(AWS_EC2_METADATA_SERVICE_ENDPOINT=cloud.url)
    assert key_of(url) == "KEY-1 token-1"
    assert cloud.asked == ["imds imds-token"]


def test_the_instance_is_not_asked_for_another_services_keys(machine: Machine, cloud: AwsCloud) -> None:
    (said,) = machine.signed(AWS_EC2_METADATA_SERVICE_ENDPOINT=cloud.url, S3_ENDPOINT_URL="https://minio.example")
    assert said.startswith("CredentialsMissing")
    assert "AWS_ACCESS_KEY_ID" in said
    assert cloud.asked == []


@pytest.mark.parametrize("source", ["container", "role", "sso"])
def test_keys_that_soon_expire_are_renewed_while_a_worker_runs(machine: Machine, cloud: AwsCloud, source: str) -> None:
    cloud.minutes = 5
    _log_in(machine, hours=5)
    token = machine.write("token", "eyJ.jwt")
    environ = {
        "container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{cloud.url}/container"},
        "role": {"AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": f"{ACCOUNT}web"},
        "sso": {"AWS_PROFILE": "corp"},
    }[source]
    keys = [key_of(url) for url in machine.signed(3, **environ)]
    assert len(set(keys)) == 3


def test_an_instances_keys_are_renewed_while_a_worker_runs(machine: Machine, cloud: AwsCloud) -> None:
    # Their time is over only minutes later: AWS's client stretches it, for when the instance's service is away.
    cloud.minutes = 30
    urls = machine.signed(3, minutes_between=20, AWS_EC2_METADATA_SERVICE_ENDPOINT=cloud.url)
    assert [key_of(url) for url in urls] == [f"KEY-{number} token-{number}" for number in (1, 2, 3)]
    assert cloud.asked == ["imds imds-token"] * 3


def test_keys_are_asked_for_once_while_they_are_good(machine: Machine, cloud: AwsCloud) -> None:
    urls = machine.signed(3, AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{cloud.url}/container")
    assert [key_of(url) for url in urls] == ["KEY-1 token-1"] * 3
    assert len(cloud.asked) == 1


@pytest.mark.parametrize(
    ("config", "profile", "error", "words"),
    [
        ("", "other", "SettingsConflict", "AWS_PROFILE is 'other', which AWS's files do not have"),
        ("[nonsense", "default", "SettingsConflict", "config cannot be read as a file of AWS profiles"),
        ("[default]\naws_access_key_id = x\n", "default", "CredentialsMissing", "aws_secret_access_key"),
        (f"[default]\nrole_arn = {ACCOUNT}r\nsource_profile = gone\n", "default", "CredentialsMissing", "gone"),
        ("[default]\ncredential_process = false\n", "default", "CredentialsMissing", "custom-process"),
        ("", "default", "CredentialsMissing", "set AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_profile_that_gives_no_keys_is_said_to_be_the_reason(
    machine: Machine, config: str, profile: str, error: str, words: str
) -> None:
    machine.write(".aws/config", config)
    (said,) = machine.signed(**({"AWS_PROFILE": profile} if profile != "default" else {}))
    assert said.startswith(f"{error} ")
    assert words in said


def test_a_profile_that_is_not_needed_may_be_wrong(machine: Machine) -> None:
    (url,) = machine.signed(AWS_PROFILE="other", AWS_ACCESS_KEY_ID="E", AWS_SECRET_ACCESS_KEY="s")
    assert key_of(url) == "E"


@pytest.mark.parametrize(
    ("status", "code", "error"), [(403, "AccessDenied", "CredentialsRefused"), (503, "Throttling", "StoreBusy")]
)
def test_a_role_that_is_not_lent_is_said_with_the_services_request_id(
    machine: Machine, cloud: AwsCloud, status: int, code: str, error: str
) -> None:
    inner = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>You may not</Message></Error>"
    cloud.refusal = (status, f"<ErrorResponse>{inner}<RequestId>1234-abcd</RequestId></ErrorResponse>")
    token = machine.write("token", "eyJ.jwt")
    (said,) = machine.signed(AWS_WEB_IDENTITY_TOKEN_FILE=str(token), AWS_ROLE_ARN=f"{ACCOUNT}web")
    assert said.startswith(f"{error} AWS's token service")
    assert "(request id 1234-abcd)" in said
    assert "eyJ" not in said


def test_a_token_that_fits_in_no_header_is_said(machine: Machine, cloud: AwsCloud) -> None:
    token = machine.write("token", "se\nsame")
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{cloud.url}/container"}
    (said,) = machine.signed(**environ, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token))
    assert said.startswith("CredentialsMissing")


def test_a_token_file_that_is_gone_is_named(machine: Machine) -> None:
    environ = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere/token", "AWS_ROLE_ARN": f"{ACCOUNT}web"}
    (said,) = machine.signed(**environ)
    assert said.startswith("CredentialsMissing")
    assert "/nowhere/token" in said


def test_a_platform_that_does_not_answer_is_said(machine: Machine) -> None:
    (said,) = machine.signed(AWS_CONTAINER_CREDENTIALS_FULL_URI="http://127.0.0.1:1/k", AWS_MAX_ATTEMPTS="1")
    assert said.startswith("CredentialsMissing")
