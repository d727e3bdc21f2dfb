"""Whatever is typed, a run is composed or one sentence says why not."""

import random
from typing import Any

import pytest

from dima_isaac.cli.args import parse
from dima_isaac.cli.compose import compose
from dima_isaac.config import RunConfig
from dima_isaac.errors import UsageError
from dima_isaac.run.catalog import Catalog
from dima_isaac.schema import alternatives, schema

NUMBERS = ("0", "1", "2", "3", "7", "64", "1e6", "1_000", "0.5", "0.97", "-1", "1e-4", "1e30", "inf", "nan", "1e400")
WORDS = ("", "auto", "null", "true", "False", "[1,2]", "[0]", "[]", "[1,", "{a:1}", "'", '"', "a b", "é", "$x")
WORDS += (
    "${seed}",
    "../x",
    "x=y",
    "1,2",
    "range(3)",
    "mlp",
    "gpt",
    "unet",
    "cumulative",
    "cuda:9",
    "meta",
    "\\",
    "~",
    "?" * 300,
)


STARTS = (["task=ShadowHandOver"], ["task=HalfCheetah", "preset=paper"], ["task=Ant", "algo=sac"])


def settable() -> dict[str, Any]:
    """Every key of a run, with its type."""
    catalog = Catalog()
    keys = dict(schema(RunConfig))
    for group, name in (("task", "ShadowHandOver"), ("task", "HalfCheetah"), ("engine", "mujoco")):
        keys |= {f"{group}.{key}": hint for key, hint in catalog.settable(group, name).items()}
    return keys


def words(rng: random.Random, keys: dict[str, Any]) -> list[str]:
    """One to three overrides of keys that exist, or nearly; a third of the values are of the key's own type."""
    out = []
    for key in rng.sample(sorted(keys), rng.randint(1, 3)):
        kind = alternatives(keys[key])[0]
        own = list(getattr(kind, "__members__", ())) or (NUMBERS if kind in (int, float) else WORDS)
        value = rng.choice(own if rng.random() < 0.6 else NUMBERS + WORDS)
        key = key[: rng.randrange(len(key))] + key[-2:] if rng.random() < 0.05 else key
        out.append(rng.choice(["", "", "", "", "+", "++", "~"]) + f"{key}={value}")
    return [*rng.choice(STARTS), *out]


@pytest.mark.slow
def test_random_overrides_are_composed_or_refused(monkeypatch):
    monkeypatch.delenv("DIMA_CONFIG_DIR", raising=False)
    rng, keys, composed = random.Random(0), settable(), 0
    for _ in range(500):
        typed = words(rng, keys)
        try:
            cfg = compose(parse("train", typed))
        except UsageError as error:
            assert str(error) and "\n" not in str(error), typed
        else:
            composed += 1
            assert isinstance(cfg, RunConfig)
    assert 40 < composed < 200  # much of both
