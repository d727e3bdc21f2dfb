"""The world model compared with the simulator: open-loop error by horizon, and sensitivity to each agent's action.

Both are measured on environments of their own, and leave training's random numbers untouched.
Errors are in z, one standard deviation of each state dimension.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dima_isaac.envs.task import TaskSpec
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.nn.ridge import Ridge
from dima_isaac.replay.config import ReplayConfig
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.types import Metrics, Window
from dima_isaac.world_model.imagine import predict_states
from dima_isaac.world_model.world_model import WorldModel

WINDOWS = 512  # of the open-loop probe, at most
DELTA, WARMUP = 0.5, 10  # of the sensitivity probe: the change of an action, and the rows before it
HORIZON = 15  # steps of the open-loop probe, whatever the length of the policy's dreams

Draw = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""obs (E, N, O), random stream -> action (E, N, A), log-probability (E, N)"""


@dataclass
class OpenLoop:
    """Root-mean-square error after h + 1 steps, over windows and state dimensions."""

    model: Tensor  # (H,)
    repeat: Tensor  # (H,)  the last state repeated
    linear: Tensor  # (H,)  a linear model fitted on the same replay
    average: Tensor  # (H,)  the mean of several dreams, in which their randomness cancels
    typical: Tensor  # (3, H)  the median state dimension's error: model, repeat, linear; contact spikes weigh nothing
    past: Tensor  # (history - 1, D) one example window, z, before the dream
    true: Tensor  # (H + 1, D) the same window's rows from the start of the dream on
    dreamt: Tensor  # (H + 1, D) the dream of them


@dataclass
class Sensitivity:
    """|dz'| for a perturbation of one agent's current action, root-mean-square over environments."""

    dreamt: Tensor  # (N,)
    true: Tensor  # (N,)


class LinearModel:
    """z' = z + [z, a, 1] W, by ridge regression on replayed transitions: a baseline for the world model."""

    def __init__(
        self, world: WorldModel, replay: ReplayBuffer, rows: int = 20_000, penalty: float = 1e-3, seed: int = 0
    ) -> None:
        window = replay.sample(rows, 2, torch.Generator(replay.device).manual_seed(seed))
        z, action = world.target.z(window.state), window.action[:, 0].flatten(1)
        size = z.shape[-1]
        self._change = Ridge(size + action.shape[1], size, decay=1.0, penalty=penalty).to(z.device)
        self._change.update(torch.cat([z[:, 0], action], 1), z[:, 1] - z[:, 0], window.valid[:, 0])
        self._change.solve()

    def __call__(self, z: Tensor, action: Tensor) -> Tensor:
        """z (B, D), action (B, N, A) -> z' (B, D)."""
        return z + self._change(torch.cat([z, action.flatten(1)], 1))


def probe(world: WorldModel, env: VecEnv, draw: Draw, replay: ReplayBuffer, episode: int, seed: int) -> Metrics:
    """Both probes as metrics, on episode number ``episode`` of ``env``; the second where its engine rewinds.

    ``<kind>_<step>`` with the kinds of ``OpenLoop`` from ``model`` to ``average``, and ``sensitivity_<kind>_<agent>``.
    """
    held_out = record(env, draw, episode, max(3 * HORIZON, 2 * HORIZON + world.history), seed)
    errors = open_loop(world, held_out, LinearModel(world, replay, seed=seed), HORIZON, seed=seed, dreams=8)
    metrics: Metrics = {}
    for kind in ("model", "average", "repeat", "linear"):
        metrics |= {f"{kind}_{h + 1:02d}": error for h, error in enumerate(getattr(errors, kind))}
    if not env.engine.capabilities.rewinds:
        return metrics
    norms = sensitivity(world, env, draw, episode)
    for kind in ("dreamt", "true"):
        metrics |= {f"sensitivity_{kind}_{agent}": norm for agent, norm in enumerate(getattr(norms, kind))}
    return metrics


@torch.no_grad()
def record(env: VecEnv, draw: Draw, episode: int, ticks: int, seed: int) -> ReplayBuffer:
    """``ticks`` rows of every environment under the policy ``draw``, as a replay of their own.

    Afterwards ``env`` is in the state of the newest row, whose action has been drawn but not taken.
    """
    generator = torch.Generator(env.device).manual_seed(seed)
    kept = ReplayBuffer(ReplayConfig(capacity=ticks * env.num_envs), env.spec.dims, env.num_envs, env.device, seed)
    step, action = env.reset(episode), None
    for _ in range(ticks):
        if action is not None:
            step = env.step(action)
        action = draw(step.obs, generator)[0].clamp(-1.0, 1.0)
        kept.add(step, action)
    return kept


@torch.no_grad()
def open_loop(
    world: WorldModel, held_out: ReplayBuffer, linear: LinearModel, horizon: int, seed: int = 0, dreams: int = 1
) -> OpenLoop:
    """Dream from held-out states under the recorded actions, and compare with the recorded states.

    A dream is a sample, so its error exceeds that of its distribution's mean; ``average`` is the error of the mean of
    ``dreams`` dreams.
    """
    history = world.history
    window = _whole_windows(held_out, WINDOWS, history + horizon)
    start, actions = world.context(window.rows(0, history)), window.action[:, history - 1 : -1]
    generator = torch.Generator(window.state.device).manual_seed(seed)
    past, true = world.target.z(window.state).split([history - 1, horizon + 1], 1)
    dreamt = torch.stack([world.target.z(predict_states(world, start, actions, generator)) for _ in range(dreams)])
    fitted = [true[:, 0]]
    for h in range(horizon):
        fitted.append(linear(fitted[-1], actions[:, h]).clamp(-10.0, 10.0))
    errors = (dreamt[0] - true, true[:, :1] - true, torch.stack(fitted, 1) - true)
    model, repeat, fit = (_rms_by_step(error) for error in errors)
    return OpenLoop(
        model=model,
        repeat=repeat,
        linear=fit,
        average=_rms_by_step(dreamt.mean(0) - true),
        typical=torch.stack([_median(error.square().mean(0).sqrt())[1:] for error in errors]),
        past=past[0],
        true=true[0],
        dreamt=dreamt[0, 0],
    )


def physical(spec: TaskSpec, device: torch.device) -> Tensor:
    """(D,) 1 for the state dimensions that physics moves, 0 for those that repeat the action or are output-only."""
    mask = torch.ones(spec.dims.state, device=device)
    if spec.last_action_index is not None:
        mask[spec.last_action_index[spec.last_action_index >= 0]] = 0.0
    if spec.output_only is not None:
        mask[spec.output_only] = 0.0
    return mask


@torch.no_grad()
def sensitivity(world: WorldModel, env: VecEnv, draw: Draw, episode: int) -> Sensitivity:
    """Perturb one agent's current action by ``DELTA`` in the simulator and in the dream, noise held fixed.

    The simulator starts from the same physics state for every agent. State dimensions that repeat the action are left
    out, and output-only ones, whose spikes (contact forces) would dominate.
    """
    dims = env.spec.dims
    now = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    kept = record(env, draw, episode, max(WARMUP, world.history), seed=episode)
    window = kept.gather(now, torch.arange(env.num_envs, device=now.device), world.history)
    start, action, context = copy.deepcopy(env.state_dict()), window.action[:, -1], world.context(window)
    counted = physical(env.spec, action.device)

    def true_next(a: Tensor) -> Tensor:
        env.load_state_dict(start)
        return world.target.z(env.step(a).state) * counted

    def dreamt_next(a: Tensor) -> Tensor:
        generator = torch.Generator(a.device).manual_seed(episode)
        return world.target.z(world.step(context, a, generator, errors=False).state) * counted

    base_true, base_dreamt = true_next(action), dreamt_next(action)
    true, dreamt = [], []
    for agent in range(dims.agents):
        moved = action.clone()
        moved[:, agent] += torch.where(moved[:, agent] > 0, -DELTA, DELTA)  # stays within [-1, 1]
        true.append((true_next(moved) - base_true).square().sum(1).mean().sqrt())
        dreamt.append((dreamt_next(moved) - base_dreamt).square().sum(1).mean().sqrt())
    env.load_state_dict(start)
    return Sensitivity(torch.stack(dreamt), torch.stack(true))


def _whole_windows(held_out: ReplayBuffer, batch: int, length: int) -> Window:
    """``batch`` windows of ``length`` rows of one episode each, or fewer if there are not as many.

    The choice is a fixed pseudo-random one.
    """
    ages = torch.arange(held_out.size - length + 1, device=held_out.device)
    envs = torch.arange(held_out.num_envs, device=held_out.device)
    age, env = (grid.flatten() for grid in torch.meshgrid(ages, envs, indexing="ij"))
    whole = held_out.gather(age, env, length).valid[:, 0]
    scramble = (torch.arange(age.shape[0], device=age.device) * 2_654_435_761) % 2**31
    whole_first = torch.argsort(scramble + (~whole) * 2**32)
    chosen = whole_first[: min(batch, max(1, int(whole.sum())))]
    return held_out.gather(age[chosen], env[chosen], length)


def _median(values: Tensor) -> Tensor:
    """(H, D) -> (H,), the lower one of two; torch's own is not deterministic on a GPU."""
    return values.sort(1).values[:, (values.shape[1] - 1) // 2]


def _rms_by_step(error: Tensor) -> Tensor:
    """(..., H + 1, D) -> (H,), over everything but the step; the error at the start is left out."""
    return error.square().flatten(0, -3).mean((0, 2)).sqrt()[1:]
