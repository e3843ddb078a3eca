"""Import what comfypin imports of its dependencies: what is broken fails the build, and what is used is seen."""

import importlib

import botocore.session

USED = (
    *("aiohttp.web", "google.cloud.storage", "google_crc32c", "azure.storage.blob", "numpy"),
    *("packaging.markers", "packaging.tags", "packaging.utils", "PIL.Image", "PIL.PngImagePlugin", "pydantic", "yaml"),
    *("rich.console", "rich.progress", "rich.table", "urllib3", "uv", "zstandard", "fastapi", "fastapi.responses"),
    *("uvicorn", "uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.http.h11_impl", "uvicorn.lifespan.on"),
    *("blake3", "multipart", "prometheus_client", "nats.aio.client", "nats.js.client", "nkeys", "nacl.secret"),
    *("runpod", "runpod.serverless", "runpod.serverless.worker", "asyncio", "concurrent.futures"),
)

for name in USED:
    importlib.import_module(name)

# botocore's descriptions of services are data, which no import looks at.
for service in ("s3", "sts", "sso", "sso-oidc"):
    botocore.session.Session().create_client(service, region_name="us-east-1")
