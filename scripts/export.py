"""Write a trained policy as a folder: python scripts/export.py checkpoint=RUN [out=FOLDER]; --help lists the keys."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a bare clone, before any install

from dima_isaac.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
