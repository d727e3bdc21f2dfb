"""Baselines: rl-games' PPO with shared parameters, alone (``ppo``) or with a central value (``mappo``).

They write the same metrics into the same run folder as the trainer, evaluate in the same way, and count the same
environment steps: a control step of one environment is one step, however many agents it has. Needs rl-games.

They save and continue as the trainer does, on a deterministic engine bit for bit. A signal undoes the round that it
comes in.
"""

import contextlib
import copy
import io
import sys
from functools import partial
from typing import Any

import torch
from rl_games.common import env_configurations, vecenv
from rl_games.common.algo_observer import AlgoObserver
from rl_games.torch_runner import Runner
from torch import Tensor

from dima_isaac.agent.rl_games_actor import RlGamesActor, rl_games_settings
from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.envs.views.rl_games_vecenv import RlGamesView
from dima_isaac.errors import CheckpointError, DivergenceError, SimulationError, WorkerError
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.run.signals import Interrupted, Signals, interruptible
from dima_isaac.training.clock import Every
from dima_isaac.training.evaluate import Evaluator, add_environment_metrics
from dima_isaac.training.persistence import Part, Persistence, attribute, state
from dima_isaac.types import Step, restore_generator

_NAME = "dima_isaac"
_ROUND = 2048  # environment steps between updates, at least 16 control steps


class _Stop(Exception):
    """Leaves rl-games' endless loop."""


def train_baseline(
    cfg: RunConfig, central: bool, run: RunFolder, env: VecEnv, eval_env: VecEnv, logger: Logger, signals: Signals
) -> None:
    """Train until ``cfg.max_env_steps`` or a signal, from the checkpoint that ``cfg`` names, if it names one.

    Args:
        central: the value sees the state instead of one agent's observation (mappo).

    Raises:
        CheckpointError: the checkpoint does not fit, or the state at the end could not be saved.
        DivergenceError: the networks were not finite, again after going back to the newest checkpoint.
        WorkerError: the environments are lost; what was learnt is saved.
    """
    view = RlGamesView(env, central)
    observer = _Observer(cfg, run, view, Evaluator(cfg, run, eval_env, logger), logger, signals)
    # by name, because rl-games copies its configuration deeply
    vecenv.register(_NAME, lambda *_, **__: view)
    env_configurations.register(_NAME, {"vecenv_type": _NAME, "env_creator": lambda **_: view})
    runner = Runner(observer)
    with contextlib.redirect_stdout(io.StringIO()):  # rl-games reports on stdout what the observer logs
        runner.load({"params": parameters(cfg, central, run, view)})
        try:
            runner.run({"train": True, "play": False})
        except _Stop:
            pass
        except Interrupted:
            observer.undo_round()
        except WorkerError:
            if view.frames:
                observer.persistence.save(view.frames, final=True)
            raise
        except SimulationError:
            observer.persistence.check_finite(view.frames)  # networks that are not make actions that are not
            raise


def parameters(cfg: RunConfig, central: bool, run: RunFolder, view: Any) -> dict[str, Any]:
    """rl-games' configuration: ``cfg/rl_games.yaml``, and what depends on the run."""
    values = rl_games_settings()
    envs, device = view.env.num_envs, str(view.env.device)
    horizon = max(16, _ROUND // envs // 4 * 4)  # four minibatches of whole rows, whatever the number of environments
    values["config"] |= {
        "num_actors": envs,
        "horizon_length": horizon,
        "minibatch_size": horizon * envs * view.env.spec.dims.agents // 4,
        "device": device,
        "device_name": device,
        "train_dir": str(run.path),
        "env_name": _NAME,
    }
    critic = values.pop("central_value")
    if central:
        values["config"]["central_value_config"] = {**critic, "minibatch_size": horizon * envs // 4}
    return {**values, "seed": cfg.seed, "torch_threads": int(cfg.threads)}


class _Observer(AlgoObserver):
    """rl-games' hook after every round of updates: evaluations, metrics, checkpoints and the end."""

    def __init__(
        self, cfg: RunConfig, run: RunFolder, view: RlGamesView, evaluator: Evaluator, logger: Logger, signals: Signals
    ) -> None:
        super().__init__()
        self.cfg, self.run, self.view, self.logger, self.signals = cfg, run, view, logger, signals
        self.evaluator, self.evaluation_due = evaluator, Every(cfg.train.eval.every)
        self.checkpoint_due = Every(cfg.train.checkpoint.every, cfg.train.checkpoint.every)
        self.stdout = sys.stdout  # rl-games' is redirected

    def after_init(self, algo: Any) -> None:
        """Continue from the checkpoint that the configuration names."""
        self.algo, self.actor = algo, RlGamesActor(self.view.env.spec.dims).to(self.view.env.device)
        begin, refuse = self.view.reset, self._refuse_policy
        self.persistence = Persistence(self.cfg, self.run, self.logger, self.parts(), refuse, begin)
        algo.env_reset = self._current  # called once, before its first round
        begin_round = algo.update_epoch

        def begun() -> int:
            self.begun = copy.deepcopy(self.persistence.state_dict())
            number: int = begin_round()
            return number

        algo.update_epoch = begun
        for name in ("env_step", "train_actor_critic"):
            setattr(algo, name, interruptible(self.signals, getattr(algo, name)))
        with contextlib.redirect_stdout(self.stdout):
            self.persistence.resume()
            if self.view.frames >= self.cfg.max_env_steps:
                raise _Stop
            if self.view.frames:
                self.evaluate_if_due(self.view.frames)  # a signal ended it

    def parts(self) -> dict[str, Part]:
        """What a checkpoint holds of a run."""
        device = self.view.env.device
        draws = torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
        return {
            "env_steps": attribute(self.view, "frames"),
            "evaluations": attribute(self.evaluator, "evaluations"),
            "evaluation_due": attribute(self.evaluation_due, "next"),
            "checkpoint_due": attribute(self.checkpoint_due, "next"),
            "rl_games": (self.algo.get_full_state_weights, self._load),
            "generator": (draws.get_state, partial(restore_generator, draws)),
            "env": state(self.view.env),
            "step": (lambda: vars(self.view.row), self._load_row),
        }

    def _load(self, weights: dict[str, Any]) -> None:
        self.algo.set_full_state_weights(weights)
        self.algo.last_lr = self.algo.optimizer.param_groups[0]["lr"]  # where its adaptive schedule continues
        if self.algo.has_central_value:
            self.algo.central_value_net.epoch_num = self.algo.epoch_num

    def _load_row(self, columns: dict[str, Tensor]) -> None:
        self.view.row = Step(**{name: column.to(self.view.env.device) for name, column in columns.items()})

    def undo_round(self) -> None:
        """Go back to the beginning of the round, and save that."""
        self.persistence.load_state_dict(self.begun)
        with contextlib.redirect_stdout(self.stdout):
            self.save_last(self.view.frames)

    def save_last(self, env_steps: int) -> None:
        """Save, or raise ``CheckpointError``."""
        if not self.persistence.save(env_steps, final=True):
            raise CheckpointError(
                f"the run stopped at {env_steps:,} environment steps and could not be saved there."
                f" Make room, then: {self.run.resume_command}"
            )

    def _current(self) -> dict[str, Tensor]:
        obs: dict[str, Tensor] = self.algo.obs_to_tensors(self.view.current())
        return obs

    def after_print_stats(self, frame: int, epoch_num: int, total_time: float) -> None:
        with contextlib.redirect_stdout(self.stdout):
            self.after_round(self.view.frames)

    def after_round(self, env_steps: int) -> None:
        """Evaluate, log and save what is due.

        Raises:
            _Stop: this was the last round.
            CheckpointError: it was, and could not be saved.
        """
        evaluated = self.evaluate_if_due(env_steps)
        self.log(env_steps)
        finished, due = env_steps >= self.cfg.max_env_steps, self.checkpoint_due(env_steps)
        last = finished or bool(self.signals.stop)
        try:
            if last:
                self.save_last(env_steps)
            elif due:
                self.persistence.save(env_steps)
        except DivergenceError as error:
            self.persistence.go_back(error)
            self.algo.obs = self._current()
            torch.manual_seed(self.cfg.seed + self.view.frames)
            return
        if not last:
            return
        # after the save: a continuation evaluates by its own schedule
        if finished and not evaluated and self.evaluate(env_steps):
            self.log(env_steps)
        raise _Stop

    def evaluate_if_due(self, env_steps: int) -> bool:
        """Returns whether that was done."""
        if not self.evaluation_due.pending(env_steps) or not self.evaluate(env_steps):
            return False
        return self.evaluation_due(env_steps)

    def evaluate(self, env_steps: int) -> bool:
        """Evaluate, unless there is a signal; returns whether it was done."""
        weights = self.algo.model.state_dict()
        self.actor.load_state_dict(self.actor.own_names(weights))  # rl-games' own model draws an action, too
        with contextlib.suppress(Interrupted):
            self.evaluator.evaluate(interruptible(self.signals, self.actor.mode), env_steps)
            return True
        return False

    def _refuse_policy(self, weights: dict[str, Any]) -> None:
        """Of a policy alone rl-games' networks, which have a value too, cannot begin."""
        raise CheckpointError(
            f"checkpoint={self.cfg.checkpoint} is a policy alone; algo={self.cfg.algo.name} continues runs."
        )

    def log(self, env_steps: int) -> None:
        """Write one row of metrics."""
        add_environment_metrics(self.logger, self.view.env)
        self.logger.write(env_steps)
