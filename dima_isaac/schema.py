"""Configuration dataclasses as schemas: the ranges of their fields, and values checked against types and ranges.

A field's annotation carries its range, ``gamma: Fraction = 0.99``, so that a number that would fail in the middle of a
run is refused before anything is built; the range of a list bounds its length. The first type of ``A | str`` is the
field's, and the only text it takes is ``auto``, or ``all`` for ``A | All``. Torch-free.
"""

import re
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from dima_isaac.errors import UsageError, unknown

T = TypeVar("T")

AUTO = "auto"


All = Annotated[str, "all"]


class Range(NamedTuple):
    """The least and the greatest value, both allowed, and what values are a multiple of (0: anything)."""

    low: float
    high: float
    step: int = 0

    def text(self, value: float) -> str:
        """What ``value``, which is outside, is not."""
        if self.high >= _LARGEST and value < self.low:
            return "above 0" if self.low == _SMALLEST else f"at least {self.low:_}"  # high only keeps infinity out
        return f"between {self.low:_} and {self.high:_}"


_SMALLEST, _LARGEST = 1e-12, 10**12
_FINITE = Range(-1e12, 1e12)
"""Of a number whose field declares no range."""

Fraction = Annotated[float, Range(0.0, 1.0)]
"""A share, a probability, a learning rate, what an average keeps per step."""
Positive = Annotated[float, Range(_SMALLEST, 1e12)]
NonNegative = Annotated[float, Range(0.0, 1e12)]
Limit = Annotated[float, Range(0.0, float("inf"))]
"""A bound that ``inf`` switches off."""

UpdateRatio = Annotated[float, Range(0.0, 1000.0)]
"""Updates per environment step."""

Count = Annotated[int, Range(1, 10**12)]
CountOrZero = Annotated[int, Range(0, 10**12)]
"""The meaning of 0 is documented at each field."""
Few = Annotated[int, Range(1, 1024)]
"""Layers, heads, passes, threads."""
FewOrZero = Annotated[int, Range(0, 1024)]
Size = Annotated[int, Range(1, 2**20)]
"""Units of a layer, rows of a batch, environments."""
Sizes = Annotated[list[Size], Range(0, 64)]
"""Units of each hidden layer."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What NumPy takes, and with it rl-games."""


def from_dict(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """An instance of the dataclass ``cls`` with ``values``; messages put ``prefix`` ("task.") before its keys.

    Raises:
        UsageError: a key that does not exist, a value of another type or out of range.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    known = field_types(cls)
    for key in values:
        if key not in known:
            raise unknown(f"key of {prefix[:-1]}" if prefix else "key", str(key), known)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values))
    except OmegaConfBaseException as error:
        raise UsageError(prefix + summary(error)) from error
    assert isinstance(config, cls)
    check_ranges(config, prefix)
    return config


def check_ranges(config: Any, prefix: str = "") -> None:
    """Raise ``UsageError`` unless every value of the dataclass ``config`` is in its field's range."""
    for key, hint in field_types(type(config)).items():
        value = getattr(config, key)
        if is_dataclass(value):
            check_ranges(value, f"{prefix}{key}.")
        else:
            check_range(prefix + key, value, hint)


def check_range(key: str, value: Any, hint: Any) -> None:
    """Raise ``UsageError`` unless ``value``, or each of its elements, is in the range of the type ``hint``."""
    if len(alternatives(hint)) > 1:
        if isinstance(value, str) and value != text_of(hint):
            raise UsageError(f"{key}={value}: expected {expected(hint)}.")
        hint = get_args(hint)[0]
    hint, allowed = get_args(hint) if get_origin(hint) is Annotated else (hint, _FINITE)
    if isinstance(value, list) and not allowed.low <= len(value) <= allowed.high:
        raise UsageError(f"{key}={value} has {len(value)} entries, not {allowed.low} to {allowed.high}.")
    if isinstance(value, (int, float)) and not allowed.low <= value <= allowed.high:  # nor may it be NaN
        raise UsageError(f"{key}={value} is not {allowed.text(value)}.")
    if allowed.step and value % allowed.step:
        raise UsageError(f"{key}={value} is not a multiple of {allowed.step}.")
    if isinstance(value, list):
        for i, element in enumerate(value):
            check_range(f"{key}[{i}]", element, get_args(hint)[0])


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of ``A | B``, or the one type, without their ranges."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(get_args(option)[0] if get_origin(option) is Annotated else option for option in options)


def text_of(hint: Any) -> str | None:
    """The only text that is a value of ``A | str``."""
    for option in get_args(hint) if len(alternatives(hint)) > 1 else ():
        if option is str or get_args(option)[:1] == (str,):
            return str((get_args(option) or (str, AUTO))[1])
    return None


def expected(hint: Any) -> str:
    """What is written for a field of the type ``hint``: "a whole number or auto"."""
    words = {int: "a whole number", float: "a number", bool: "True or False", types.NoneType: "null"}
    words[str] = str(text_of(hint))
    return " or ".join(words.get(option, str(option)) for option in alternatives(hint))


def convert(key: str, text: str, hint: Any) -> Any:
    """``text`` as a value of the type ``hint``, in its range; text, lists and dictionaries as they are.

    Raises:
        UsageError: not a value of that type, or out of range.
    """
    kinds = alternatives(hint)
    if _is_enum(kinds[0]):
        if text not in kinds[0].__members__:
            raise unknown(f"value of {key}:", text, kinds[0].__members__)
        return kinds[0][text]
    if text == text_of(hint) or (text == "null" and types.NoneType in kinds) or kinds[0] not in _READ:
        return text
    value = _READ[kinds[0]](text)
    if value is None:
        raise UsageError(f"{key}={text}: expected {expected(hint)}.")
    check_range(key, value, hint)
    return value


def is_scalar(kind: Any) -> bool:
    """Whether a value of the type ``kind`` is written as one word: a number, a switch or a choice."""
    return kind in _READ or _is_enum(kind)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _whole(text: str) -> int | None:
    if re.fullmatch(r"[+-]?[0-9_]+", text):  # not by way of a float, which rounds
        with suppress(ValueError):
            return int(text)
    number = _number(text)
    return int(number) if number is not None and number.is_integer() else None


_READ: dict[Any, Callable[[str], Any]] = {
    int: _whole,  # 1_000, 1e6
    float: _number,
    bool: lambda text: {"true": True, "false": False}.get(text.lower()),
}


def summary(error: Exception) -> str:
    """OmegaConf's or hydra's message as one sentence: its first line, the key and what there is to choose from."""
    first = str(error).splitlines()[0].rstrip(".")
    if getattr(error, "options", None):
        first += f"; known: {', '.join(error.options)}"  # type: ignore[attr-defined]
    key = getattr(error, "full_key", None)
    return f"{key}: {first}." if key else f"{first}."


def as_dict(config: Any) -> Any:
    """Dataclasses, enums and lists as YAML's plain values."""
    if is_dataclass(config) and not isinstance(config, type):
        return {item.name: as_dict(getattr(config, item.name)) for item in fields(config)}
    if isinstance(config, Enum):
        return config.name
    if isinstance(config, dict):
        return {key: as_dict(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [as_dict(value) for value in config]
    return config


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its dotted key."""
    items = config if isinstance(config, dict) else as_dict(config)
    for key, value in items.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def field_types(cls: type) -> dict[str, Any]:
    """The fields of a dataclass with their types, ranges included."""
    hints = get_type_hints(cls, include_extras=True)
    return {item.name: hints[item.name] for item in fields(cls)}


def schema(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key that can be set, with its type; a branch comes before its leaves."""
    for key, hint in field_types(cls).items():
        yield prefix + key, hint
        if isinstance(hint, type) and is_dataclass(hint):
            yield from schema(hint, f"{prefix}{key}.")
