"""Convert ComfyUI's UI format (what Save writes) into its API format as ComfyUI's own page does it."""
