"""The two MuJoCo engines simulate the same hands: from the same states, number by number, and in the mean.

The CPU engine computes in float64, the other in float32; the difference grows by contact, so that a single step and
ten are compared number by number and 200 only in the mean. Bounds: what a float32 solver with its own contact
points was seen to deviate (medians of 1e-7, a tail of a few worlds in which a contact was found a step apart).
"""

from __future__ import annotations

import copy

import pytest
import torch

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.tasks.bidexhands.catch import Catch, CatchConfig
from tests.sim.toss import BALL, KINDS, TOSS, build, drive, everywhere, pose

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first run on a machine compiles Warp's kernels
ENVS = 12


@pytest.fixture(scope="module", params=KINDS[1:])
def pair(request: pytest.FixtureRequest) -> tuple[VecEnv, VecEnv]:
    """ShadowHandOver on the CPU engine and on the other one."""
    envs = []
    for kind in ("mujoco", request.param):
        task = Catch(CatchConfig())
        envs.append(VecEnv(build(kind, task.scene(), ENVS), task, seed=0, device=torch.device("cpu")))
    return envs[0], envs[1]


def actions(steps: int, seed: int) -> torch.Tensor:
    """Random actions (steps, E, N, A), each held for three steps: the fingers really move."""
    generator = torch.Generator().manual_seed(seed)
    drawn = 2.0 * torch.rand(-(-steps // 3), ENVS, 2, 20, generator=generator) - 1.0
    return drawn.repeat_interleave(3, 0)[:steps]


def align(pair: tuple[VecEnv, VecEnv], warm: int, seed: int) -> None:
    """Bring both to the states that the CPU engine reaches with ``warm`` random steps."""
    reference, other = pair
    reference.reset()
    for action in actions(warm, seed):
        reference.step(action)
    # roots and joints as a task writes them; that clears the solvers on both sides
    for env in pair:
        engine, source = env.engine, reference.engine
        everyone = everywhere(engine)
        pos, vel = source.dof_pos.clone().to(engine.device), source.dof_vel.clone().to(engine.device)
        engine.set_dof_state(everyone, pos, vel)
        for name in ("egg0", "goal0"):
            actor = engine.actor_names.index(name)
            engine.set_root_state(everyone, actor, source.root_state[:, actor].clone().to(engine.device))
        engine.refresh(everyone)
    clocks = {name: value for name, value in copy.deepcopy(reference.state_dict()).items() if name != "engine"}
    other.load_state_dict({**clocks, "engine": other.engine.state_dict()})


def egg(env: VecEnv) -> torch.Tensor:
    return env.engine.root_state[:, env.engine.actor_names.index("egg0"), :3].cpu()


def test_the_same_start_gives_the_same_first_views(pair: tuple[VecEnv, VecEnv]) -> None:
    mine, theirs = (env.reset(3) for env in pair)
    torch.testing.assert_close(mine.obs, theirs.obs, rtol=0.0, atol=2e-5)
    torch.testing.assert_close(mine.state, theirs.state, rtol=0.0, atol=2e-5)


# columns of the state: angles, a fingertip's numbers, and what forces say; see tasks/bidexhands/hands/two_hands.py
BLOCK = 187
ANGLES = [side * BLOCK + k for side in range(2) for k in range(24)]
SPEEDS = [side * BLOCK + 24 + k for side in range(2) for k in range(24)]
TIPS = [side * BLOCK + 72 + 13 * tip + k for side in range(2) for tip in range(5) for k in range(7)]


@pytest.mark.parametrize(
    ("steps", "fingers", "thrown", "worst"),
    # control steps of four physics steps; nine numbers in ten of the fingers and of the egg, and every number
    [(1, 1e-5, 1e-5, 1e-4), (3, 1e-5, 2e-5, 2e-3), (10, 2e-5, 5e-4, 5e-2)],
    ids=["one", "three", "ten"],
)
def test_observations_and_rewards_agree(
    pair: tuple[VecEnv, VecEnv], steps: int, fingers: float, thrown: float, worst: float
) -> None:
    gaps, eggs, rewards, seen = [], [], [], []
    for warm in (0, 7, 20, 40):
        align(pair, warm, seed=warm)
        for action in actions(steps, seed=100 + warm):
            mine, theirs = (env.step(action) for env in pair)
        assert torch.equal(mine.first, theirs.first) and torch.equal(mine.terminal, theirs.terminal)
        gap = (mine.state - theirs.state).abs()
        gaps.append(gap[:, ANGLES + TIPS])
        eggs.append((egg(pair[0]) - egg(pair[1])).abs())
        rewards.append((mine.reward - theirs.reward).abs())
        seen.append((mine.obs - theirs.obs).abs().flatten())
    for what, most in ((gaps, fingers), (eggs, thrown), (rewards, thrown)):
        deviations = torch.cat(what).flatten()
        assert float(deviations.quantile(0.9)) < most and float(deviations.max()) < worst
    # all of the observation: contact forces count tenfold there, and answer to a micrometre
    everything = torch.cat(seen)
    assert float(everything.median()) < 1e-6 and float(everything.quantile(0.9)) < 10.0 * fingers


def test_two_hundred_random_steps_agree_in_the_mean(pair: tuple[VecEnv, VecEnv]) -> None:
    """Means over worlds of the return, the drops and the fingers' spread, within four standard errors."""
    sums = []
    for env in pair:
        first = env.reset(7)
        reward, drops, speed = (torch.zeros(ENVS) for _ in range(3))
        angle = torch.zeros(ENVS, len(ANGLES))
        for action in actions(200, seed=5):
            first = env.step(action)
            reward += first.reward / 200
            drops += first.terminal
            speed += first.state[:, SPEEDS].abs().mean(1) / 200
            angle += first.state[:, ANGLES] / 200
        assert int(env.engine.stats()["nonfinite"]) == 0 and int(env.engine.stats()["contact_overflow"]) == 0
        sums.append((reward, drops, speed, angle.mean(1)))
    for mine, theirs in zip(*sums, strict=True):
        error = ((mine.var() + theirs.var()) / ENVS).sqrt()
        assert float((mine.mean() - theirs.mean()).abs()) < 4.0 * float(error) + 1e-6
    # both drop the egg now and then, or the comparison says nothing
    assert float(sums[0][1].mean()) > 0.5


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_ball_falls_bounces_and_rests_the_same_on_every_engine(kind: str) -> None:
    engines = [build(which, TOSS, 4) for which in ("mujoco", kind)]
    for engine in engines:
        start = pose(engine, 0.0, 0.0, 0.4).clone()
        start[:, 10] = torch.arange(4.0, device=engine.device)  # each with its own spin
        engine.set_root_state(everywhere(engine), BALL, start)
    worst = 0.0
    for tick in range(60):
        for engine in engines:
            drive(engine, 1, seed=tick)
        for name in ("root_state", "dof_vel", "body_state"):
            mine, theirs = (getattr(engine, name).cpu() for engine in engines)
            worst = max(worst, float((mine - theirs).abs().max()))
    assert worst < 2e-3
    assert float(engines[0].root_state[3, BALL, 1].abs()) > 0.01  # it did roll
