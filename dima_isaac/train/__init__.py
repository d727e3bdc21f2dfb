"""Training: the loop, its schedule and persistence, evaluation, probes, videos, and the baselines."""

import sys
from types import ModuleType
from typing import Any

import dima_isaac

_function = dima_isaac.train  # a name that this package takes when its import is complete


class _CallablePackage(ModuleType):
    """This package, which stands for the function that it hides: ``from dima_isaac import train; train(...)``."""

    def __call__(self, *args: Any, **values: Any) -> Any:
        return _function(*args, **values)


sys.modules[__name__].__class__ = _CallablePackage
