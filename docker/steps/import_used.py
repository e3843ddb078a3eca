"""Import what comfypin imports of its dependencies: what is broken fails the build, and what is used is seen."""

import importlib

USED = (
    *("aiohttp.web", "google.cloud.storage", "google_crc32c", "azure.storage.blob", "numpy"),
    *("packaging.markers", "packaging.tags", "packaging.utils", "PIL.Image", "PIL.PngImagePlugin", "pydantic", "yaml"),
    *("rich.console", "rich.progress", "rich.table", "urllib3", "uv", "zstandard", "fastapi", "fastapi.responses"),
    *("uvicorn", "uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.http.h11_impl", "uvicorn.lifespan.on"),
    *("runpod", "runpod.serverless", "runpod.serverless.worker", "asyncio", "concurrent.futures"),
)

for name in USED:
    importlib.import_module(name)
