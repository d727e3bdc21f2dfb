"""Our robots are gymnasium-robotics' robots: states, observations and flags bit for bit, rewards to 1e-12."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.tasks.mamujoco.reference import ENVS, build, controls, factorised, rollout, single

PARTITIONS = {
    "HalfCheetah": ["2x3", "6x1", "3x2"],
    "Ant": ["4x2", "2x4", "2x4d", "8x1"],
    "Walker2d": ["2x3", "3x2", "6x1"],
    "Hopper": ["3x1"],
    "Humanoid": ["9|8", "17x1"],
    "HumanoidStandup": ["9|8", "17x1"],
    "Swimmer": ["2x1"],
    "Reacher": ["2x1"],
    "Pusher": ["3p"],
    "ManySegmentAnt": ["2x3"],
    "ManySegmentSwimmer": ["4x2"],
}
DEPTHS = (0, 1, 2)
FALLS = {"Ant", "Walker2d", "Hopper", "Humanoid"}
REWARD_ERROR = 1e-12


def seen_by(view: Any, agent: int) -> np.ndarray:
    """What upstream's ``agent`` sees, less upstream's defects.

    - Walker2d: ``state()`` clips velocities to +-10 and the agents' observations do not. Ours come from the state.
    - Pusher: two joints carry a third one's label, and upstream sorts a set by label, so the order of what an agent
      sees changes from process to process. Ours breaks ties by actuator.
    - ManySegmentAnt: a sign error makes joints of all but the last segment read other joints' numbers, among them the
      root's x and y, which the state leaves out. Ours see zero there.
    """
    robot = view.single_agent_env.unwrapped
    if "walker2d" in type(robot).__module__:
        return view._get_obs_agent(agent, SimpleNamespace(qpos=robot.data.qpos, qvel=np.clip(robot.data.qvel, -10, 10)))
    if view.mujoco_globals and view.mujoco_globals[0].label == "free":
        unplaced = np.concatenate([np.zeros(2), robot.data.qpos[2:]])
        clipped = np.clip(robot.data.cfrc_ext, -1, 1)
        return view._get_obs_agent(agent, SimpleNamespace(qpos=unplaced, qvel=robot.data.qvel, cfrc_ext=clipped))
    near = view.k_dicts[agent]
    view.k_dicts[agent] = {k: sorted(nodes, key=lambda node: (node.label, node.act_ids)) for k, nodes in near.items()}
    return view._get_obs_agent(agent)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", PARTITIONS)
def test_rollouts_are_identical(scenario: str) -> None:
    raws = [single(scenario, PARTITIONS[scenario][0]) for _ in range(ENVS)]
    tasks = {(conf, k): build(scenario, conf, k) for conf in PARTITIONS[scenario] for k in DEPTHS}
    views = {key: [factorised(task, *key, raw) for raw in raws] for key, task in tasks.items()}
    falls = 0
    for pair in rollout(build(scenario, PARTITIONS[scenario][0]), raws):
        np.testing.assert_array_equal(pair.ours["state"], pair.theirs["state"])
        np.testing.assert_array_equal(pair.ours["fallen"], pair.theirs["fallen"])
        np.testing.assert_allclose(pair.ours["reward"], pair.theirs["reward"], rtol=0, atol=REWARD_ERROR)
        falls += int(pair.ours["fallen"].sum())
        for key, task in tasks.items():
            mine = task.observe(torch.from_numpy(pair.ours["state"])).numpy()
            for i, view in enumerate(views[key]):
                for agent in range(task.spec.dims.agents):
                    expected = seen_by(view, agent)
                    np.testing.assert_array_equal(mine[i, agent, : len(expected)], expected)
                    assert not mine[i, agent, len(expected) :].any()
    assert (falls > 0) == (scenario in FALLS)


@pytest.mark.parametrize(
    ("scenario", "hidden"),
    [("Ant", ["cfrc_ext"]), ("Humanoid", ["cvel", "cfrc_ext"]), ("HumanoidStandup", ["cinert", "qfrc_actuator"])],
)
def test_what_gymnasium_leaves_out_of_the_observation_is_left_out(scenario: str, hidden: list[str]) -> None:
    constants = {f"include_{field}_in_observation": False for field in hidden}
    raws = [single(scenario, **constants) for _ in range(ENVS)]
    for pair in rollout(build(scenario, constants=constants), raws, 50):
        np.testing.assert_array_equal(pair.ours["state"], pair.theirs["state"])
        np.testing.assert_allclose(pair.ours["reward"], pair.theirs["reward"], rtol=0, atol=REWARD_ERROR)
    whole, less = (build(scenario, depth=1, constants=given).spec.dims for given in ({}, constants))
    assert less.state < whole.state and less.obs < whole.obs


@pytest.mark.parametrize("scenario", PARTITIONS)
def test_actions_reach_upstreams_actuators(scenario: str) -> None:
    raw = single(scenario, PARTITIONS[scenario][0])
    for conf in PARTITIONS[scenario]:
        task = build(scenario, conf, 0)
        dims = task.spec.dims
        view = factorised(task, conf, 0, raw)
        action = torch.arange(1.0, dims.agents * dims.action + 1).view(dims.agents, dims.action)
        named = {
            name: action[i, : view.action_space(name).shape[0]].numpy() for i, name in enumerate(view.possible_agents)
        }
        expected = view.map_local_actions_to_global_action(named)
        np.testing.assert_array_equal(controls(task, action), expected)
        np.testing.assert_array_equal(task.scatter(action[None])[0].numpy(), expected)
