"""Names, credentials and patience with registries."""

import base64
import json
from pathlib import Path

import pytest

from comfypin.image.errors import LoginRefused, LoginUnreadable, PushFailed, TagInvalid
from comfypin.image.image_names import reference_on_registry, registry_host, require_tags
from comfypin.image.interface import BuildRequest, BuiltImage, Report
from comfypin.image.program_output import ProgramOutput
from comfypin.image.registry_login import Credential, find_credential, push_image, write_docker_config


class FakeBuilder:
    """A builder whose pushes end as they are told to."""

    name = "fake"

    def __init__(self, *reasons: str) -> None:
        self.reasons = list(reasons)
        self.pushes = 0

    def build(self, request: BuildRequest, hear: Report) -> BuiltImage:
        raise NotImplementedError

    def inspect(self, tag: str) -> BuiltImage:
        raise NotImplementedError

    def free_bytes(self) -> int | None:
        return None

    def save(self, tag: str, archive: Path) -> None:
        raise NotImplementedError

    def push(self, tag: str, reference: str, credentials: Path | None, hear: Report) -> str:
        self.pushes += 1
        if self.reasons:
            raise PushFailed(reference=reference, reason=self.reasons.pop(0), tries=1)
        return "sha256:" + "0" * 64


def pushed(builder: FakeBuilder, credential: Credential | None = None) -> str:
    return push_image(
        builder, "x:1", "ghcr.io/me/x:1", credential=credential, report=lambda _: None, sleep=lambda _: None
    )


@pytest.mark.parametrize("tag", ["", "Upper/case:1", "a b", "x:", "-x", "x@sha256:1", "https://ghcr.io/x"])
def test_what_is_no_image_name_is_refused(tag: str) -> None:
    with pytest.raises(TagInvalid):
        require_tags([tag])


@pytest.mark.parametrize(
    ("tag", "registry"),
    [
        ("x:1", "docker.io"),
        ("me/x", "docker.io"),
        ("ghcr.io/me/x:1", "ghcr.io"),
        ("localhost:5000/x", "localhost:5000"),
    ],
)
def test_the_registry_of_a_name(tag: str, registry: str) -> None:
    assert registry_host(tag) == registry


def test_a_registry_is_put_before_the_name() -> None:
    assert reference_on_registry("wan22:1", "ghcr.io/me") == "ghcr.io/me/wan22:1"
    assert reference_on_registry("ghcr.io/me/wan22:1", "harbor.example.org/team/") == "harbor.example.org/team/wan22:1"
    assert reference_on_registry("ghcr.io/me/wan22:1", None) == "ghcr.io/me/wan22:1"


@pytest.mark.parametrize(
    ("registry", "variables", "username", "source"),
    [
        ("ghcr.io", {"GITHUB_TOKEN": "t", "GITHUB_ACTOR": "me"}, "me", "GITHUB_TOKEN"),
        ("docker.io", {"DOCKERHUB_USERNAME": "me", "DOCKERHUB_TOKEN": "t"}, "me", "DOCKERHUB_TOKEN"),
        ("europe-docker.pkg.dev", {"GOOGLE_OAUTH_ACCESS_TOKEN": "t"}, "oauth2accesstoken", "GOOGLE_OAUTH_ACCESS_TOKEN"),
        ("1.dkr.ecr.eu-west-1.amazonaws.com", {"ECR_PASSWORD": "t"}, "AWS", "ECR_PASSWORD"),
        ("harbor.example.org", {"HARBOR_USERNAME": "me", "HARBOR_PASSWORD": "t"}, "me", "HARBOR_PASSWORD"),
        ("anything", {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "t"}, "me", "REGISTRY_PASSWORD"),
    ],
)
def test_each_registry_has_its_variables(registry: str, variables: dict[str, str], username: str, source: str) -> None:
    found = find_credential(registry, variables)
    assert found == Credential(username, "t", source)


def test_a_key_file_that_is_not_there_is_named_with_its_variable(tmp_path: Path) -> None:
    variables = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json")}
    with pytest.raises(LoginUnreadable, match=r"GOOGLE_APPLICATION_CREDENTIALS names .*key\.json"):
        find_credential("europe-docker.pkg.dev", variables)
    (tmp_path / "key.json").write_text("{}")
    assert find_credential("europe-docker.pkg.dev", variables) == Credential(
        "_json_key", "{}", "GOOGLE_APPLICATION_CREDENTIALS"
    )


@pytest.mark.parametrize("variable", ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS_JSON"])
def test_a_key_may_be_in_the_variable_itself(variable: str) -> None:
    key = '{"type": "service_account", "private_key": "s3cret"}'
    found = find_credential("gcr.io", {variable: f" {key}\n"})
    assert found == Credential("_json_key", key, variable)


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ('{"type": "authorized_user", "refresh_token": "s3cret"}', "another kind"),
        ('{"private_key": s3cret', "not the JSON"),
    ],
)
def test_json_that_a_registry_does_not_take_is_refused_and_not_shown(held: str, says: str) -> None:
    with pytest.raises(
        LoginUnreadable, match=rf"GOOGLE_APPLICATION_CREDENTIALS holds .*{says}.*ACCESS_TOKEN"
    ) as caught:
        find_credential("gcr.io", {"GOOGLE_APPLICATION_CREDENTIALS": held})
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_one_registrys_token_goes_to_no_other() -> None:
    variables = {"GHCR_TOKEN": "t", "ECR_PASSWORD": "t", "HARBOR_PASSWORD": "t"}
    assert find_credential("docker.io", variables) is None
    assert find_credential("registry.example.org", variables) is None


def test_a_credential_is_only_in_a_file_of_ours_and_then_gone() -> None:
    with write_docker_config("docker.io", Credential("me", "secret", "X")) as folder:
        assert folder is not None
        assert (folder / "config.json").stat().st_mode & 0o077 == 0
        auths = json.loads((folder / "config.json").read_text())["auths"]
    assert base64.b64decode(auths["https://index.docker.io/v1/"]["auth"]) == b"me:secret"
    assert not folder.exists()
    assert "secret" not in repr(Credential("me", "secret", "X"))


def test_a_push_is_tried_again() -> None:
    builder = FakeBuilder("connection reset", "timeout")
    assert pushed(builder).startswith("sha256:")
    assert builder.pushes == 3


def test_a_refused_credential_is_not_tried_again_and_named() -> None:
    builder = FakeBuilder("unauthorized: authentication required")
    with pytest.raises(LoginRefused, match="GHCR_TOKEN"):
        pushed(builder, Credential("me", "t", "GHCR_TOKEN"))
    assert builder.pushes == 1


def test_without_a_credential_it_says_which_variable_would_help() -> None:
    with pytest.raises(LoginRefused, match="GHCR_TOKEN"):
        pushed(FakeBuilder("denied: permission_denied"))


# What docker and buildah print last, of registries that say no.
@pytest.mark.parametrize(
    ("printed", "kind", "says"),
    [
        (
            "denied: permission_denied: write_package",
            LoginRefused,
            r"with GHCR_TOKEN \(denied: permission_denied: write_",
        ),
        (
            "name unknown: The repository with name 'me/x' does not exist in the registry with id '1'",
            PushFailed,
            r"\(1 try\): name unknown: .* id '1'\. The registry has no such repository .* make it there first",
        ),
        ("unauthorized: project me not found: project me not found", PushFailed, r"\(1 try\).* make it there first"),
    ],
)
def test_what_another_try_cannot_mend_is_not_tried_again_and_told_in_the_registrys_words(
    printed: str, kind: type[Exception], says: str
) -> None:
    builder = FakeBuilder(printed)
    with pytest.raises(kind, match=says):
        pushed(builder, Credential("me", "t", "GHCR_TOKEN"))
    assert builder.pushes == 1


# The last lines of real pushes to a registry of ours: a wrong password, nobody there, and no such host; and docker's.
@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (
            'Error: pushing image "tiny:1" to "docker://127.0.0.1:58663/me/x:1": trying to reuse blob sha256:5f70bf at '
            "destination: checking whether a blob sha256:5f70bf exists in 127.0.0.1:58663/me/x: unauthorized: "
            "authentication required",
            "unauthorized: authentication required",
        ),
        (
            'Error: pushing image "tiny:1" to "docker://127.0.0.1:51573/me/x:1": trying to reuse blob sha256:5f70bf at '
            'destination: pinging container registry 127.0.0.1:51573: Get "http://127.0.0.1:51573/v2/": dial tcp '
            "127.0.0.1:51573: connect: connection refused",
            'Get "http://127.0.0.1:51573/v2/": dial tcp 127.0.0.1:51573: connect: connection refused',
        ),
        ("denied: requested access to the resource is denied", "denied: requested access to the resource is denied"),
        ("", "exit 1"),
    ],
)
def test_why_a_push_failed_is_the_end_of_what_was_printed(printed: str, reason: str) -> None:
    output = ProgramOutput(exit_code=1, last_lines=("Getting image source signatures", printed, "") if printed else ())
    assert output.push_reason == reason


def test_a_registry_that_is_not_there_is_to_be_checked() -> None:
    with pytest.raises(PushFailed, match=r"4 tries.*no such host\. Check the registry's name and the network"):
        pushed(FakeBuilder(*["dial tcp: lookup registry.invalid on 127.0.0.53:53: no such host"] * 9))


def test_a_push_that_never_comes_through_says_how_often() -> None:
    with pytest.raises(PushFailed, match="4 tries"):
        pushed(FakeBuilder(*["timeout"] * 9))
