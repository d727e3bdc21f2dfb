"""Our robots are gymnasium-robotics' robots: states, observations and flags bit for bit, rewards to 1e-12."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dima_isaac.tasks.mamujoco.config import MamujocoConfig, Precision

from dima_isaac.catalog import Catalog, resolve
from tests.tasks.mamujoco.reference import ENVS, factorised, rollout, single

PARTITIONS = {
    "HalfCheetah": ["2x3", "6x1", "3x2"],
}
DEPTHS = (0, 1, 2)


def build(scenario: str, conf: str, depth: int | str) -> Any:
    cls = resolve(Catalog().values("task", scenario)["target"])
    return cls(MamujocoConfig(agent_conf=conf, agent_obsk=str(depth), precision=Precision.float64))


@pytest.mark.parametrize("scenario", PARTITIONS)
def test_rollouts_are_identical(scenario: str) -> None:
    raws = [single(scenario) for _ in range(ENVS)]
    tasks = {(conf, k): build(scenario, conf, k) for conf in PARTITIONS[scenario] for k in DEPTHS}
    views = {key: [factorised(task, *key, raw) for raw in raws] for key, task in tasks.items()}
    falls = 0
    for pair in rollout(scenario, raws):
        np.testing.assert_array_equal(pair.ours["state"], pair.theirs["state"])
        np.testing.assert_array_equal(pair.ours["fallen"], pair.theirs["fallen"])
        np.testing.assert_allclose(pair.ours["reward"], pair.theirs["reward"], rtol=0, atol=1e-12)
        falls += int(pair.ours["fallen"].sum())
        for key, task in tasks.items():
            mine = task.observe(torch.from_numpy(pair.ours["state"])).numpy()
            for i, view in enumerate(views[key]):
                for agent, expected in enumerate(view._get_obs().values()):
                    np.testing.assert_array_equal(mine[i, agent, : len(expected)], expected)
                    assert not mine[i, agent, len(expected) :].any()
