"""The documented door `python -m rp_handler.main`: `comfypin run` under its first name."""

import sys

from comfypin.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
