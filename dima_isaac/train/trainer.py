"""DIMA's training loop (algorithm 1): act, store, fit the world model, dream, improve the policies."""

from __future__ import annotations

import torch

from dima_isaac.agent.explore import Explorer
from dima_isaac.agent.learner import build_learner
from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import CheckpointError, DivergenceError, WorkerError
from dima_isaac.nn.captured import Captured
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.run.signals import Signals
from dima_isaac.train import probes
from dima_isaac.train.clock import Schedule, Throughput
from dima_isaac.train.evaluate import Evaluator, add_environment_metrics
from dima_isaac.train.persistence import Part, Persistence, attribute, optim_state, state
from dima_isaac.types import Rollout, Step, Window
from dima_isaac.world_model.imagine import imagine
from dima_isaac.world_model.world_model import WorldModel

DECODER_BATCH = 256  # states; only with a learned decoder
MAX_NONFINITE = 10  # rows in a row with a non-finite loss before the run gives up


class Trainer:
    """Owns the loop; every equation lives elsewhere."""

    def __init__(self, cfg: RunConfig, run: RunFolder, env: VecEnv, eval_env: VecEnv, logger: Logger, signals: Signals):
        """Build the learners for ``env``, and continue from the checkpoint that ``cfg`` names, if it names one.

        Raises:
            CheckpointError: that checkpoint is damaged or does not fit.
        """
        self.cfg, self.run_folder, self.logger, self.signals = cfg, run, logger, signals
        self.env, self.eval_env, self.device = env, eval_env, torch.device(cfg.rl_device)
        spec, clip_actions = env.spec, cfg.world_model.clip_actions
        self.world = WorldModel(cfg.world_model, env.task, self.device)
        self.agent = build_learner(
            cfg.agent, spec.dims, self.device, spec.action_mask, clip_actions=clip_actions, seed=cfg.seed + 1
        )
        self.replay = ReplayBuffer(cfg.replay, spec.dims, env.num_envs, self.device, seed=cfg.seed + 2)
        self.explorer = Explorer(cfg.agent.explore, spec.dims, env.num_envs, self.device, seed=cfg.seed + 3)
        self.schedule = Schedule(cfg.train)
        self.evaluator = Evaluator(cfg, run, eval_env, logger)
        self.imagined = Throughput(self.device)
        self.env_steps = 0
        self.fitted_steps = 0  # how many of them the world model may have been fitted to
        self._nonfinite = 0
        self.step: Step
        self.persistence = Persistence(cfg, run, logger, self._parts())
        if not self.persistence.resume():
            self.step = env.reset()
        if cfg.compile is True:
            self.capture()

    def run(self) -> None:
        """Train until the step budget is spent or a signal asks for an end.

        Raises:
            CheckpointError: the state at the end could not be saved.
            DivergenceError: the losses stayed non-finite.
            WorkerError: the environments are lost; what was learnt is saved.
        """
        try:
            self.loop()
        except WorkerError:
            self.save()
            raise
        saved = self.save()
        if not self.signals.stop:  # after the save: a continuation evaluates when its own schedule says so
            self.evaluate()
            self.log_metrics()
        if not saved:
            raise CheckpointError(
                f"the run stopped at {self.env_steps:,} environment steps and could not be saved there."
                f" Make room, then: {self.run_folder.resume_command}"
            )

    def loop(self) -> None:
        """Algorithm 1, with evaluations, probes and checkpoints in between."""
        schedule = self.schedule
        while self.env_steps < self.cfg.max_env_steps and not self.signals.stop:
            if schedule.evaluation_due(self.env_steps):
                self.evaluate()
            self.collect()
            if schedule.learning_due(self.env_steps):
                self.update_world_model()
                self.update_policy()
                if schedule.probe_due(self.env_steps):
                    self.probe()
                self.log_metrics()
            if schedule.checkpoint_due(self.env_steps):
                self.save()

    def collect(self) -> None:
        """Act once in every environment and store the row acted on."""
        step = self.step
        self.world.track(step.state)
        self.agent.track(step.obs)
        action, _ = self.agent.act(step.obs)
        action = self.explorer(action, step.first)
        if self.cfg.world_model.clip_actions:
            action = action.clamp(-1.0, 1.0)
        self.step = self.env.step(action)  # before the row is stored: if this raises, a continuation would store it too
        self.replay.add(step, action)
        self.env_steps += self.env.num_envs

    def update_world_model(self) -> None:
        """Fit the world model to replayed windows (eq. 9), after measuring it on the rows no update has used yet."""
        learn, world, due = self.cfg.train.learn, self.world, self.schedule.updates_due
        unseen = (self.env_steps - self.fitted_steps) // self.env.num_envs
        if self.fitted_steps and unseen:
            self.logger.add(world.update_held_out(self.replay.newest(unseen, world.history + 1)))
        self.fitted_steps = self.env_steps
        for _ in range(due["dynamics"](self.env_steps)):
            self.logger.add(world.update_dynamics(self.replay.sample(learn.dynamics_batch, world.window)))
        for _ in range(due["reward"](self.env_steps)):
            self.logger.add(world.update_reward(self.replay.sample(learn.reward_batch, world.reward_window)))
        for _ in range(due["decoder"](self.env_steps) if world.decoder is not None else 0):
            self.logger.add(world.update_decoder(self.replay.sample(DECODER_BATCH, 1).state[:, 0]))

    def update_policy(self) -> None:
        """Improve the policies on dreams that start in replayed states, without the simulator."""
        learn = self.cfg.train.learn
        rollouts = self.schedule.updates_due["rollouts"](self.env_steps)
        with self.imagined.of(rollouts * learn.dreams * learn.horizon):
            for _ in range(rollouts):
                dream = self.dream(self.replay.sample(learn.dreams, self.world.history))
                self.logger.add(self.agent.update(dream))
            if rollouts:
                self.world.weigh_by_value(self.agent.value_gradient(dream.state[:, 0], dream.last_action[:, 0]))

    def dream(self, start: Window) -> Rollout:
        """Let the policies act in the world model, from the ends of the windows ``start`` (B, history)."""
        return imagine(self.world, self.agent.act, start, self.cfg.train.learn.horizon)

    def evaluate(self) -> None:
        """Run deterministic episodes on separate environments; training's random numbers stay untouched."""
        self.evaluator.evaluate(self.agent.mode, self.env_steps)

    def probe(self) -> None:
        """Compare the world model with the simulator, on the evaluation's environments."""
        episode = -self.evaluator.evaluations
        metrics = probes.probe(self.world, self.eval_env, self.agent.act, self.replay, episode, self.env_steps)
        self.logger.add(metrics, "probe/")

    def log_metrics(self) -> None:
        """Write one row of metrics: the only place in the loop where numbers reach the host.

        Raises:
            DivergenceError: a loss was not finite in each of the last ``MAX_NONFINITE`` rows that have losses.
        """
        add_environment_metrics(self.logger, self.env)
        imagined = self.imagined.read()
        if imagined is not None:
            self.logger.add({"time/imagined_steps_per_s": imagined})
        row = self.logger.write(self.env_steps)
        losses = [name for name in ("world/denoise", "world/reward", "agent/policy") if name in row]
        lost = [name for name in losses if row[name] is None]
        if losses:
            self._nonfinite = self._nonfinite + 1 if lost else 0
        if self._nonfinite >= MAX_NONFINITE:
            raise DivergenceError(
                f"{' and '.join(lost)} stayed non-finite for {MAX_NONFINITE} rounds; no update was made from them, and"
                f" {self.run_folder.checkpoints / 'last.pt'} is from before or during them. Lower the learning rate."
            )

    def capture(self) -> None:
        """From now on play the dream and the updates as graphs, with the same results (``compile``)."""
        generators = lambda: (self.world.generator, self.agent.generator)
        for owner, names in ((self.world, self.world.captured), (self.agent, self.agent.captured), (self, ("dream",))):
            for name in names:
                setattr(owner, name, Captured(getattr(owner, name), generators))

    def save(self) -> bool:
        """Save everything a continuation needs; returns whether it could be written."""
        return self.persistence.save(self.env_steps)

    def _parts(self) -> dict[str, Part]:
        """What a checkpoint holds of a run."""
        return {
            "env_steps": attribute(self, "env_steps"),
            "fitted_steps": attribute(self, "fitted_steps"),
            "evaluations": attribute(self.evaluator, "evaluations"),
            "schedule": state(self.schedule),
            "world": state(self.world),
            "world_optim": optim_state(self.world),
            "agent": state(self.agent),
            "agent_optim": optim_state(self.agent),
            "explorer": state(self.explorer),
            "env": state(self.env),
            "step": (lambda: vars(self.step), self._load_step),
            "replay": state(self.replay),
        }

    def _load_step(self, columns: dict[str, torch.Tensor]) -> None:
        self.step = Step(**{name: column.to(self.device) for name, column in columns.items()})
