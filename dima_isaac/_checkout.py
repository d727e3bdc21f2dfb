"""Import the top-level tasks/, cfg/ and zoo/ folders as ``dima_isaac.tasks`` and so on from a source checkout.

It stands first in ``sys.meta_path``, before the finder of an editable install, which may belong to another clone. A
wheel carries these folders inside the package, and folders beside that package belong to other packages.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent


class CheckoutFinder:
    """Meta-path finder for ``dima_isaac.tasks``, ``dima_isaac.cfg`` and ``dima_isaac.zoo``."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, folder = name.rpartition(".")
        if package != "dima_isaac" or folder not in ("tasks", "cfg", "zoo"):
            return None
        init, inside = _ROOT / folder / "__init__.py", _ROOT / package / folder
        if inside.is_dir() or not init.is_file():
            return None
        return spec_from_file_location(name, init, submodule_search_locations=[str(init.parent)])


sys.meta_path.insert(0, CheckoutFinder)  # type: ignore[arg-type]
