"""The services that lend AWS keys (STS, SSO, a container's, an instance's), all of them on one loopback port."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.scripted_server import answering_by

ACCOUNT = "arn:aws:iam::123456789012:role/"
# Signs URLs in a process of its own, by a clock of its own: botocore finds the user's folder when it is imported.
_PROGRAM = """
import datetime, os, sys
import botocore.session
from comfypin.errors import ComfypinError
from comfypin.storage.registry import open_bucket
since, step, real = 0.0, float(sys.argv[2]), datetime.datetime
class Clock(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(minutes=since)
if step:
    datetime.datetime = Clock
try:
    store = open_bucket("s3", "pics", "", os.environ)
    for _ in range(int(sys.argv[1])):
        print(store.signed_url("a", ttl_s=60))
        since += step
except ComfypinError as exc:
    print(type(exc).__name__, exc.message)
"""


@dataclass
class AwsCloud:
    """Lends keys named KEY-1, KEY-2, ... that are good for so many minutes; `asked` is what for, in order."""

    minutes: float = 60.0
    url: str = ""
    asked: list[str] = field(default_factory=list)
    lent: int = 0
    refusal: tuple[int, str] | None = None

    def answer(self, handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)).decode()
        address = urlsplit(handler.path)
        if self.refusal is not None:
            return self.refusal
        if handler.command == "POST" and "Action=" in body:
            return 200, self._of_sts({name: values[0] for name, values in parse_qs(body).items()})
        match address.path:
            case "/federation/credentials":
                role = parse_qs(address.query)["role_name"][0]
                self.asked.append(f"sso {role} {handler.headers['x-amz-sso_bearer_token']}")
                return 200, json.dumps({"roleCredentials": self._of_sso()})
            case "/token":
                asked = json.loads(body)
                self.asked.append(f"sso-oidc {asked['refreshToken']}")
                return 200, json.dumps({"accessToken": "new-token", "expiresIn": 3600})
            case "/latest/api/token":
                return 200, "imds-token"
            case "/latest/meta-data/iam/security-credentials/":
                return 200, "the-instances-role"
            case "/latest/meta-data/iam/security-credentials/the-instances-role":
                self.asked.append(f"imds {handler.headers['X-aws-ec2-metadata-token']}")
                return 200, json.dumps({**self._lend(), "Code": "Success", "Type": "AWS-HMAC"})
            case "/container":
                self.asked.append(f"container {handler.headers['Authorization']}")
                return 200, json.dumps(self._lend())
        return 404, ""

    def _of_sts(self, asked: Mapping[str, str]) -> str:
        action = asked["Action"]
        self.asked.append(f"sts {action} {asked['RoleArn'].removeprefix(ACCOUNT)} {asked.get('WebIdentityToken', '')}")
        keys = self._lend()
        inner = "".join(f"<{name.replace('Token', 'SessionToken')}>{value}</{name.replace('Token', 'SessionToken')}>"
                        for name, value in keys.items())  # fmt: skip
        return (
            f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result>'
            f"<Credentials>{inner}</Credentials></{action}Result></{action}Response>"
        )

    def _of_sso(self) -> dict[str, object]:
        keys = self._lend()
        until = datetime.fromisoformat(keys["Expiration"].replace("Z", "+00:00"))
        return {
            "accessKeyId": keys["AccessKeyId"],
            "secretAccessKey": keys["SecretAccessKey"],
            "sessionToken": keys["Token"],
            "expiration": int(until.timestamp() * 1000),
        }

    def _lend(self) -> dict[str, str]:
        self.lent += 1
        until = (datetime.now(UTC) + timedelta(minutes=self.minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = f"KEY-{self.lent}"
        return {"AccessKeyId": name, "SecretAccessKey": "s", "Token": f"token-{self.lent}", "Expiration": until}


@contextmanager
def aws_cloud() -> Iterator[AwsCloud]:
    cloud = AwsCloud()
    with answering_by(cloud.answer, {"Content-Type": "application/json"}) as url:
        cloud.url = url
        yield cloud


@dataclass(frozen=True)
class Machine:
    """A user's home and the variables of a process in it, which know no real service's address."""

    home: Path
    cloud: AwsCloud

    def write(self, name: str, text: str) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def signed(self, times: int = 1, *, minutes_between: float = 0, **environ: str) -> list[str]:
        """The lines of a process that signs URLs, so many minutes apart by its own clock: addresses, or a failure."""
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("AWS_")}
        url = self.cloud.url
        services = {f"AWS_ENDPOINT_URL_{name}": url for name in ("STS", "SSO", "SSO_OIDC")}
        own = {
            "HOME": str(self.home),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1",
            "AWS_REGION": "eu-west-1",
        }
        command = [sys.executable, "-c", _PROGRAM, str(times), str(minutes_between)]
        done = subprocess.run(
            command, env={**kept, **services, **own, **environ}, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()


def key_of(url: str) -> str:
    """The access key id, and the session token if there is one, that a URL was signed with."""
    query = parse_qs(urlsplit(url).query)
    token = query.get("X-Amz-Security-Token", [""])[0]
    return f"{query['X-Amz-Credential'][0].partition('/')[0]} {token}".strip()
