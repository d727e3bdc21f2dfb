"""A ``VecEnv`` as TorchRL's ``EnvBase``: batch (E,), agents in the group ``agents``, the state beside them."""

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.types import Step


class TorchRLView(EnvBase):
    """Keys: ``("agents", "observation")`` (E, N, O), ``("agents", "action")`` (E, N, A), ``("agents", "reward")``
    (E, N, 1), ``state`` (E, D), and ``done``, ``terminated``, ``truncated`` (E, 1), which ``("agents", "done")`` and so
    on repeat for each agent (E, N, 1) beside its reward. Resets take ``_reset`` masks (E, 1)."""

    batch_locked = True

    def __init__(self, env: VecEnv) -> None:
        super().__init__(device=env.device, batch_size=torch.Size([env.num_envs]))
        self.env = env
        envs, dims = env.num_envs, env.spec.dims

        def numbers(*shape: int) -> Any:
            return Unbounded(shape=(envs, *shape), device=env.device, dtype=torch.float32)

        def flags(*shape: int) -> dict[str, Any]:
            flag = Categorical(2, shape=torch.Size([envs, *shape, 1]), dtype=torch.bool, device=env.device)
            return {name: flag.clone() for name in ("done", "terminated", "truncated")}

        def group(**specs: Any) -> Any:
            return Composite(specs, shape=(envs, dims.agents), device=env.device)

        self.observation_spec = Composite(
            agents=group(observation=numbers(dims.agents, dims.obs)), state=numbers(dims.state), shape=(envs,)
        )
        bounds = Bounded(-1.0, 1.0, shape=(envs, dims.agents, dims.action), device=env.device, dtype=torch.float32)
        self.action_spec = Composite(agents=group(action=bounds), shape=(envs,))
        self.reward_spec = Composite(agents=group(reward=numbers(dims.agents, 1)), shape=(envs,))
        self.done_spec = Composite(agents=group(**flags(dims.agents)), **flags(), shape=(envs,))

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        row = self.env.reset() if mask is None else self.env.reset_where(mask.view(self.env.num_envs))
        return self._pack(row, torch.zeros_like(row.last), torch.zeros_like(row.last))

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        row = self.env.step(tensordict["agents", "action"])
        out = self._pack(row, row.terminal, row.cut_short)
        out["agents", "reward"] = self._by_agent(row.reward.float())
        return out

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self.env.seed = seed
            self.env.reset(0)  # the next reset begins episode 1, whatever was played before

    def close(self, **kwargs: Any) -> None:
        super().close(**kwargs)
        self.env.close()

    def _by_agent(self, value: Tensor) -> Tensor:
        """(E,) -> (E, N, 1)"""
        return value[:, None, None].repeat(1, self.env.spec.dims.agents, 1)

    def _pack(self, row: Step, terminated: Tensor, truncated: Tensor) -> TensorDict:
        envs, agents = self.env.num_envs, self.env.spec.dims.agents
        flags = {"done": terminated | truncated, "terminated": terminated, "truncated": truncated}
        group = {"observation": row.obs.float().clone(), **{key: self._by_agent(flag) for key, flag in flags.items()}}
        seen = TensorDict(group, batch_size=(envs, agents), device=self.device)
        packed = {"agents": seen, "state": row.state.float(), **{key: flag[:, None] for key, flag in flags.items()}}
        return TensorDict(packed, batch_size=(envs,), device=self.device)
