"""Builds the site: `python -m tools.site [--out build/site] [--serve]`; `make site` does it.

A page or an anchor that does not exist ends the build.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.site.pages import PROJECT, stage_pages


def main() -> int:
    """Stage the pages and run mkdocs over them; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PROJECT / "build" / "site", help="the folder of the site")
    parser.add_argument("--serve", action="store_true", help="serve it on 127.0.0.1:8000 instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="comfypin-site-") as staged:
        stage_pages(Path(staged))
        command = ["serve"] if arguments.serve else ["build", "--strict", "--site-dir", str(arguments.out.resolve())]
        mkdocs = [sys.executable, "-m", "mkdocs", *command, "--config-file", str(PROJECT / "mkdocs.yml")]
        # mkdocs.yml takes its folder of pages from this variable.
        return subprocess.run(mkdocs, env=os.environ | {"SITE_PAGES": staged}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
