"""A diffusion-inspired multi-agent world model, and policies that learn inside its dreams.

``from dima_isaac import make`` builds a vectorised environment; ``dima_isaac.cli.main`` is the command line.
Importing the package imports neither torch nor a physics engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dima_isaac import _checkout as _checkout

if TYPE_CHECKING:
    from dima_isaac.envs.vec_env import VecEnv

__version__ = "0.1.0"


def make(
    task: str, num_envs: int = 64, engine: str = "auto", seed: int = 0, device: str = "auto", **overrides: Any
) -> VecEnv:
    """Build ``num_envs`` copies of a task; keyword ``overrides`` reach the task's configuration.

    >>> env = make("ShadowHandOver", num_envs=64, engine="mujoco", seed=0)
    >>> step = env.reset()
    >>> step = env.step(action)          # action (E, N, A) in [-1, 1]

    Raises:
        UsageError: an unknown task, engine or override; the message lists the alternatives.
    """
    from dima_isaac.run.build import build_env_by_name  # torch is imported only once an environment is wanted

    return build_env_by_name(task, num_envs=num_envs, engine=engine, seed=seed, device=device, overrides=overrides)
