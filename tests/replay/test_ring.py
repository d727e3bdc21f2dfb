"""The ring, filled with rows that name themselves, so that a wrong index cannot hide."""

import torch

from dima_isaac.replay import ring
from dima_isaac.replay.config import ReplayConfig
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.types import Dims, Step

DIMS = Dims(agents=2, state=3, obs=1, action=1)


def filled(ticks: int, envs: int = 4, capacity: int = 4 * 50, length: int = 7) -> ReplayBuffer:
    """Row t of environment e holds state (t, e, episode); environment e starts its episodes with a lag of e ticks."""
    ring = ReplayBuffer(ReplayConfig(capacity=capacity), DIMS, envs, torch.device("cpu"))
    env = torch.arange(envs)
    for t in range(ticks):
        phase = (t - env) % length
        first, last = (phase == 0) | (t == 0), phase == length - 1
        episode = torch.div(t - env, length, rounding_mode="floor")
        state = torch.stack([torch.full((envs,), t), env, episode], 1).float()
        step = Step(state, torch.zeros(envs, 2, 1), env * 100.0 + t, first, last, last & (env == 1))
        ring.add(step, state[:, :2, None].clone())
    return ring


def test_windows_are_consecutive_rows_of_one_environment_and_episode():
    ring = filled(180)
    window = ring.sample(2_000, 6)
    t, env, episode = window.state.unbind(-1)
    assert window.valid[:, -1].all()
    assert (window.valid[:, 1:] | ~window.valid[:, :-1]).all(), "invalid rows are a prefix"
    same = window.valid[:, :-1] & window.valid[:, 1:]
    assert (t[:, 1:] - t[:, :-1])[same].eq(1).all()
    assert (env[:, 1:] == env[:, :-1])[same].all() and (episode[:, 1:] == episode[:, :-1])[same].all()
    assert window.state[~window.valid].eq(0).all() and window.action[~window.valid].eq(0).all()
    assert (window.reward == env * 100 + t)[window.valid].all()
    torch.testing.assert_close(window.action[..., 0][window.valid], window.state[..., :2][window.valid])
    assert not window.valid.all() and window.valid.any(), "both kinds must occur for the test to mean anything"
    assert (window.terminal == ((env == 1) & ((t - env) % 7 == 6)))[window.valid].all()


def test_a_window_is_invalid_exactly_before_its_episode_starts():
    ring = filled(40)
    window = ring.gather(torch.zeros(4, dtype=torch.long), torch.arange(4), 10)
    phase = (39 - torch.arange(4)) % 7
    assert (window.valid.sum(1) == phase + 1).all()


def test_oldest_rows_do_not_leak_across_the_write_head():
    ring = filled(173)  # 50 rows per environment, wrapped
    age = torch.full((4,), ring.size - 1)
    window = ring.gather(age, torch.arange(4), 3)
    assert window.valid.tolist() == [[False, False, True]] * 4
    assert window.state[:, -1, 0].eq(173 - 50).all()


def test_age_weights():
    edges = torch.tensor(ring.WEIGHTS).cumsum(0)
    generator = torch.Generator().manual_seed(0)
    age = ring.draw_ages(40_000, 1_000, edges, generator)
    assert age.min() >= 0 and age.max() == 999
    share = torch.histc(age.float(), 4, 0, 1_000) / 40_000
    torch.testing.assert_close(share, torch.tensor([0.7, 0.1, 0.1, 0.1]), atol=0.02, rtol=0)
    assert ring.draw_ages(100, 2, edges, generator).unique().tolist() == [0, 1]


def test_continues_bit_for_bit():
    ring = filled(30)
    other = ReplayBuffer(ReplayConfig(capacity=200), DIMS, 4, torch.device("cpu"), seed=9)
    other.load_state_dict(ring.state_dict())
    a, b = ring.sample(64, 5), other.sample(64, 5)
    assert torch.equal(a.state, b.state) and torch.equal(a.valid, b.valid)
    assert other.size == 30


def test_newest_windows_end_in_the_last_rows_of_every_environment():
    window = filled(40).newest(3, 2)
    assert window.state.shape == (12, 2, 3)
    ends = sorted((int(t), int(env)) for t, env in window.state[:, -1, :2])
    assert ends == [(t, env) for t in (37, 38, 39) for env in range(4)]


def test_transitions_of_several_steps_by_hand():
    ring = filled(173)  # wrapped; episodes of 7 rows, environment 1's end by the task
    rows = ring.transitions(4_000, 3, 0.5)
    t, env, episode = rows.state.unbind(-1)
    phase = (t - env) % 7
    assert torch.equal(rows.counted, phase < 6), "an episode's last row leads nowhere; every other one does"
    n = (6 - phase).minimum(torch.tensor(3.0)).minimum(172 - t)[rows.counted]  # steps until the episode or replay ends
    begin, at, end = t[rows.counted], env[rows.counted], rows.next_state[rows.counted]
    assert torch.equal(end, torch.stack([begin + n, at, episode[rows.counted]], 1))
    reward = sum(0.5**j * (at * 100 + begin + j + 1) * (j < n) for j in range(3))
    torch.testing.assert_close(rows.reward[rows.counted], reward)
    over = (at == 1) & ((begin + n - at) % 7 == 6)  # ended by the task: nothing follows
    torch.testing.assert_close(rows.discount[rows.counted], torch.where(over, 0.0, 0.5**n))
    torch.testing.assert_close(rows.action[..., 0], rows.state[:, :2])
    assert {1.0, 2.0, 3.0} == set(n.tolist()) and over.any() and t.min() == 173 - 50
