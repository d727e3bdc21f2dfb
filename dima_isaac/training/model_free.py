"""``algo=sac``: the off-policy learner on real transitions alone, without a world model."""

from dima_isaac.agent.learner import ReplayLearner
from dima_isaac.training.clock import Ratio
from dima_isaac.training.loop import TrainingLoop


class ModelFree(TrainingLoop):
    """Improves the policies on transitions of the replay, after every step of all environments."""

    agent: ReplayLearner
    losses = ("agent/policy", "agent/value_loss")

    def updates(self) -> dict[str, Ratio]:
        return {"agent": Ratio(self.agent.updates_per_step, self.cfg.agent.sac.start)}

    def learn(self) -> None:
        """Make the updates that are due; log every ``train.learn.round`` environment steps."""
        self.improve()
        if self.schedule.learning_due(self.env_steps):
            self.log_metrics()

    def improve(self) -> None:
        """The updates of the policies that are due."""
        cfg = self.cfg.agent
        for _ in self.due("agent"):
            batch = self.replay.transitions(self.agent.rows_per_update, cfg.sac.n_step, cfg.gamma)
            self.logger.add(self.agent.update(batch))
