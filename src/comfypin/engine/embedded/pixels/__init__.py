"""Picture arithmetic in float32, bit for bit as ComfyUI's tensors do it on a CPU."""
