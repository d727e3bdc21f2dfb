"""DIMA: act, remember, learn to predict, dream, improve (algorithm 1)."""

from __future__ import annotations

import torch

from dima_isaac.agent.explore import Explorer
from dima_isaac.agent.learner import build_learner
from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import CheckpointError, DivergenceError, WorkerError
from dima_isaac.nn.captured import Captured
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.run.checkpoint import Checkpoints
from dima_isaac.run.folder import CONTINUE, RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.run.signals import Signals
from dima_isaac.train import probes
from dima_isaac.train.clock import Every, Rate, Ratio
from dima_isaac.train.evaluate import evaluate
from dima_isaac.train.video import clip
from dima_isaac.types import Rollout, Step, Window
from dima_isaac.world_model.imagine import imagine
from dima_isaac.world_model.world_model import WorldModel

DECODER_BATCH = 256  # states; only with a learned decoder
_HOPELESS = 10  # rounds in a row without one finite loss before the run gives up


class Trainer:
    """Owns the loop and the counters; every equation lives elsewhere."""

    def __init__(self, cfg: RunConfig, run: RunFolder, env: VecEnv, eval_env: VecEnv, logger: Logger, signals: Signals):
        self.cfg, self.run_folder, self.logger, self.signals = cfg, run, logger, signals
        self.env, self.eval_env = env, eval_env
        self.device = torch.device(cfg.rl_device)
        spec, learn = env.spec, cfg.train.learn
        to = self.device
        self.world = WorldModel(
            cfg.world_model, spec.dims, env.task.observe, spec.last_action_index, spec.output_only
        ).to(to)
        self.clip_actions = cfg.world_model.clip_actions
        self.agent = build_learner(
            cfg.agent, spec.dims, to, spec.action_mask, clip_actions=self.clip_actions, seed=cfg.seed + 1
        )
        self.replay = ReplayBuffer(cfg.replay, spec.dims, env.num_envs, to, seed=cfg.seed + 2)
        self.explorer = Explorer(cfg.agent.explore, spec.dims, env.num_envs, to, seed=cfg.seed + 3)
        self.env_steps = self.learnt = 0
        self.evaluations = 0
        self._lost_rounds = 0
        self.step: Step
        self.round = Every(learn.round, learn.start)
        self.eval_due = Every(cfg.train.eval.every)
        self.probe_due = Every(cfg.train.probe_every, cfg.train.probe_every)
        self.save_due = Every(cfg.train.checkpoint.every, cfg.train.checkpoint.every)
        self.due = {
            "dynamics": Ratio(learn.dynamics_per_step, learn.start - learn.round),
            "reward": Ratio(learn.reward_per_step, learn.start - learn.round),
            "decoder": Ratio(learn.decoder_per_step, learn.start - learn.round),
            "rollouts": Ratio(learn.rollouts_per_step, learn.behaviour_start - learn.round),
        }
        self.imagined = Rate(to)
        self.checkpoints = Checkpoints(run.checkpoints, cfg, logger.note)
        self._captured: list[Captured] = []
        if cfg.compile is True:
            self.capture()
        self.resume()

    def run(self) -> None:
        """Until the step budget is spent or a signal asks for an end.

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
        if not self.signals.stop:  # after the save: a continuation evaluates when its own clock says so
            self.evaluate()
            self.tick()
        if not saved:
            raise CheckpointError(
                f"the run stopped at {self.env_steps:,} environment steps and could not be saved there."
                f" Make room, then: {self.run_folder.resume_command}"
            )

    def loop(self) -> None:
        """The loop: act, learn, measure, save."""
        while self.env_steps < self.cfg.max_env_steps and not self.signals.stop:
            if self.eval_due(self.env_steps):
                self.evaluate()
            self.collect()
            if self.round(self.env_steps):
                self.learn_world()
                self.learn_behaviour()
                if self.probe_due(self.env_steps):
                    self.probe()
                self.tick()
            if self.save_due(self.env_steps):
                self.save()

    def collect(self) -> None:
        """Act once in every environment and remember what happened."""
        step = self.step
        self.world.track(step.state)
        self.agent.track(step.obs)
        action, _ = self.agent.act(step.obs)
        action = self.explorer(action, step.first)
        if self.clip_actions:
            action = action.clamp(-1.0, 1.0)
        self.step = self.env.step(action)  # first: who is lost in it must not be remembered twice
        self.replay.add(step, action)
        self.env_steps += self.env.num_envs

    def learn_world(self) -> None:
        """Fit the world model to replayed windows (eq. 9)."""
        learn, world = self.cfg.train.learn, self.world
        fresh = (self.env_steps - self.learnt) // self.env.num_envs
        if self.learnt and fresh:  # what nothing has been learnt from yet is an honest test
            self.logger.add(world.update_held_out(self.replay.newest(fresh, world.history + 1)))
        self.learnt = self.env_steps
        for _ in range(self.due["dynamics"](self.env_steps)):
            self.logger.add(world.update_dynamics(self.replay.sample(learn.dynamics_batch, world.window)))
        for _ in range(self.due["reward"](self.env_steps)):
            self.logger.add(world.update_reward(self.replay.sample(learn.reward_batch, world.reward_window)))
        for _ in range(self.due["decoder"](self.env_steps) if world.decoder is not None else 0):
            self.logger.add(world.update_decoder(self.replay.sample(DECODER_BATCH, 1).state[:, 0]))

    def learn_behaviour(self) -> None:
        """Improve the policy on dreams that start in replayed states and never touch the simulator."""
        learn = self.cfg.train.learn
        rollouts = self.due["rollouts"](self.env_steps)
        with self.imagined.of(rollouts * learn.dreams * learn.horizon):
            for _ in range(rollouts):
                dream = self.dream(self.replay.sample(learn.dreams, self.world.history))
                self.logger.add(self.agent.update(dream))
            if rollouts:
                self.world.weigh_by_value(self.agent.value_gradient(dream.state[:, 0], dream.last_action[:, 0]))

    def dream(self, start: Window) -> Rollout:
        """What the policy and the world model make of ``start`` (B, history)."""
        return imagine(self.world, self.agent.act, start, self.cfg.train.learn.horizon)

    def capture(self) -> None:
        """From now on play the dream and the updates as graphs, with the same results (``compile``)."""
        for owner, names in ((self.world, self.world.captured), (self.agent, self.agent.captured), (self, ("dream",))):
            for name in names:
                played = Captured(getattr(owner, name), lambda: (self.world.generator, self.agent.generator))
                setattr(owner, name, played)
                self._captured.append(played)

    def evaluate(self) -> None:
        """Deterministic episodes on separate environments; training's random numbers stay untouched."""
        self.evaluations += 1
        metrics = evaluate(self.eval_env, self.agent.mode, self.evaluations)
        self.logger.add({f"eval/{name}": value for name, value in metrics.items()})
        if self.cfg.capture_video:
            clip(self.eval_env, self.agent.mode, self.run_folder.videos, self.env_steps, self.logger.note)

    def probe(self) -> None:
        """Hold the world model against the simulator, on the evaluation's environments."""
        horizon = probes.HORIZON
        held_out = probes.record(self.eval_env, self.agent.act, -self.evaluations, 3 * horizon, seed=self.env_steps)
        linear = probes.LinearModel(self.world, self.replay, seed=self.env_steps)
        result = probes.open_loop(self.world, held_out, linear, horizon, seed=self.env_steps, dreams=8)
        moved = probes.sensitivity(self.world, self.eval_env, self.agent.act, -self.evaluations)
        for name in ("model", "average", "repeat", "linear"):
            errors = getattr(result, name)
            self.logger.add({f"probe/{name}_{h + 1:02d}": errors[h] for h in range(horizon)})
        for name in ("dreamt", "true"):
            norms = getattr(moved, name)
            self.logger.add({f"probe/sensitivity_{name}_{i}": norms[i] for i in range(len(norms))})

    def tick(self) -> None:
        """One line of metrics: the only place in the loop where numbers reach the host."""
        self.logger.add({f"train/{name}": value for name, value in self.env.finished().items()})
        self.logger.add({f"engine/{name}": value for name, value in self.env.engine.stats().items()})
        imagined = self.imagined.read()
        if imagined is not None:
            self.logger.add({"time/imagined_steps_per_s": imagined})
        row = self.logger.tick(self.env_steps)
        losses = [name for name in ("world/denoise", "world/reward", "agent/policy") if name in row]
        lost = [name for name in losses if row[name] is None]
        if losses:
            self._lost_rounds = self._lost_rounds + 1 if lost else 0
        if self._lost_rounds >= _HOPELESS:
            raise DivergenceError(
                f"{' and '.join(lost)} stayed non-finite for {_HOPELESS} rounds; no update was made from them, and"
                f" {self.run_folder.checkpoints / 'last.pt'} is from before or during them. Lower the learning rate."
            )

    def save(self) -> bool:
        """Keep everything, so that a kill costs at most the steps since here; whether it could be written."""
        self.logger.flush(self.env_steps)  # an evaluation since the last round: no continuation would make it again
        state = {**self.state_dict(), "replay": self.replay.state_dict()}
        return self.checkpoints.save(self.env_steps, state)

    def resume(self) -> None:
        """Continue from the checkpoint that the configuration names, or start anew.

        Raises:
            CheckpointError: torn, altered, of another task, or of other sizes than this run's.
        """
        state = self.checkpoints.restore()
        if state is None:
            self.logger.rewind(0)
            self.step = self.env.reset()
            return
        try:
            self.load_state_dict(state)
            self.replay.load_state_dict(state["replay"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            which = self.cfg.checkpoint
            raise CheckpointError(f"checkpoint={which} does not fit this run's settings: {reason}") from error
        self.logger.rewind(self.env_steps)
        self.logger.note(f"continuing at {self.env_steps:,} environment steps")
        if self.cfg.checkpoint not in CONTINUE:  # another run's: a kill before the first save here would begin anew
            self.save()

    def state_dict(self) -> dict:
        """Everything needed to continue bit for bit on a deterministic engine."""
        return {
            "env_steps": self.env_steps,
            "learnt": self.learnt,
            "evaluations": self.evaluations,
            "world": self.world.state_dict(),
            "world_optim": self.world.optim_state(),
            "agent": self.agent.state_dict(),
            "agent_optim": self.agent.optim_state(),
            "explorer": self.explorer.state_dict(),
            "env": self.env.state_dict(),
            "step": vars(self.step),
            "clocks": {
                "round": self.round.next,
                "eval": self.eval_due.next,
                "save": self.save_due.next,
                "probe": self.probe_due.next,
                **{name: ratio.done for name, ratio in self.due.items()},
            },
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from ``state_dict``."""
        self.env_steps, self.learnt, self.evaluations = state["env_steps"], state["learnt"], state["evaluations"]
        self.world.load_state_dict(state["world"])
        self.world.load_optim_state(state["world_optim"])
        self.agent.load_state_dict(state["agent"])
        self.agent.load_optim_state(state["agent_optim"])
        self.explorer.load_state_dict(state["explorer"])
        self.env.load_state_dict(state["env"])
        self.step = Step(**{name: column.to(self.device) for name, column in state["step"].items()})
        clocks = state["clocks"]
        for name, every in (
            ("round", self.round), ("eval", self.eval_due), ("save", self.save_due), ("probe", self.probe_due)
        ):  # fmt: skip
            every.next = clocks[name]
        for name, ratio in self.due.items():
            ratio.done = clocks[name]
        for played in self._captured:
            played.forget()
