"""The one place that chooses a training loop."""

from dima_isaac.agent.learner import ReplayLearner, learner_class
from dima_isaac.config import Algo, RunConfig
from dima_isaac.training.dyna import Dyna
from dima_isaac.training.loop import TrainingLoop
from dima_isaac.training.model_free import ModelFree
from dima_isaac.training.trainer import Trainer


def loop_class(cfg: RunConfig) -> type[TrainingLoop]:
    """The loop of ``algo=dima|sac``, by what the learner learns from."""
    if cfg.algo is Algo.sac:
        return ModelFree
    return Dyna if issubclass(learner_class(cfg.agent), ReplayLearner) else Trainer
