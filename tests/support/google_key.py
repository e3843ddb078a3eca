"""A service account's key file, made on the spot: Google's signatures can be made offline with it."""

import functools
import json
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


@functools.cache
def _private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def service_account(path: Path, *, token_uri: str = "https://oauth2.googleapis.com/token") -> Path:
    facts = {
        "type": "service_account",
        "project_id": "test-project",
        "private_key_id": "0123",
        "private_key": _private_key(),
        "client_email": "writer@test-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    path.write_text(json.dumps(facts))
    return path
