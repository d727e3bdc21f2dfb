"""DIMA's training (algorithm 1): act and store (``TrainingLoop``), fit the world model, dream, improve the policies."""

from contextlib import suppress
from functools import partial

import torch

from dima_isaac import ranks
from dima_isaac.agent.learner import DreamLearner
from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.run.signals import Interrupted, Signals, interruptible
from dima_isaac.training import probes
from dima_isaac.training.clock import Ratio, Throughput
from dima_isaac.training.loop import TrainingLoop
from dima_isaac.training.persistence import Part, attribute, optim_state, state
from dima_isaac.types import Rollout, Window
from dima_isaac.world_model.imagine import imagine
from dima_isaac.world_model.world_model import WorldModel

DECODER_BATCH = 256  # states; only with a learned decoder


class Trainer(TrainingLoop):
    """Fits a world model to the replay, and the policies to dreams; every equation lives elsewhere."""

    losses = ("world/denoise", "world/reward", "agent/policy")

    def __init__(self, cfg: RunConfig, run: RunFolder, env: VecEnv, eval_env: VecEnv, logger: Logger, signals: Signals):
        """As ``TrainingLoop``; the world model comes before the agents, whose weights are of the same random stream."""
        device = torch.device(cfg.rl_device)
        self.world = WorldModel(cfg.world_model, env.task, device)
        self.imagined = Throughput(device)
        self.fitted_steps = 0  # environment steps that the world model may have been fitted to
        super().__init__(cfg, run, env, eval_env, logger, signals)

    def updates(self) -> dict[str, Ratio]:
        learn = self.cfg.train.learn
        begin = learn.start - learn.round
        return {
            "dynamics": Ratio(learn.dynamics_per_step, begin),
            "reward": Ratio(learn.reward_per_step, begin),
            "decoder": Ratio(learn.decoder_per_step, begin),
            "rollouts": Ratio(learn.rollouts_per_step, learn.behaviour_start - learn.round),
        }

    def learn(self) -> None:
        """Every ``train.learn.round`` environment steps: fit the world model, improve the policies, measure."""
        schedule = self.schedule
        waits = self.cfg.train.learn.whole_episodes and self.env.num_envs == 1 and not bool(self.step.last.any())
        if not waits and schedule.learning_due.pending(self.env_steps):
            self.update_world_model()
            self.update_policy()
            if schedule.probe_due(self.env_steps):
                with suppress(Interrupted):  # a probe changes nothing, and may be left out
                    self.probe()
            self.log_metrics()
            schedule.learning_due(self.env_steps)

    def collect(self) -> None:
        self.world.track(self.step.state)
        super().collect()

    def update_world_model(self) -> None:
        """Fit the world model to replayed windows (eq. 9), after measuring it on the rows no update has used yet."""
        learn, world = self.cfg.train.learn, self.world
        unseen = (self.env_steps - self.fitted_steps) // (self.env.num_envs * ranks.count())
        if self.fitted_steps and unseen:
            self.logger.add(world.update_held_out(self.replay.newest(unseen, world.history + 1)))
        self.fitted_steps = self.env_steps
        for _ in self.due("dynamics"):
            self.logger.add(world.update_dynamics(self.replay.sample(learn.dynamics_batch, world.window)))
        for _ in self.due("reward"):
            self.logger.add(world.update_reward(self.replay.sample(learn.reward_batch, world.reward_window)))
        for _ in self.due("decoder") if world.decoder is not None else ():
            self.logger.add(world.update_decoder(self.replay.sample(DECODER_BATCH, 1).state[:, 0]))

    def update_policy(self) -> None:
        """Improve the policies on dreams that start in replayed states, without the simulator."""
        learn, agent = self.cfg.train.learn, self.agent
        assert isinstance(agent, DreamLearner)
        if self.env_steps < learn.behaviour_start:
            return
        rollouts = self.schedule.updates_due["rollouts"].pending(self.env_steps)
        with self.imagined.of(rollouts * learn.dreams * learn.horizon * ranks.count()):
            for _ in self.due("rollouts"):
                with self.undone_by_signals():
                    dream = self.dream(self.replay.sample(learn.dreams, self.world.history))
                self.logger.add(agent.update(dream))
            if rollouts:
                self.world.weigh_by_value(agent.value_gradient(dream.x[:, 0], dream.last_action[:, 0]))

    def dream(self, start: Window) -> Rollout:
        """Let the policies act in the world model, from the ends of the windows ``start`` (B, history).

        The fewer starts, the longer: a rollout has ``train.learn.dreams`` times ``horizon`` steps.
        """
        learn = self.cfg.train.learn
        return imagine(self.world, self.agent.act, start, round(learn.dreams * learn.horizon / start.state.shape[0]))

    def probe(self) -> None:
        """Compare the world model with the simulator, on the evaluation's environments."""
        episode, draw = -self.evaluator.evaluations, interruptible(self.signals, self.agent.act)
        measure = partial(probes.probe, self.world, self.eval_env, draw, self.replay, episode, self.env_steps)
        self.on_first(lambda: self.logger.add(measure(), "probe/"))

    def log_metrics(self) -> dict[str, float | None]:
        imagined = self.imagined.read()
        if imagined is not None:
            self.logger.add({"time/imagined_steps_per_s": imagined})
        return super().log_metrics()

    def captured(self) -> list[tuple[object, tuple[str, ...]]]:
        return [(self.world, self.world.captured), *super().captured(), (self, ("dream",))]

    def generators(self) -> tuple[torch.Generator, ...]:
        return (self.world.generator, *super().generators())

    def parts(self) -> dict[str, Part]:
        return {
            "fitted_steps": attribute(self, "fitted_steps"),
            "world": state(self.world),
            "world_optim": optim_state(self.world),
            **super().parts(),
        }
