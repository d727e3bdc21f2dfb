"""Warp kernels that change MuJoCo-Warp's state: staged writes, resets of broken worlds, held worlds; and counters.

One thread per world (environment), because most of this is rare.
MuJoCo stores quaternions as wxyz in arrays whose Warp type is called ``quat``; the contract has xyzw.
No ``from __future__ import annotations`` here: Warp reads the annotations as objects.
"""

# mypy: ignore-errors
# (Warp's annotations are values, and its kernels are compiled from their source.)
import warp as wp

FLOATS = wp.array2d(dtype=wp.float32)
FLAGS = wp.array(dtype=wp.bool)
VECTORS = wp.array2d(dtype=wp.vec3)
QUATS = wp.array2d(dtype=wp.quat)
INDEX = wp.array(dtype=wp.int32)
HUGE = wp.constant(1.0e10)  # MuJoCo's own limit for positions and velocities


@wp.struct
class State:
    """What a physics step starts from, besides the controls."""

    qpos: FLOATS  # (E, nq)
    qvel: FLOATS  # (E, nv)
    act: FLOATS  # (E, na)
    qacc_warmstart: FLOATS  # (E, nv)
    time: wp.array(dtype=wp.float32)  # (E,)
    mocap_pos: VECTORS  # (E, nmocap)
    mocap_quat: QUATS  # (E, nmocap)


@wp.struct
class Inputs:
    """Controls and external forces."""

    ctrl: FLOATS  # (E, nu)
    qfrc_applied: FLOATS  # (E, nv)
    xfrc_applied: wp.array2d(dtype=wp.spatial_vector)  # (E, nbody)


@wp.struct
class Defaults:
    """The model's state at its start, with a leading axis of 1 or E, and the speed above which a world is broken."""

    qpos0: FLOATS
    body_pos: VECTORS
    body_quat: QUATS
    mocap_body: INDEX  # (nmocap,)
    max_speed: float


@wp.struct
class Staged:
    """Staged writes to actors and dofs, and the flags of a step."""

    target: FLOATS  # (E, nu)
    dof_mask: FLAGS  # (E,)
    dof_pos: FLOATS  # (E, dofs)
    dof_vel: FLOATS  # (E, dofs)
    root_mask: wp.array2d(dtype=wp.bool)  # (A, E)
    root: wp.array3d(dtype=wp.float32)  # (A, E, 13)
    chosen: FLAGS  # (E,) held by a step, or to be refreshed
    broken: FLAGS  # (E,) reset in this step
    still: FLAGS  # (E,) not stepped since it was placed: its last step's forces are stale


@wp.struct
class Addresses:
    """Where actors and dofs are in MuJoCo's state; see ``sim.compiled.Compiled``."""

    dof_qpos: INDEX  # (dofs,)
    dof_qvel: INDEX  # (dofs,)
    root_qpos: INDEX  # (A,)
    root_qvel: INDEX  # (A,)
    root_mocap: INDEX  # (A,)
    root_offset: wp.array(dtype=wp.vec3)  # (A,)
    root_com: wp.array(dtype=wp.vec3)  # (A,)


@wp.func
def is_sound(state: State, defaults: Defaults, world: int) -> bool:
    """Whether the world's state is finite and no faster than it may be; a NaN fails every comparison."""
    for i in range(state.qpos.shape[1]):
        if not (wp.abs(state.qpos[world, i]) < HUGE):
            return False
    for i in range(state.qvel.shape[1]):
        if not (wp.abs(state.qvel[world, i]) <= defaults.max_speed):
            return False
    for i in range(state.act.shape[1]):  # noqa: SIM110  # Warp has no comprehensions
        if not (wp.abs(state.act[world, i]) < HUGE):
            return False
    return True


@wp.func
def controls_are_finite(inputs: Inputs, world: int) -> bool:
    """Whether the world's controls are finite."""
    for i in range(inputs.ctrl.shape[1]):  # noqa: SIM110
        if not (wp.abs(inputs.ctrl[world, i]) < HUGE):
            return False
    return True


@wp.func
def clear_memory(state: State, inputs: Inputs, world: int):
    """Clear time, activations, external forces and the solver's warm start."""
    state.time[world] = 0.0
    for i in range(state.qvel.shape[1]):
        state.qacc_warmstart[world, i] = 0.0
        inputs.qfrc_applied[world, i] = 0.0
    for i in range(state.act.shape[1]):
        state.act[world, i] = 0.0


@wp.func
def restart(state: State, inputs: Inputs, defaults: Defaults, world: int):
    """Reset one world to the model's defaults."""
    clear_memory(state, inputs, world)
    for i in range(state.qpos.shape[1]):
        state.qpos[world, i] = defaults.qpos0[world % defaults.qpos0.shape[0], i]
    for i in range(state.qvel.shape[1]):
        state.qvel[world, i] = 0.0
    for i in range(inputs.ctrl.shape[1]):
        inputs.ctrl[world, i] = 0.0
    for i in range(inputs.xfrc_applied.shape[1]):
        inputs.xfrc_applied[world, i] = wp.spatial_vector()
    for i in range(state.mocap_pos.shape[1]):
        body = defaults.mocap_body[i]
        state.mocap_pos[world, i] = defaults.body_pos[world % defaults.body_pos.shape[0], body]
        state.mocap_quat[world, i] = defaults.body_quat[world % defaults.body_quat.shape[0], body]


@wp.func
def write_root(state: State, staged: Staged, addresses: Addresses, actor: int, world: int):
    row = staged.root[actor, world]
    pos = wp.vec3(row[0], row[1], row[2])
    quat = wp.quat(row[3], row[4], row[5], row[6])
    mocap = addresses.root_mocap[actor]
    if mocap >= 0:
        state.mocap_pos[world, mocap] = pos
        state.mocap_quat[world, mocap] = wp.quat(row[6], row[3], row[4], row[5])
        return
    linear = wp.vec3(row[7], row[8], row[9])
    angular = wp.vec3(row[10], row[11], row[12])
    origin = pos + wp.quat_rotate(quat, addresses.root_offset[actor])
    # the free joint takes its origin's velocity in world axes and the angular one in its own
    velocity = linear - wp.cross(angular, wp.quat_rotate(quat, addresses.root_com[actor]))
    local = wp.quat_rotate_inv(quat, angular)
    q = addresses.root_qpos[actor]
    v = addresses.root_qvel[actor]
    for i in range(3):
        state.qpos[world, q + i] = origin[i]
        state.qpos[world, q + 4 + i] = row[3 + i]
        state.qvel[world, v + i] = velocity[i]
        state.qvel[world, v + 3 + i] = local[i]
    state.qpos[world, q + 3] = row[6]


@wp.kernel(enable_backward=False)
def apply_staged(state: State, inputs: Inputs, staged: Staged, addresses: Addresses, defaults: Defaults):
    """Write what is staged, dofs before roots, and clear the stage. A world that is not finite is reset first."""
    world = wp.tid()
    staged.broken[world] = False
    if staged.dof_mask[world]:
        if is_sound(state, defaults, world):
            clear_memory(state, inputs, world)
        else:
            restart(state, inputs, defaults, world)
        for i in range(addresses.dof_qpos.shape[0]):
            state.qpos[world, addresses.dof_qpos[i]] = staged.dof_pos[world, i]
            state.qvel[world, addresses.dof_qvel[i]] = staged.dof_vel[world, i]
        staged.dof_mask[world] = False
    for actor in range(addresses.root_qpos.shape[0]):
        if staged.root_mask[actor, world]:
            write_root(state, staged, addresses, actor, world)
            staged.root_mask[actor, world] = False
    for i in range(inputs.ctrl.shape[1]):
        inputs.ctrl[world, i] = staged.target[world, i]


@wp.kernel(enable_backward=False)
def restart_written(
    state: State, inputs: Inputs, staged: Staged, defaults: Defaults, qpos_mask: FLAGS, qvel_mask: FLAGS
):
    """Reset the worlds whose raw positions or velocities are about to be written."""
    world = wp.tid()
    staged.broken[world] = False
    if qpos_mask[world] or qvel_mask[world]:
        restart(state, inputs, defaults, world)


@wp.kernel(enable_backward=False)
def reset_broken(state: State, inputs: Inputs, staged: Staged, defaults: Defaults):
    """Reset a world that is not finite, or too fast, before it reaches the contact list that all worlds share.

    Controls are checked too: clamping them to an actuator's range would hide a NaN.
    """
    world = wp.tid()
    if not (controls_are_finite(inputs, world) and is_sound(state, defaults, world)):
        restart(state, inputs, defaults, world)
        staged.broken[world] = True


@wp.kernel(enable_backward=False)
def save_held(state: State, saved: State, staged: Staged):
    """Save the state of held worlds, because MuJoCo-Warp steps all worlds."""
    world = wp.tid()
    if staged.chosen[world]:
        copy_state(state, saved, world)


@wp.func
def copy_state(source: State, target: State, world: int):
    target.time[world] = source.time[world]
    for i in range(source.qpos.shape[1]):
        target.qpos[world, i] = source.qpos[world, i]
    for i in range(source.qvel.shape[1]):
        target.qvel[world, i] = source.qvel[world, i]
        target.qacc_warmstart[world, i] = source.qacc_warmstart[world, i]
    for i in range(source.act.shape[1]):
        target.act[world, i] = source.act[world, i]


@wp.kernel(enable_backward=False)
def restore_held(state: State, saved: State, inputs: Inputs, staged: Staged, bad: FLAGS, wrench_body: INDEX):
    """Return held worlds to where they were, and end the forces that last one step."""
    world = wp.tid()
    held = staged.chosen[world]
    if held:
        copy_state(saved, state, world)
    bad[world] = staged.broken[world]
    staged.still[world] = held or staged.broken[world]
    for i in range(wrench_body.shape[0]):
        inputs.xfrc_applied[world, wrench_body[i]] = wp.spatial_vector()


@wp.kernel(enable_backward=False)
def mark_still(staged: Staged):
    """A refreshed world has not been stepped since it was placed."""
    world = wp.tid()
    staged.still[world] = staged.still[world] or staged.chosen[world]


@wp.struct
class Counters:
    """Sums since construction."""

    broken: wp.array(dtype=wp.int32)  # (1,) worlds that broke in this step
    totals: wp.array(dtype=wp.int64)  # (4,) non-finite, overflown, capped, steps in a row with every world broken


@wp.kernel(enable_backward=False)
def count_failures(
    staged: Staged, overflow: wp.array(dtype=wp.int32), full_bits: int, capped_bits: int, counters: Counters
):
    """Count the worlds that broke, overflowed a buffer or met the solver's cap, and clear MuJoCo-Warp's flags."""
    world = wp.tid()
    if staged.broken[world]:
        wp.atomic_add(counters.broken, 0, 1)
        wp.atomic_add(counters.totals, 0, wp.int64(1))
    if not staged.chosen[world]:
        if (overflow[world] & full_bits) != 0:
            wp.atomic_add(counters.totals, 1, wp.int64(1))
        if (overflow[world] & capped_bits) != 0:
            wp.atomic_add(counters.totals, 2, wp.int64(1))
    overflow[world] = 0


@wp.kernel(enable_backward=False)
def count_broken_steps(counters: Counters, worlds: int):
    """Extend or end the row of steps in which every world broke."""
    if counters.broken[0] == worlds:
        counters.totals[3] = counters.totals[3] + wp.int64(1)
    else:
        counters.totals[3] = wp.int64(0)
    counters.broken[0] = 0


@wp.kernel(enable_backward=False)
def copy_rows(mask: FLAGS, wanted: bool, source: FLOATS, target: FLOATS):
    """Copy the rows whose flag is ``wanted``."""
    world, column = wp.tid()
    if mask[world] == wanted:
        target[world, column] = source[world, column]
