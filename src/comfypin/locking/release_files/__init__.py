"""Files of other tools that say what a ComfyUI is made of, each read by its own module."""
