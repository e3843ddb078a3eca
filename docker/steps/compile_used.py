"""Import what comfypin imports of its dependencies, and compile just that: byte-code for all would be 30 MB more.

Byte-code that is never compared with its source depends on the source alone, so it does not change with times.
"""

import importlib
import py_compile
import sys

USED = (
    *("aiohttp.web", "google.cloud.storage", "google.oauth2.service_account", "numpy", "obstore", "obstore.store"),
    *("packaging.markers", "packaging.tags", "packaging.utils", "PIL.Image", "PIL.PngImagePlugin", "pydantic", "yaml"),
    *("rich.console", "rich.progress", "rich.table", "urllib3", "uv", "zstandard", "fastapi", "fastapi.responses"),
    *("uvicorn", "uvicorn.protocols.http.httptools_impl", "uvicorn.protocols.http.h11_impl", "uvicorn.lifespan.on"),
    *("runpod", "runpod.serverless", "runpod.serverless.worker", "asyncio", "concurrent.futures"),
)

for name in USED:
    importlib.import_module(name)
for module in list(sys.modules.values()):
    source = getattr(module, "__file__", None) or ""
    if source.startswith("/opt/comfypin/") and source.endswith(".py"):
        py_compile.compile(source, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, quiet=1)
