"""DIMA with an off-policy learner: policies learn from replayed and from dreamt transitions (Dyna, Sutton 1991).

Dreams are as long as held-out rows show that they predict reward and survival, and there are none while they do not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dima_isaac import ranks
from dima_isaac.agent.learner import ReplayLearner
from dima_isaac.agent.returns import survival
from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.run.signals import Signals
from dima_isaac.training.clock import Ratio
from dima_isaac.training.persistence import Part, attribute, state
from dima_isaac.training.trainer import Trainer
from dima_isaac.types import Rollout, Transitions, Window
from dima_isaac.world_model.dream_skill import HORIZONS, DreamSkill

MIN_SKILL = 0.2  # of reward and survival, for dreams of that many steps
TEST_WINDOWS = 256  # held-out windows that are dreamt along, for each of HORIZONS, every round


class Dyna(Trainer):
    """Box lines 8 to 12 with ``Transitions``: a pool of dreams, new every round, beside those of the replay."""

    agent: ReplayLearner

    def __init__(self, cfg: RunConfig, run: RunFolder, env: VecEnv, eval_env: VecEnv, logger: Logger, signals: Signals):
        """As ``Trainer``."""
        self.skill = DreamSkill(torch.device(cfg.rl_device))
        self.horizon = 0  # steps of a dream; 0: none
        self.pool: Transitions | None = None
        super().__init__(cfg, run, env, eval_env, logger, signals)

    def updates(self) -> dict[str, Ratio]:
        of_world = {name: ratio for name, ratio in super().updates().items() if name != "rollouts"}
        return {**of_world, "agent": Ratio(self.agent.updates_per_step, self.cfg.agent.sac.start)}

    def learn(self) -> None:
        """Improve the policies after every step of all environments; the world model as ``Trainer`` does."""
        self.improve()
        super().learn()

    def improve(self) -> None:
        """The updates of the policies that are due, after new dreams where the last ones were dropped."""
        if self.dream_share and self.pool is None and self.schedule.updates_due["agent"].pending(self.env_steps):
            self.dream_up()
        for _ in self.due("agent"):
            self.logger.add(self.agent.update(self.experience()))

    @property
    def dream_share(self) -> float:
        """The share of a batch that is dreamt: none while no dream is long enough."""
        return self.cfg.train.learn.dream_share if self.horizon else 0.0

    def update_world_model(self) -> None:
        unseen = (self.env_steps - self.fitted_steps) // (self.env.num_envs * ranks.count())
        if self.fitted_steps and unseen:
            self.logger.add(self.skill.update(self.world, [self.held_out(unseen, h) for h in HORIZONS]))
        elif self.fitted_steps and bool(self.skill.rows.any()):  # again, after a signal in the middle of the round
            self.logger.add(self.skill.metrics())
        super().update_world_model()

    def held_out(self, unseen: int, steps: int) -> Window:
        """Windows of ``steps`` steps after a history, all of them among the newest ``unseen`` if there are as many."""
        generator = self.world.generator
        age = torch.randint(max(1, unseen - steps + 1), (TEST_WINDOWS,), device=self.device, generator=generator)
        env = torch.randint(self.env.num_envs, (TEST_WINDOWS,), device=self.device, generator=generator)
        return self.replay.gather(age, env, self.world.history + steps)

    def update_policy(self) -> None:
        """Drop the dreams, of which the next are made when needed, and say where the world model has to be accurate."""
        self.pool = None
        states = self.replay.sample(self.cfg.train.learn.dreams, 1).state[:, 0]
        self.world.weigh_by_value(self.agent.value_gradient(states) * self.world.target.ds_dx().square())

    def dream_up(self) -> None:
        """Fill the pool with dreams that start in replayed states, as many as the steps of a round ask for."""
        learn, dreamt = self.cfg.train.learn, []
        steps = max(learn.round, self.env.num_envs * ranks.count())  # thousands of environments: a step is a round
        rollouts = max(1, round(learn.rollouts_per_step * steps))
        starts = -(-learn.dreams * learn.horizon // self.horizon)
        with self.undone_by_signals(), self.imagined.of(rollouts * starts * self.horizon * ranks.count()):
            for _ in range(rollouts):
                dreamt.append(self.transitions(self.dream(self.replay.sample(starts, self.world.history))))
        self.pool = _concatenated(dreamt)

    def transitions(self, dream: Rollout) -> Transitions:
        """The steps of a dream as single transitions, (B * H, ...); those after its probable end do not count."""
        columns = (
            dream.state[:, :-1],
            dream.action.clamp(-1.0, 1.0),
            dream.reward.clone(),  # a graph's next dream overwrites it
            self.cfg.agent.gamma * dream.cont,
            dream.state[:, 1:],
            survival(dream.cont) > 0.5,
        )
        return Transitions(*(column.flatten(0, 1) for column in columns))

    def experience(self) -> Transitions:
        """One update's rows, some of them dreamt, in random order."""
        cfg, rows, generator = self.cfg.agent, self.agent.rows_per_update, self.agent.generator
        dreamt = int(self.cfg.train.learn.dream_share * rows) if self.pool is not None else 0
        real = self.replay.transitions(rows - dreamt, cfg.sac.n_step, cfg.gamma)
        if self.pool is None or not dreamt:
            return real
        drawn = torch.randint(self.pool.reward.shape[0], (dreamt,), device=self.device, generator=generator)
        order = torch.randperm(rows, device=self.device, generator=generator)
        return _rows(_concatenated([real, _rows(self.pool, drawn)]), order)

    def log_metrics(self) -> dict[str, float | None]:
        self.logger.add({"world/horizon": self.horizon, "agent/dream_share": self.dream_share})
        row = super().log_metrics()
        skill = {h: row.get(f"world/skill_{h}") for h in HORIZONS}
        if skill[HORIZONS[0]] is not None:
            held = [h for h, value in skill.items() if value is not None and value >= MIN_SKILL]
            self.horizon = min(max(held, default=0), self.cfg.train.learn.horizon)
        return row

    def parts(self) -> dict[str, Part]:
        return {
            **super().parts(),
            "skill": state(self.skill),
            "horizon": attribute(self, "horizon"),
            "pool": (lambda: self.pool and vars(self.pool), self._load_pool),
        }

    def _load_pool(self, columns: dict[str, Tensor] | None) -> None:
        stored = {name: column.to(self.device) for name, column in (columns or {}).items()}
        self.pool = Transitions(**stored) if stored else None


def _concatenated(parts: Sequence[Transitions]) -> Transitions:
    return Transitions(*(torch.cat(columns) for columns in zip(*(vars(part).values() for part in parts), strict=True)))


def _rows(transitions: Transitions, index: Tensor) -> Transitions:
    return Transitions(*(column[index] for column in vars(transitions).values()))
