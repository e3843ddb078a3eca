"""What runs a prompt: a ComfyUI child process, a remote ComfyUI, or the embedded engine."""
