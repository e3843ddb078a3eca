"""Engines that run prompts: a ComfyUI child process, a remote ComfyUI, or the embedded engine."""
