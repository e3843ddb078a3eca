"""Pin a ComfyUI release in one lock file, run workflows headless anywhere, deliver every output."""

__version__ = "0.2.0"
