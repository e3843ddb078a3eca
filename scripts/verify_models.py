#!/usr/bin/env python3
"""The documented door `scripts/verify_models.py`: `comfypin models verify --repair` under its first name and flags."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from comfypin.cli.main import main

# Flags of the first scripts that have another name now.
RENAMED = {"--cache-dir": "--store", "--cache": "--store"}


def translated(arguments: list[str]) -> list[str]:
    """The same arguments in today's words."""
    words = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        words.append(RENAMED.get(name, name) + equals + value)
    return words


if __name__ == "__main__":
    sys.exit(main(["models", "verify", "--repair", *translated(sys.argv[1:])]))
