"""`python -m comfypin.engine.embedded`: run the embedded engine as a process, with ComfyUI's flags."""

import sys

from comfypin.engine.embedded.arguments import parse_arguments


def main() -> int:
    """Serve until a signal arrives."""
    arguments = parse_arguments(sys.argv[1:])
    from comfypin.engine.embedded.server import serve

    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main())
