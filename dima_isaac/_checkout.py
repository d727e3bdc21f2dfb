"""Import the top-level tasks/ and cfg/ folders as ``dima_isaac.tasks`` and ``dima_isaac.cfg`` from a source checkout.

A wheel carries both folders inside the package, and then this finder is never asked: it stands last in
``sys.meta_path`` and answers for nothing but the two folders beside ``dima_isaac/``.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent


class CheckoutFinder:
    """Meta-path finder for ``dima_isaac.tasks`` and ``dima_isaac.cfg``."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, folder = name.rpartition(".")
        init = _ROOT / folder / "__init__.py"
        if package == "dima_isaac" and folder in ("tasks", "cfg") and init.is_file():
            return spec_from_file_location(name, init, submodule_search_locations=[str(init.parent)])
        return None


sys.meta_path.append(CheckoutFinder)  # type: ignore[arg-type]
