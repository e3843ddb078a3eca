"""Comfy API v2: assets and jobs as Comfy's own SDKs speak of them, over the one queue of the server."""
