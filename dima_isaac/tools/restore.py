"""Agents, world model and replay from a checkpoint.

The checkpoint names task and engine and holds their values; the code behind those names comes from the catalogue,
never from the file.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from dima_isaac.agent.learner import Learner, build_learner
from dima_isaac.agent.rl_games_actor import RlGamesActor
from dima_isaac.config import Algo, RunConfig, typed
from dima_isaac.envs.task import TaskSpec
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.replay.config import ReplayConfig
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.run import build, checkpoint
from dima_isaac.run.catalog import Catalog, code, settings
from dima_isaac.run.folder import LATEST, ROOT, find
from dima_isaac.run.resolve import refusal, resolve_run
from dima_isaac.run.sealed import State
from dima_isaac.run.segments import load_rows
from dima_isaac.schema import AUTO, convert
from dima_isaac.tools.config import PolicyConfig, ToolConfig
from dima_isaac.types import Game
from dima_isaac.world_model.world_model import WorldModel


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
        """``num_envs`` copies of the task, with starts held out from training: the same for every command."""
        return build.build_env(self.cfg, num_envs, seed + self.cfg.seed + build.HELD_OUT)

    def agent(self, game: Game) -> Learner | RlGamesActor:
        """Its agents; of an exported policy and of rl-games' networks only the actor is trained."""
        if self.cfg.algo in (Algo.ppo, Algo.mappo):
            actor = RlGamesActor(game.spec.dims).to(self.device)
            trained = self.state.get("policy") or actor.own_names(self.state["rl_games"]["model"])
            self._load(actor.load_state_dict, trained)
            return actor
        clip = self.cfg.world_model.clip_actions
        agent = build_learner(self.cfg.agent, game, self.device, clip_actions=clip)
        if "policy" in self.state:
            self._load(agent.load_policy, self.state["policy"])
        else:
            self._load(agent.load_state_dict, self.state["agent"])
        return agent

    def check_world(self) -> None:
        """Raise ``UsageError`` unless it holds a world model."""
        if self.cfg.algo is not Algo.dima:
            raise UsageError(f"{self.path} is of algo={self.cfg.algo.name}, which has no world model.")
        if "world" not in self.state:
            raise UsageError(f"{self.path} is a policy alone, without the world model that it was trained in.")

    def world(self, env: VecEnv) -> WorldModel:
        """Its world model, in evaluation mode.

        Raises:
            CheckpointError: it has other sizes than this task's.
            UsageError: it has none.
        """
        self.check_world()
        world = WorldModel(self.cfg.world_model, env.task, self.device)
        self._load(world.load_state_dict, self.state["world"])
        return world.eval()

    def replay(self, spec: TaskSpec) -> ReplayBuffer:
        """The rows that its replay held, in a ring of their size.

        Raises:
            CheckpointError: all of them are lost.
            UsageError: it has none, as a policy alone or a run of rl-games.
        """
        if "replay" not in self.state:
            raise UsageError(f"{self.path} has no replay.")
        load_rows(self.path.parent, self.state, print)
        stored = self.state["replay"]
        if not int(stored["size"]):
            raise CheckpointError(f"{self.path} has no replay rows.")
        rows, envs = stored["state"].shape[:2]
        kept = ReplayBuffer(ReplayConfig(capacity=max(2, rows) * envs), spec.dims, envs, self.device)
        kept.load_state_dict({**stored, "rows": kept.rows})
        return kept

    def _load(self, load: Callable[[dict[str, Any]], object], weights: dict[str, Any]) -> None:
        try:
            load(weights)
        except (RuntimeError, KeyError) as error:
            sizes = "its networks have other layers or sizes" if "state_dict" in str(error) else f"it lacks {error}"
            raise CheckpointError(f"{self.path} does not fit task {self.cfg.task['name']}: {sizes}.") from error


def restore(cfg: ToolConfig, catalog: Catalog, changes: dict[str, str] | None = None) -> Restored:
    """Read ``cfg.checkpoint``: a file, a run folder (its newest intact checkpoint), zoo:NAME, or ``latest``.

    An ``engine``, ``sim_device``, ``rl_device`` or ``threads`` of ``auto`` is the checkpoint's engine, or the first
    that this machine can run where it cannot run that one, and this machine's devices; ``changes`` are values of
    task.KEY and engine.KEY, as typed.

    Raises:
        CheckpointError: missing, torn or altered, or of a task that is not in the catalogue.
        UsageError: a change that the task or engine refuses, a device or engine that is not there.
    """
    path, state, stored = read_run(cfg.checkpoint, catalog)
    stored["engine"] = dict(stored["engine"]) if cfg.engine == AUTO else {"name": cfg.engine}
    for key, text in (changes or {}).items():
        group, _, name = key.partition(".")
        hint = catalog.settable(group, stored[group]["name"]).get(name, Any)
        value = convert(key, text, hint)
        try:
            stored[group][name] = yaml.safe_load(value) if isinstance(value, str) else value
        except yaml.YAMLError as error:
            raise UsageError(f"{key}={text} is not YAML: {' '.join(str(error).split())}.") from error
    made = typed(stored)
    run = replace(made, sim_device=cfg.sim_device, rl_device=cfg.rl_device, threads=cfg.threads)
    name, named = run.engine["name"], made.sim_device == "cpu"
    if cfg.engine == AUTO and (why := refusal(run, name, catalog, named)):
        print(f"engine      {name}, which this was made with, {why}")
        run = replace(run, engine={"name": AUTO})
    resolved, _ = resolve_run(run, catalog)
    build.set_global_state(resolved)
    return Restored(path, resolved, state)


def read_run(where: str, catalog: Catalog) -> tuple[Path, State, dict[str, Any]]:
    """The checkpoint that ``where`` names: file, content, and its run's configuration with the catalogue's code.

    Raises:
        CheckpointError: missing, torn or altered, or of a task that is not in the catalogue.
        UsageError: the zoo has no such policy.
    """
    path, state = checkpoint.read_newest(newest(ROOT) if where in (LATEST, AUTO) else find(where))
    stored = state["config"]
    return path, state, {**stored, "task": _code(stored["task"], "task", catalog, path), "checkpoint": str(path)}


def restore_or_compose(
    cfg: PolicyConfig, changes: dict[str, str], compose: Callable[..., RunConfig], catalog: Catalog
) -> tuple[Restored | None, RunConfig]:
    """The checkpoint that ``cfg`` names and its run, or without one (None) the run composed from the command line."""
    if cfg.checkpoint:
        restored = restore(cfg, catalog, changes)
        if cfg.task:
            checkpoint.check_task(restored.path, restored.state, cfg.task)
        return restored, restored.cfg
    run, _ = resolve_run(compose(), catalog)
    build.set_global_state(run)
    return None, run


def newest(folder: Path) -> Path:
    """The newest last.pt of all runs below ``folder``.

    Raises:
        CheckpointError: there is none.
    """
    found = sorted(folder.glob("**/checkpoints/last.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise CheckpointError(f"there is no checkpoint under {folder.resolve()}; name a run folder or a file.")
    return found[-1]


def _code(values: dict[str, Any], group: str, catalog: Catalog, path: Path) -> dict[str, Any]:
    """``values`` with the catalogue's code in place of whatever the file names."""
    name = str(values.get("name", ""))
    if name not in catalog.names(group):
        known = ", ".join(catalog.names(group))
        cure = "if it is your own, add --config-dir DIR"
        raise CheckpointError(f"{path} was made on {group} {name}, which is not known here; {cure}. Known: {known}.")
    return {**code(catalog.values(group, name)), **settings(values)}
