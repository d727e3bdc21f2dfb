"""Writes of poses and joints into the state rows (E, nstate) of a MuJoCo batch, where episodes start.

Few environments start in a control step, so a start costs as many operations as it takes, however few numbers they
move: every write takes all of its environments and actors at once.
"""

from typing import Any

import numpy as np
import torch

from dima_isaac.sim.compiled import Compiled
from dima_isaac.sim.rotations import rotate, rotate_inverse

Array = np.ndarray


class StateRows:
    """Masked writes into ``batch.state``, which the batch reads at its next call."""

    def __init__(self, batch: Any, compiled: Compiled) -> None:
        """Find the columns; the rows hold the model's defaults now."""
        self._rows: Array = batch.state
        self._compiled = compiled
        views = [batch.bind(name) for name in ("qpos", "qvel", "mocap_pos", "mocap_quat")]
        qpos, qvel, marker_pos, marker_quat = starts = [self._column(view) for view in views]
        self.dofs = np.concatenate([qpos + compiled.dof_qpos, qvel + compiled.dof_qvel])  # (2 * dofs,)
        self._is_pose = np.zeros(self._rows.shape[1], dtype=bool)
        for start, view in zip(starts, views, strict=True):
            self._is_pose[start : start + view[0].size] = True
        self._blank = self._rows[0].copy()
        markers, free = compiled.root_mocap[:, None], compiled.root_qpos[:, None]
        mocap = np.hstack([marker_pos + 3 * markers + np.arange(3), marker_quat + 4 * markers + np.arange(4)])
        self._roots = np.where(free >= 0, qpos + free + np.arange(7), mocap)  # (A, 7) position, then wxyz
        self._speeds = qvel + compiled.root_qvel[:, None] + np.arange(6)  # (A, 6), of free actors only

    def _column(self, view: Array) -> int:
        return (view.ctypes.data - self._rows.ctypes.data) // self._rows.itemsize

    def clear_memory(self, ids: Array, bad: Array) -> Array:
        """Reset time, warm start, controls and forces of ``ids``; poses and speeds stay.

        Returns those of ``ids`` that were not touched, because they are ``bad`` (E,) or their pose is not finite.
        """
        fresh = np.where(self._is_pose, self._rows[ids], self._blank)
        sound = np.isfinite(fresh).all(1) & ~bad[ids]
        if sound.all():
            self._rows[ids] = fresh
            return ids[:0]
        self._rows[ids[sound]] = fresh[sound]
        return ids[~sound]

    def write_dofs(self, ids: Array, values: Array) -> None:
        """Positions and velocities of all dofs, (len(ids), 2 * dofs)."""
        self._rows[ids[:, None], self.dofs] = values

    def write_roots(self, actor: Array, env: Array, state: Array) -> None:
        """Pose and velocity (P, 13) for pairs of ``actor`` and ``env`` (P,); markers have a pose only."""
        compiled = self._compiled
        pos, quat, linear, angular = torch.from_numpy(state).split([3, 4, 3, 3], 1)
        pose = np.empty((len(state), 7))
        pose[:, :3] = pos + rotate(quat, torch.from_numpy(compiled.root_offset[actor]))
        pose[:, 3:] = state[:, [6, 3, 4, 5]]
        self._rows[env[:, None], self._roots[actor]] = pose
        free = compiled.root_qpos[actor] >= 0
        place = env[free][:, None], self._speeds[actor[free]]
        if not state[:, 7:].any():  # as most episodes start
            self._rows[place] = 0.0
            return
        # the free joint takes its origin's velocity in world axes and the angular one in its own
        arm = rotate(quat, torch.from_numpy(compiled.root_com[actor]))
        origin = linear - torch.linalg.cross(angular, arm)
        self._rows[place] = torch.cat([origin, rotate_inverse(quat, angular)], 1).numpy()[free]
