"""The views: each passes its own library's checker, and loses no terminal observation."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from dima_isaac import make
from dima_isaac.envs.views.gymnasium_vector import GymnasiumVectorView
from dima_isaac.envs.views.pettingzoo_parallel import PettingZooView


def hopper(num_envs: int, **task: Any) -> Any:
    return make("Hopper", num_envs=num_envs, engine="mujoco", seed=3, **task)


def test_pettingzoo_passes_its_checkers() -> None:
    from pettingzoo.test import parallel_api_test, parallel_seed_test

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parallel_api_test(PettingZooView(hopper(1)), num_cycles=60)
        parallel_seed_test(lambda: PettingZooView(hopper(1)), num_cycles=20)


def test_pettingzoo_offers_each_agent_its_own_actions() -> None:
    view = PettingZooView(make("Humanoid", agent_conf="9|8", agent_obsk=1, num_envs=1, engine="mujoco"))
    assert [view.action_space(name).shape for name in view.possible_agents] == [(9,), (8,)]
    obs, _ = view.reset(seed=1)
    assert obs["agent_1"].shape == (242,) and not obs["agent_1"][170:].any()
    assert view.state_space.contains(view.state()) and view.state().shape == (348,)
    np.testing.assert_array_equal(view.env.task.observe(torch.from_numpy(view.state()))[0], obs["agent_0"])
    with pytest.raises(ValueError, match="num_envs=1"):
        PettingZooView(hopper(2))


def test_gymnasium_resets_only_the_environments_of_the_mask() -> None:
    view = GymnasiumVectorView(hopper(3, episode_length=2))
    view.reset(seed=1)
    calm = np.zeros((3, 3, 1), np.float32)
    before, *_ = view.step(calm)
    after, infos = view.reset(options={"reset_mask": np.array([False, True, False])})
    assert (before != after).any((1, 2)).tolist() == [False, True, False] and infos["state"].shape == (3, 11)
    *_, truncated, _ = view.step(calm)
    assert truncated.tolist() == [True, False, True]
    # a reset by hand takes the place of the tick that would have been spent on it
    view.reset(options={"reset_mask": truncated})
    assert view.step(calm)[3].tolist() == [False, True, False] and view.step(calm)[3].tolist() == [True, False, True]


def test_gymnasium_hands_out_what_its_spaces_say() -> None:
    view = GymnasiumVectorView(hopper(2, precision="float64"))
    seen, infos = view.reset(seed=1)
    assert view.observation_space.contains(seen) and infos["state"].dtype == np.float32
    assert view.observation_space.contains(view.step(view.action_space.sample())[0])


def test_gymnasium_keeps_the_next_step_convention() -> None:
    """The tick after the last ignores its action, pays nothing, and shows a start: as Gymnasium's own vectors do."""
    import gymnasium

    view = GymnasiumVectorView(hopper(3))
    assert view.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.NEXT_STEP
    view.action_space.seed(0)
    obs, infos = view.reset(seed=7)
    assert view.observation_space.contains(obs) and infos["state"].shape == (3, 11)
    again, _ = view.reset(seed=7)
    np.testing.assert_array_equal(obs, again)
    over, starts = np.zeros(3, bool), 0
    for _ in range(80):
        obs, reward, terminated, truncated, _ = view.step(view.action_space.sample())
        assert view.observation_space.contains(obs) and reward.shape == (3,)
        starts += int(over.sum())
        assert not reward[over].any() and not terminated[over].any() and not truncated[over].any()
        # starts are within 5 mm of the rest height of 1.25 m
        assert (np.abs(obs[over][:, 0, 0] - 1.25) <= 5e-3).all()
        over = terminated | truncated
    assert starts > 3


def test_gymnasium_same_step_hands_the_last_observation_over() -> None:
    plain, same = GymnasiumVectorView(hopper(2)), GymnasiumVectorView(hopper(2), autoreset="same_step")
    plain.reset(seed=1), same.reset(seed=1)
    plain.action_space.seed(0)
    for _ in range(200):
        action = plain.action_space.sample()
        expected, _, ended, _, _ = plain.step(action)
        obs, _, also, _, infos = same.step(action)
        np.testing.assert_array_equal(ended, also)
        if ended.any():
            np.testing.assert_array_equal(infos["_final_obs"], ended)
            np.testing.assert_array_equal(infos["final_obs"][ended], expected[ended])
            assert (np.abs(obs[ended][:, 0, 0] - 1.25) <= 5e-3).all()
            return
        np.testing.assert_array_equal(obs, expected)
    raise AssertionError("no robot fell in 200 steps")


def test_gymnasiums_own_wrappers_take_it() -> None:
    from gymnasium.wrappers.vector import RecordEpisodeStatistics

    env = RecordEpisodeStatistics(GymnasiumVectorView(hopper(2, episode_length=5)))
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(5):
        *_, infos = env.step(env.action_space.sample() * 0.0)
    assert infos["episode"]["l"].tolist() == [5, 5]


def test_rl_games_rows_are_environments_agents() -> None:
    from dima_isaac.envs.views.rl_games_vecenv import RlGamesView

    view = RlGamesView(make("HalfCheetah", num_envs=3, engine="mujoco", episode_length=4), central=True)
    info = view.get_env_info()
    assert info["agents"] == 2 and info["observation_space"].shape == (19,) and info["state_space"].shape == (17,)
    seen = view.reset()
    assert seen["obs"].shape == (6, 19) and seen["states"].shape == (3, 17)
    assert torch.equal(seen["obs"][:, 17:], torch.eye(2).repeat(3, 1))
    assert torch.equal(seen["obs"][2:4, :17], seen["states"][1].expand(2, 17))
    for tick in range(1, 9):
        seen, reward, done, infos = view.step(torch.zeros(6, 3))
        assert reward.shape == done.shape == (6,)
        ends = tick % 4 == 0
        assert bool(done.all()) == ends and torch.equal(infos["time_outs"], done)
        # after an end the row already shows the next start, at rest but for its noise
        assert (float(seen["states"][:, 1].abs().max()) <= 0.1) or not ends
    assert view.frames == 24


def test_rl_games_wild_actions_are_cut() -> None:
    from dima_isaac.envs.views.rl_games_vecenv import RlGamesView

    one, other = (RlGamesView(make("HalfCheetah", num_envs=2, engine="mujoco", protocol="harl")) for _ in range(2))
    one.reset(), other.reset()
    wild = torch.full((4, 3), 3.0)
    assert torch.equal(one.step(wild)[1], other.step(wild.clamp(-1.0, 1.0))[1])


def test_gymnasium_draws_every_environment() -> None:
    view = GymnasiumVectorView(hopper(3))
    view.env.engine.render = lambda i, width, height: np.full((height, width, 3), i)
    assert [picture.max() for picture in view.render()] == [0, 1, 2]


def test_an_episode_that_breaks_is_cut_off_in_every_view() -> None:
    """A command that is no number breaks the physics: what is seen then is another episode's start."""
    from dima_isaac.envs.views.rl_games_vecenv import RlGamesView

    wild = np.zeros((2, 3, 1), np.float32)
    wild[1], calm = np.nan, np.zeros_like(wild)
    for autoreset in ("next_step", "same_step"):
        view = GymnasiumVectorView(hopper(2, episode_length=2), autoreset)
        view.reset(seed=0)
        _, reward, terminated, truncated, _ = view.step(wild)
        assert truncated.tolist() == [False, True] and not terminated.any() and reward[1] == 0.0
        assert view.step(calm)[3].tolist() == [True, False]
        # the first environment begins anew, in this tick or before it
        assert view.step(calm)[3].tolist() == [False, True]
    one = PettingZooView(hopper(1))
    one.reset(seed=0)
    *_, truncations, _ = one.step(dict.fromkeys(one.agents, wild[1, 0]))
    assert all(truncations.values()) and not one.agents
    rows = RlGamesView(hopper(2))
    rows.reset()
    _, _, done, infos = rows.step(torch.from_numpy(wild).flatten(0, 1))
    assert done.tolist() == infos["time_outs"].tolist() == [False] * 3 + [True] * 3


def test_sb3_has_gymnasiums_observations_and_the_last_one_of_an_episode() -> None:
    """Two environments of two ticks: the time limit cuts both off, and both are seen at their next start."""
    pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed")
    from dima_isaac.envs.views.sb3_vecenv import SB3View

    view, plain = SB3View(hopper(2, episode_length=2)), GymnasiumVectorView(hopper(2, episode_length=2), "same_step")
    view.seed(5)
    np.testing.assert_array_equal(view.reset(), plain.reset(seed=5)[0])
    calm = np.zeros((2, *view.action_space.shape), np.float32)
    for ends in (False, True, False, True):
        expected, pay, _, _, more = plain.step(calm)
        obs, reward, done, infos = view.step(calm)
        np.testing.assert_array_equal(obs, expected)
        np.testing.assert_array_equal(reward, pay)
        assert done.tolist() == [info["TimeLimit.truncated"] for info in infos] == [ends] * 2
        assert [("terminal_observation" in info) for info in infos] == [ends] * 2
        if ends:
            np.testing.assert_array_equal([info["terminal_observation"] for info in infos], more["final_obs"])
            assert view.observation_space.contains(infos[1]["terminal_observation"])
    assert view.env_is_wrapped(object) == [False] * 2 and view.get_attr("num_envs", [1]) == [2]


def test_sb3_a_fall_is_no_time_limit() -> None:
    pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed")
    from dima_isaac.envs.views.sb3_vecenv import SB3View

    view, closed = SB3View(hopper(2)), []
    view.reset()
    for _ in range(300):
        _, _, done, infos = view.step(np.ones((2, *view.action_space.shape), np.float32))
        if done.any():
            break
    fallen = infos[int(done.argmax())]
    assert done.any() and not fallen["TimeLimit.truncated"] and "terminal_observation" in fallen
    view.vector.env.close = lambda: closed.append(True)
    view.close()
    assert closed == [True]


@pytest.mark.slow
def test_torchrl_passes_its_checker() -> None:
    pytest.importorskip("torchrl")
    from torchrl.envs.utils import check_env_specs

    from dima_isaac.envs.views.torchrl_env import TorchRLView

    check_env_specs(TorchRLView(hopper(3)))
    view = TorchRLView(hopper(3))
    rolled = view.rollout(60, break_when_any_done=False)
    assert rolled["agents", "observation"].shape == (3, 60, 3, 11)
    assert bool(rolled["next", "terminated"].any())
    for key in ("done", "terminated", "truncated"):  # each agent's own, beside its reward
        whole, own = rolled["next", key], rolled["next", "agents", key]
        assert own.shape == rolled["next", "agents", "reward"].shape == (3, 60, 3, 1)
        assert torch.equal(own, whole[..., None, :].expand_as(own))
    view.reset()
    before = view.rand_step()["next"]
    mask = torch.tensor([[False], [True], [False]])
    after = view.reset(before.exclude("reward").set("_reset", mask))
    assert (before["state"] != after["state"]).any(1).tolist() == [False, True, False]
    assert view.env.state_dict()["time"].tolist() == [1, 0, 1]


def test_torchrl_is_seeded_and_closed() -> None:
    pytest.importorskip("torchrl")
    from dima_isaac.envs.views.torchrl_env import TorchRLView

    view, closed = TorchRLView(hopper(2)), []
    view.env.close = lambda: closed.append(True)
    starts = []
    for seed in (5, 6, 5):
        view.set_seed(seed)
        starts.append(view.reset()["state"])
        view.rollout(3)
    assert torch.equal(starts[0], starts[2]) and not torch.equal(starts[0], starts[1])
    np.testing.assert_array_equal(starts[0], GymnasiumVectorView(hopper(2)).reset(seed=5)[1]["state"])
    view.close()
    assert closed == [True]


def test_beginning_at_once_equals_spending_the_tick() -> None:
    """One tick later both ways of resetting have led to the same start."""
    one, other = hopper(2), hopper(2)
    one.reset(), other.reset()
    action = torch.zeros(2, 3, 1)
    for _ in range(300):
        row, also = one.step(action), other.step(action)
        if bool(row.last.any()):
            break
        assert torch.equal(row.state, also.state)
    begun = one.reset_where(row.last)
    ticked = other.step(action)
    assert torch.equal(begun.state[row.last], ticked.state[row.last])
    assert torch.equal(begun.first, row.last)
