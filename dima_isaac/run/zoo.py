"""The trained policies that come with the library, ``checkpoint=zoo:NAME``. Torch-free.

zoo/<NAME>/         written by ``tools.export``; any folder of this kind can be named as a checkpoint
  weights.pt        the actors' weights and their run's configuration, in the form of a checkpoint
  policy.onnx       obs (batch, N, O) -> action (batch, N, A): deterministic, the observations' normalisation inside
  policy.pt         the same as TorchScript
  config.yaml       the configuration, to be read
  card.yaml         task, algorithm, steps, command, commit, seed, and what fresh episodes measured
  curve.csv, .png   the evaluations during training
"""

from pathlib import Path
from typing import Any

from dima_isaac.errors import CheckpointError, unknown

PREFIX = "zoo:"
WEIGHTS = "weights.pt"


def folder() -> Path:
    """Where the policies are, one folder each."""
    import dima_isaac.zoo

    return Path(dima_isaac.zoo.__path__[0])


def names() -> list[str]:
    """Every policy of the zoo."""
    return sorted(path.parent.name for path in folder().glob("*/card.yaml"))


def card(name: str) -> dict[str, Any]:
    """What is known of the policy ``name``.

    Raises:
        CheckpointError: its card is damaged.
    """
    import yaml

    path = folder() / name / "card.yaml"
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        values = None
    if not (isinstance(values, dict) and "task" in values and isinstance(values.get("evaluation"), dict)):
        raise CheckpointError(f"{path} is not the card of a policy; git checkout, or installing again, brings it back.")
    return values


def weights(name: str) -> Path:
    """The file that ``checkpoint=zoo:NAME`` reads.

    Raises:
        UsageError: there is no such policy.
    """
    if name not in names():
        raise unknown("policy of the zoo", name, names())
    return folder() / name / WEIGHTS


def best(task: str) -> str:
    """The name of the policy with the highest return on ``task``, '' if there is none."""
    found = {name: values for name in names() if (values := card(name))["task"] == task}
    return max(found, key=lambda name: found[name]["evaluation"]["return_mean"], default="")
