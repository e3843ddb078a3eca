"""Records what a running ComfyUI and its page do, and compares it with what comfypin does (docs/contributing.md)."""
