"""The documented door `python -m rp_handler.main`; it translates flags and calls comfypin."""
