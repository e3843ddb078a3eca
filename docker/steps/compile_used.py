"""Import what comfypin imports of its dependencies, and compile just that: byte-code for all would be 30 MB more.

Byte-code that is never compared with its source depends on the source alone, so it does not change with times.
"""

import importlib
import sys
from importlib.util import source_hash
from pathlib import Path

USED = (
    *("aiohttp.web", "google.cloud.storage", "google.oauth2.service_account", "numpy"),
    *("packaging.markers", "packaging.tags", "packaging.utils", "PIL.Image", "PIL.PngImagePlugin", "pydantic", "yaml"),
    *("rich.console", "rich.progress", "rich.table", "urllib3", "uv", "zstandard", "fastapi", "fastapi.responses"),
    *("uvicorn", "uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.http.h11_impl", "uvicorn.lifespan.on"),
    *("runpod", "runpod.serverless", "runpod.serverless.worker", "asyncio", "concurrent.futures"),
)

for name in USED:
    importlib.import_module(name)
for module in list(sys.modules.values()):
    source, cached = getattr(module, "__file__", None), getattr(module, "__cached__", None)
    if source and cached and source.startswith("/opt/comfypin/") and Path(cached).is_file():
        # The header (PEP 552): the magic number, 1 for "by hash, unchecked", and the hash instead of time and size.
        code = Path(cached).read_bytes()
        hashed = source_hash(Path(source).read_bytes())
        Path(cached).write_bytes(code[:4] + (1).to_bytes(4, "little") + hashed + code[16:])
