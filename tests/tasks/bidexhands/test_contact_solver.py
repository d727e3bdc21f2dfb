"""MuJoCo's solver where it is known to have failed: a middle finger wedged against the edge of a door.

The state is one control step of random actions in ShadowHandDoorOpenInward, rounded. Accelerations minimise a convex
cost, so whatever the algorithm, there is one answer; with sparse constraints MuJoCo 4.0's Newton method gave up far
from it, and the finger left at 150 rad/s.
"""

from __future__ import annotations

import json
from pathlib import Path

import mujoco
import numpy as np

from tests.tasks.bidexhands.stage import env_of

STATE = json.loads((Path(__file__).parent / "wedged_finger.json").read_text())


def acceleration(model: mujoco.MjModel) -> np.ndarray:
    data = mujoco.MjData(model)
    for name, value in STATE.items():
        getattr(data, name)[:] = value
    mujoco.mj_forward(model, data)
    return data.qacc.copy()


def test_the_engines_newton_finds_what_conjugate_gradients_find():
    model = env_of("ShadowHandDoorOpenInward").engine.model
    found = acceleration(model)
    newton = model.opt.solver, model.opt.iterations
    try:
        model.opt.solver, model.opt.iterations = mujoco.mjtSolver.mjSOL_CG, 5000
        slow_but_sure = acceleration(model)
    finally:
        model.opt.solver, model.opt.iterations = newton
    np.testing.assert_allclose(found, slow_but_sure, atol=1.0)
