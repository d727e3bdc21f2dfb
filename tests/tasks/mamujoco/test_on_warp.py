"""Robots on MuJoCo-Warp (its CPU device) take each step as the CPU engine does, in float32."""

from __future__ import annotations

import pytest
import torch

from dima_isaac import make

pytest.importorskip("mujoco_warp")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the first run on a machine compiles Warp's kernels
ENVS, TICKS = 4, 40


@pytest.mark.parametrize(("scenario", "falls"), [("HalfCheetah", False), ("Walker2d", True), ("Humanoid", True)])
def test_one_step_from_the_same_state_is_the_same(scenario: str, falls: bool) -> None:
    """Euler and RK4; Humanoid's file asks for PGS, which is not there. (Ant's contacts differ: docs/gpu.md.)"""
    warp = make(scenario, num_envs=ENVS, engine="mujoco_warp", device="cpu")
    reference = make(scenario, num_envs=ENVS, engine="mujoco", device="cpu")
    warp.reset(), reference.reset()
    dims, forces = reference.spec.dims, reference.spec.output_only
    generator, fallen = torch.Generator().manual_seed(0), 0
    for _ in range(TICKS):
        warp.set_physics_state(*reference.physics_state())
        action = 2.0 * torch.rand(ENVS, dims.agents, dims.action, generator=generator) - 1.0
        ours, theirs = warp.step(action), reference.step(action)
        ran = ~(ours.first | theirs.first)
        error = ((ours.state - theirs.state).abs() / (1.0 + theirs.state.abs()))[ran]
        if forces is not None:
            assert not error[:, forces].numel() or error[:, forces].max() < 2e-2
            error = error[:, ~forces]
        assert not error.numel() or error.max() < 5e-4
        torch.testing.assert_close(ours.reward[ran], theirs.reward[ran], atol=1e-2, rtol=0.0)
        assert torch.equal(ours.terminal[ran], theirs.terminal[ran])
        fallen += int(theirs.terminal.sum())
    assert (fallen > 0) == falls
    warp.close(), reference.close()
