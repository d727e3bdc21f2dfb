"""Partitions: who moves what, who sees what, and what is refused."""

from __future__ import annotations

import pytest
import torch

from dima_isaac.errors import UsageError
from tests.tasks.mamujoco.reference import build, vectorise


def test_counted_off_partitions_follow_the_actuators() -> None:
    assert [[n.label for n in part] for part in build("HalfCheetah", "3x2").graph.parts] == [
        ["bthigh", "bshin"],
        ["bfoot", "fthigh"],
        ["fshin", "ffoot"],
    ]
    assert [len(part) for part in build("Walker2d", "4|2").graph.parts] == [4, 2]
    assert [[n.act_ids for n in part] for part in build("Humanoid", "17x1").graph.parts] == [[i] for i in range(17)]


def test_custom_partition_by_joint_names() -> None:
    task = build("HalfCheetah", partition=[["ffoot", "bfoot"], ["bthigh", "fthigh", "bshin", "fshin"]])
    assert [[n.act_ids for n in part] for part in task.graph.parts] == [[5, 2], [0, 3, 1, 4]]
    action = torch.arange(8.0).view(1, 2, 4)
    assert task.scatter(action).tolist() == [[4.0, 6.0, 1.0, 5.0, 7.0, 0.0]]
    assert task.spec.action_mask.tolist() == [[True, True, False, False], [True] * 4]


def test_depth_zero_sees_own_joints_and_the_root() -> None:
    """HalfCheetah's state is qpos[1:9], qvel[0:9]; the front leg, sorted by name, sees 11 of it."""
    state = torch.arange(17.0)
    seen = build("HalfCheetah", "2x3", 0).observe(state)[1]
    position = {"z": 0, "pitch": 1, "fthigh": 5, "fshin": 6, "ffoot": 7}
    speed = {"x": 8, "z": 9, "pitch": 10, "fthigh": 14, "fshin": 15, "ffoot": 16}
    own = [table[joint] for joint in ("ffoot", "fshin", "fthigh") for table in (position, speed)]
    root = [position["z"], position["pitch"], speed["x"], speed["z"], speed["pitch"]]
    assert seen.tolist() == own + root


def test_full_observability_is_the_state_for_everybody() -> None:
    state = torch.randn(4, 5, 17)
    obs = build("HalfCheetah", "6x1", "full").observe(state)
    assert obs.shape == (4, 5, 6, 17)
    assert all(torch.equal(obs[:, :, agent], state) for agent in range(6))


def test_shorter_agents_are_padded_with_zeros() -> None:
    task = build("Humanoid", "9|8", 1)
    seen = task.observe(torch.ones(348, dtype=torch.float64))
    assert seen.shape == (2, 242) and seen.sum(1).tolist() == [242.0, 170.0]
    assert task.spec.dims.action == 9 and task.spec.action_mask.sum(1).tolist() == [9, 8]


@pytest.mark.parametrize(
    ("scenario", "conf", "depth", "said"),
    [
        ("HalfCheetah", "4x2", "full", "agent_conf='4x2'. Known: 2x3, 6x1"),
        ("HalfCheetah", "2x3", "near", "agent_obsk=near"),
        ("HalfCheetah", "2x3", "-1", "agent_obsk=-1"),
        ("HalfCheetah", "2x3", "²", "agent_obsk=²"),
        ("HalfCheetah", "0x6", "full", "Known: 2x3"),
        ("HalfCheetah", "6|0", "full", "Known: 2x3"),
        ("ManySegmentAnt", "2p", "full", "AxB"),
    ],
)
def test_refusals_name_the_alternatives(scenario: str, conf: str, depth: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(scenario, conf, depth)
    assert said in str(caught.value)


def test_a_partition_must_cover_every_joint_once() -> None:
    with pytest.raises(UsageError, match="each joint"):
        build("Hopper", partition=[["thigh_joint"], ["leg_joint"]])
    with pytest.raises(UsageError, match="no joint knee"):
        build("Hopper", partition=[["thigh_joint", "leg_joint"], ["knee"]])
    with pytest.raises(UsageError, match="no constant 'ctrl_weight'"):
        build("Hopper", constants={"ctrl_weight": 1.0})
    with pytest.raises(UsageError, match=r"AxB.* not as 'a partition'"):
        build("ManySegmentAnt", partition=[["hip1"], ["hip2"]])
    for body in (-1, 14):
        with pytest.raises(UsageError, match=f"main_body={body}; its bodies are 0 to 13"):
            vectorise(build("Ant", constants={"main_body": body}), 1)


def test_a_depth_beyond_the_robot_sees_all_of_its_joints() -> None:
    """As far as the chain is long; more than that changes nothing."""
    state = torch.arange(17.0)
    seen = [build("HalfCheetah", "6x1", depth).observe(state) for depth in (5, 6, 100)]
    assert torch.equal(seen[1], seen[2]) and seen[0].shape == (6, 12)


def test_categories_must_be_of_the_robots_state() -> None:
    """Upstream ignores a name that it does not know: the agents would silently see less."""
    for wrong in ({"local_categories": [["qpos", "qvels"]]}, {"global_categories": ["qpos", "qvels"]}):
        with pytest.raises(UsageError, match=r"'qvels'; did you mean qvel\? Known: qpos, qvel"):
            build("HalfCheetah", "2x3", 0, **wrong)
    hidden = {"include_cfrc_ext_in_observation": False}
    with pytest.raises(UsageError, match="'cfrc_ext'"):
        build("Ant", "4x2", 0, constants=hidden, local_categories=[["qpos", "cfrc_ext"]])
    with pytest.raises(UsageError, match="nothing to see"):
        build("HalfCheetah", "2x3", 0, local_categories=[[]], global_categories=[])
    assert build("HalfCheetah", "2x3", 0, global_categories=["qpos"]).spec.dims.obs == 8
    assert build("Reacher", depth=0, local_categories=[["fingertip_dist"]], global_categories=[]).spec.dims.obs == 3
