"""The benchmark's own hand-over and catching classes for 1,000 frames on MuJoCo, for owners of a copy.

``DIMA_BIDEXHANDS=folder pytest -m originals tests/gym``; the folder holds ``bidexhands`` and ``assets``.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path

import pytest
import torch

from dima_isaac.gym.rules import IsaacGymWarning
from tests.tasks.bidexhands import stand_in

COPY = os.environ.get("DIMA_BIDEXHANDS", "")
pytestmark = [
    pytest.mark.originals,
    pytest.mark.skipif(not COPY, reason="DIMA_BIDEXHANDS names no copy of the benchmark"),
]


@pytest.mark.parametrize(
    ("task", "reward"),  # this package's own in steps 2 to 9, profile=compat
    [
        ("ShadowHandOver", 0.0496),
        ("ShadowHandCatchUnderarm", 0.0112),
        ("ShadowHandCatchOver2Underarm", 0.0532),
        ("ShadowHandCatchAbreast", 0.0017),
        ("ShadowHandTwoCatchUnderarm", 0.0231),
    ],
)
def test_an_unmodified_class_runs_with_the_rewards_of_ours(task, reward):
    torch.manual_seed(0)
    folder, rewards, ended = Path(COPY).expanduser().absolute(), [], 0
    with stand_in.importable(folder), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("error", IsaacGymWarning)
        env = stand_in.build(folder, task, 16)
        for _ in range(1000):
            env.step((0.64 * torch.randn(16, env.num_actions)).clamp(-1.0, 1.0))
            rewards.append(float(env.rew_buf.mean()))
            ended += int(env.reset_buf.sum())
        assert env.obs_buf.isfinite().all()
        env.gym.destroy_sim(env.sim)
    assert sum(rewards[1:9]) / 8 == pytest.approx(reward, rel=0.15)
    assert ended >= 16
