"""Baselines: rl-games' PPO with shared parameters, alone (``ppo``) or with a central value (``mappo``).

They write the same metrics into the same run folder as the trainer, evaluate in the same way, and count the same
environment steps: a control step of one environment is one step, however many agents it has. Needs rl-games.

The networks are left in ``checkpoints/rl_games_last.pth`` as plain tensors. A baseline cannot be continued, and the
command line refuses to.
"""

import contextlib
import io
import sys
from importlib.resources import files
from typing import Any

import yaml
from rl_games.common import env_configurations, vecenv
from rl_games.common.algo_observer import AlgoObserver
from rl_games.torch_runner import Runner
from torch import Tensor

from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.envs.views.rl_games_vecenv import RlGamesView, rows
from dima_isaac.errors import CheckpointError, WorkerError
from dima_isaac.run import sealed
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.run.signals import Signals
from dima_isaac.train.clock import Every
from dima_isaac.train.evaluate import Evaluator, add_environment_metrics

_NAME = "dima_isaac"
_ROUND = 2048  # environment steps between updates, at least 16 control steps


class _Stop(Exception):
    """Leaves rl-games' endless loop."""


def train_baseline(
    cfg: RunConfig, central: bool, run: RunFolder, env: VecEnv, eval_env: VecEnv, logger: Logger, signals: Signals
) -> None:
    """Train until ``cfg.max_env_steps`` or a signal.

    Args:
        central: the value sees the state instead of one agent's observation (mappo).

    Raises:
        CheckpointError: the networks could not be saved at the end.
        WorkerError: the environments are lost; the networks are saved.
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
        except WorkerError:
            observer.save()
            raise


def parameters(cfg: RunConfig, central: bool, run: RunFolder, view: Any) -> dict[str, Any]:
    """rl-games' configuration: ``cfg/rl_games.yaml``, and what depends on the run."""
    values: dict[str, Any] = yaml.safe_load(files("dima_isaac.cfg").joinpath("rl_games.yaml").read_text())
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
    threads = int(cfg.threads) if str(cfg.threads).isdigit() else 1
    return {**values, "seed": cfg.seed, "torch_threads": threads}


class _Observer(AlgoObserver):
    """rl-games' hook after every round of updates: evaluations, metrics, and the end."""

    def __init__(
        self, cfg: RunConfig, run: RunFolder, view: RlGamesView, evaluator: Evaluator, logger: Logger, signals: Signals
    ) -> None:
        super().__init__()
        self.cfg, self.run, self.view, self.logger, self.signals = cfg, run, view, logger, signals
        self.evaluator, self.evaluation_due = evaluator, Every(cfg.train.eval.every)
        self.stdout = sys.stdout  # rl-games' is redirected

    def after_init(self, algo: Any) -> None:
        self.algo = algo

    def after_print_stats(self, frame: int, epoch_num: int, total_time: float) -> None:
        env_steps = self.view.frames
        done = env_steps >= self.cfg.max_env_steps or self.signals.stop
        with contextlib.redirect_stdout(self.stdout):
            if self.evaluation_due(env_steps) or done:
                self.evaluator.evaluate(self.policy, env_steps)
            add_environment_metrics(self.logger, self.view.env)
            self.logger.write(env_steps)
        if done:
            self.save()
            raise _Stop

    def save(self) -> None:
        """Keep the networks."""
        try:
            self.run.checkpoints.mkdir(exist_ok=True)
            sealed.save(self.run.checkpoints / "rl_games_last.pth", dict(self.algo.model.state_dict()))
        except OSError as error:
            raise CheckpointError(f"the networks were not saved: {error.strerror or error}.") from error

    def policy(self, obs: Tensor) -> Tensor:
        """The mode of the shared policy: (E, N, O) -> (E, N, A)."""
        model = self.algo.model
        training = model.training
        model.eval()
        out = model({"is_train": False, "prev_actions": None, "obs": rows(obs), "rnn_states": None})
        model.train(training)
        return out["mus"].view(*obs.shape[:2], -1).clamp(-1.0, 1.0)
