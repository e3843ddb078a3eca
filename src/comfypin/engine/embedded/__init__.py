"""A small CPU engine that speaks ComfyUI's API and executes its model-free image nodes."""
