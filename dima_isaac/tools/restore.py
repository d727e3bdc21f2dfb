"""A trained team (and its world model) from a checkpoint, for whoever watches or measures it.

The checkpoint says which task and engine by name and with which values; the code behind those names comes from the
catalogue, never from the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from dima_isaac.agent.ppo import ActorCritic
from dima_isaac.config import RunConfig, typed
from dima_isaac.envs.task import TaskSpec
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.replay.config import ReplayConfig
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.run import build, checkpoint
from dima_isaac.run.catalog import CODE_KEYS, Catalog
from dima_isaac.run.folder import ROOT, find
from dima_isaac.schema import AUTO
from dima_isaac.tools.config import Scripted
from dima_isaac.world_model.world_model import WorldModel

Policy = Callable[[Tensor], Tensor]
"""obs (E, N, O) -> action (E, N, A)"""

HELD_OUT = 2_000_003
"""Added to seeds: starts that neither training (seed) nor its evaluations (seed + 1,000,003) use."""

RANDOM_STD = 0.64  # about what the untrained policy explores with


@dataclass
class Restored:
    """What a checkpoint holds, ready to build from."""

    path: Path
    cfg: RunConfig  # resolved for this machine
    state: dict[str, Any]

    @property
    def env_steps(self) -> int:
        return int(self.state["env_steps"])

    @property
    def run_folder(self) -> Path:
        """Where figures and videos of this checkpoint go: its run's folder, or the file's own."""
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else self.path.parent

    @property
    def device(self) -> torch.device:
        return torch.device(self.cfg.rl_device)

    def build_env(self, num_envs: int, seed: int) -> VecEnv:
        """``num_envs`` copies of the task, with starts held out from training."""
        return build.build_env(self.cfg, num_envs, seed + HELD_OUT)

    def agent(self, spec: TaskSpec) -> ActorCritic:
        """The team as it was.

        Raises:
            CheckpointError: it has other sizes than this task's.
        """
        agent = ActorCritic(self.cfg.agent, spec.dims, self.device, spec.action_mask)
        self._load(agent, "agent")
        return agent

    def world(self, env: VecEnv) -> WorldModel:
        """The world model as it was.

        Raises:
            CheckpointError: it has other sizes than this task's.
        """
        spec = env.spec
        world = WorldModel(
            self.cfg.world_model, spec.dims, env.task.observe, spec.last_action_index, spec.output_only
        ).to(self.device)
        self._load(world, "world")
        return world.eval()

    def replay(self, spec: TaskSpec) -> ReplayBuffer:
        """The rows the run had kept, in a ring of just their size.

        Raises:
            CheckpointError: their files are missing or altered.
        """
        stored = checkpoint.rows(self.path, self.state["replay"])
        envs, size = stored["state"].shape[1], int(stored["size"])
        kept = ReplayBuffer(ReplayConfig(capacity=max(2, size) * envs), spec.dims, envs, self.device)
        kept.load_state_dict({**stored, "rows": kept.rows})
        return kept

    def _load(self, module: torch.nn.Module, part: str) -> None:
        try:
            module.load_state_dict(self.state[part])
        except (RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{self.path} does not fit task {self.cfg.task['name']}: {reason}") from error


def restore(where: str, catalog: Catalog, cfg: Any, changes: dict[str, str] | None = None) -> Restored:
    """Read the checkpoint ``where``: a file, a run folder (its newest intact one), or ``latest``.

    ``cfg`` gives ``engine``, ``sim_device``, ``rl_device`` and ``threads`` (auto: the checkpoint's engine, this
    machine's devices); ``changes`` are task.KEY and engine.KEY words.

    Raises:
        CheckpointError: missing, torn or altered, or of a task that is not in the catalogue.
        UsageError: a change that the task or engine refuses, a device or engine that is not there.
    """
    path, state = checkpoint.read_newest(newest(ROOT) if where in ("latest", AUTO) else find(where))
    stored = state["config"]
    engine = stored["engine"] if getattr(cfg, "engine", AUTO) == AUTO else {"name": cfg.engine}
    stored = {
        **stored,
        "task": _code(stored["task"], "task", catalog, path),
        "engine": dict(engine),
        "checkpoint": str(path),
    }
    for key, text in (changes or {}).items():
        group, _, name = key.partition(".")
        try:
            stored[group][name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"{key}={text} is not YAML: {' '.join(str(error).split())}.") from error
    run = replace(
        typed(stored),
        sim_device=getattr(cfg, "sim_device", AUTO),
        rl_device=getattr(cfg, "rl_device", AUTO),
        threads=getattr(cfg, "threads", AUTO),
    )
    resolved, _ = build.resolve_run(run, catalog)
    build.set_global_state(resolved)
    return Restored(path, resolved, state)


def newest(folder: Path) -> Path:
    """The last.pt written last in any run below ``folder``.

    Raises:
        CheckpointError: there is none.
    """
    found = sorted(folder.glob("**/checkpoints/last.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise CheckpointError(f"there is no checkpoint under {folder.resolve()}; name a run folder or a file.")
    return found[-1]


def scripted(kind: Scripted, spec: TaskSpec, device: torch.device, seed: int) -> Policy:
    """A policy that knows nothing: no action, or actions N(0, 0.64^2) clipped to [-1, 1]."""
    shape = (spec.dims.agents, spec.dims.action)
    if kind is Scripted.zero:
        return lambda obs: torch.zeros(obs.shape[0], *shape, device=device)
    generator = torch.Generator(device).manual_seed(seed)

    def act(obs: Tensor) -> Tensor:
        noise = torch.randn(obs.shape[0], *shape, device=device, generator=generator)
        return (RANDOM_STD * noise).clamp(-1.0, 1.0)

    return act


def trained(agent: ActorCritic, explore: bool) -> Policy:
    """The team's policy: its mode, or with ``explore`` what it would do in training."""
    if not explore:
        return agent.mode
    return lambda obs: agent.act(obs)[0].clamp(-1.0, 1.0)


def _code(values: dict[str, Any], group: str, catalog: Catalog, path: Path) -> dict[str, Any]:
    """``values`` with the catalogue's code in place of whatever the file names."""
    name = str(values.get("name", ""))
    if name not in catalog.names(group):
        known = ", ".join(catalog.names(group))
        cure = "if it is your own, add --config-dir DIR"
        raise CheckpointError(f"{path} was made on {group} {name}, which is not known here; {cure}. Known: {known}.")
    own = {key: value for key, value in values.items() if key not in CODE_KEYS}
    code = {key: value for key, value in catalog.values(group, name).items() if key in CODE_KEYS}
    return {**code, **own}


def policy_of(cfg: Any, restored: Restored | None, env: VecEnv) -> Policy:
    """What ``cfg.agent`` names: the checkpoint's team, or a scripted one.

    Raises:
        UsageError: a trained team without a checkpoint.
    """
    if cfg.agent is not Scripted.trained:
        return scripted(cfg.agent, env.spec, env.device, cfg.seed)
    if restored is None:
        raise UsageError("agent=trained needs checkpoint=RUN|FILE|latest; or choose agent=zero or agent=random.")
    return trained(restored.agent(env.spec), cfg.explore)
