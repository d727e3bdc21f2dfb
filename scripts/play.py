"""Watch a policy: python scripts/play.py checkpoint=RUN, or task=NAME agent=zero|random; --help lists the keys."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a bare clone, before any install

from dima_isaac.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["play", *sys.argv[1:]]))
