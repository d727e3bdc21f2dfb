"""``algo=sac``: the off-policy learner on real transitions alone, without a world model."""

from dima_isaac.agent.sac import CRITIC_STEPS
from dima_isaac.train.clock import Ratio
from dima_isaac.train.loop import TrainingLoop


class ModelFree(TrainingLoop):
    """Improves the policies on transitions of the replay, after every step of all environments."""

    losses = ("agent/policy", "agent/value_loss")

    def updates(self) -> dict[str, Ratio]:
        sac = self.cfg.agent.sac
        return {"agent": Ratio(sac.critic_steps_per_step / CRITIC_STEPS, sac.start)}

    def learn(self) -> None:
        """Make the updates that are due; log every ``train.learn.round`` environment steps."""
        sac = self.cfg.agent.sac
        for _ in range(self.schedule.updates_due["agent"](self.env_steps)):
            batch = self.replay.transitions(CRITIC_STEPS * sac.batch, sac.n_step, self.cfg.agent.gamma)
            self.logger.add(self.agent.update(batch))
        if self.schedule.learning_due(self.env_steps):
            self.log_metrics()
