"""The environment as typed values, one file a noun; `environment.Settings` is the whole."""
