"""The Warp kernels between torch's views and MuJoCo-Warp's arrays: staged writes in, house conventions out.

One thread per world for what happens rarely (placing, quarantine), one per world and item for what happens always.
MuJoCo keeps quaternions as wxyz in arrays whose Warp type is called ``quat``; the house has xyzw.
No ``from __future__ import annotations`` here: Warp reads the annotations as objects.
"""

# mypy: ignore-errors
# (Warp's annotations are values, and its kernels a language of their own.)
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
    warmstart: FLOATS  # (E, nv)
    time: wp.array(dtype=wp.float32)  # (E,)
    mocap_pos: VECTORS  # (E, nmocap)
    mocap_quat: QUATS  # (E, nmocap)


@wp.struct
class Inputs:
    """What acts from outside."""

    ctrl: FLOATS  # (E, nu)
    qfrc: FLOATS  # (E, nv)
    xfrc: wp.array2d(dtype=wp.spatial_vector)  # (E, nbody)


@wp.struct
class Rest:
    """The model's defaults; a leading axis of 1 or E."""

    qpos: FLOATS
    body_pos: VECTORS
    body_quat: QUATS
    mocap_body: INDEX  # (nmocap,)
    max_speed: float


@wp.struct
class Staged:
    """Writes of the scene's actors and dofs, and the flags that belong to a step."""

    target: FLOATS  # (E, nu)
    dof_mask: FLAGS  # (E,)
    dof_pos: FLOATS  # (E, dofs)
    dof_vel: FLOATS  # (E, dofs)
    root_mask: wp.array2d(dtype=wp.bool)  # (A, E)
    root: wp.array3d(dtype=wp.float32)  # (A, E, 13)
    chosen: FLAGS  # (E,) held by a step, or asked for by a refresh
    broken: FLAGS  # (E,)
    still: FLAGS  # (E,) placed, not stepped


@wp.struct
class Places:
    """Where actors and dofs are in MuJoCo's state; see ``sim.compiled.Compiled``."""

    dof_qpos: INDEX  # (dofs,)
    dof_qvel: INDEX  # (dofs,)
    root_qpos: INDEX  # (A,)
    root_qvel: INDEX  # (A,)
    root_mocap: INDEX  # (A,)
    root_offset: wp.array(dtype=wp.vec3)  # (A,)
    root_com: wp.array(dtype=wp.vec3)  # (A,)


@wp.func
def sound(state: State, rest: Rest, world: int) -> bool:
    """Whether the world's state is finite and no faster than it may be; a NaN fails every comparison."""
    for i in range(state.qpos.shape[1]):
        if not (wp.abs(state.qpos[world, i]) < HUGE):
            return False
    for i in range(state.qvel.shape[1]):
        if not (wp.abs(state.qvel[world, i]) <= rest.max_speed):
            return False
    for i in range(state.act.shape[1]):  # noqa: SIM110  # kernels know no comprehensions
        if not (wp.abs(state.act[world, i]) < HUGE):
            return False
    return True


@wp.func
def driven(inputs: Inputs, world: int) -> bool:
    """Whether the world's controls are finite."""
    for i in range(inputs.ctrl.shape[1]):  # noqa: SIM110
        if not (wp.abs(inputs.ctrl[world, i]) < HUGE):
            return False
    return True


@wp.func
def forget(state: State, inputs: Inputs, world: int):
    """Clear time, activations, external forces and what the solver remembers."""
    state.time[world] = 0.0
    for i in range(state.qvel.shape[1]):
        state.warmstart[world, i] = 0.0
        inputs.qfrc[world, i] = 0.0
    for i in range(state.act.shape[1]):
        state.act[world, i] = 0.0


@wp.func
def restart(state: State, inputs: Inputs, rest: Rest, world: int):
    """The model's defaults."""
    forget(state, inputs, world)
    for i in range(state.qpos.shape[1]):
        state.qpos[world, i] = rest.qpos[world % rest.qpos.shape[0], i]
    for i in range(state.qvel.shape[1]):
        state.qvel[world, i] = 0.0
    for i in range(inputs.ctrl.shape[1]):
        inputs.ctrl[world, i] = 0.0
    for i in range(inputs.xfrc.shape[1]):
        inputs.xfrc[world, i] = wp.spatial_vector()
    for i in range(state.mocap_pos.shape[1]):
        body = rest.mocap_body[i]
        state.mocap_pos[world, i] = rest.body_pos[world % rest.body_pos.shape[0], body]
        state.mocap_quat[world, i] = rest.body_quat[world % rest.body_quat.shape[0], body]


@wp.func
def write_root(state: State, staged: Staged, places: Places, actor: int, world: int):
    row = staged.root[actor, world]
    pos = wp.vec3(row[0], row[1], row[2])
    quat = wp.quat(row[3], row[4], row[5], row[6])
    mocap = places.root_mocap[actor]
    if mocap >= 0:
        state.mocap_pos[world, mocap] = pos
        state.mocap_quat[world, mocap] = wp.quat(row[6], row[3], row[4], row[5])
        return
    linear = wp.vec3(row[7], row[8], row[9])
    angular = wp.vec3(row[10], row[11], row[12])
    origin = pos + wp.quat_rotate(quat, places.root_offset[actor])
    # the free joint wants its origin's velocity in world axes and the angular one in its own
    slip = linear - wp.cross(angular, wp.quat_rotate(quat, places.root_com[actor]))
    spin = wp.quat_rotate_inv(quat, angular)
    q = places.root_qpos[actor]
    v = places.root_qvel[actor]
    for i in range(3):
        state.qpos[world, q + i] = origin[i]
        state.qpos[world, q + 4 + i] = row[3 + i]
        state.qvel[world, v + i] = slip[i]
        state.qvel[world, v + 3 + i] = spin[i]
    state.qpos[world, q + 3] = row[6]


@wp.kernel(enable_backward=False)
def place(state: State, inputs: Inputs, staged: Staged, places: Places, rest: Rest):
    """Write what is staged, dofs before roots, and clear the stage. A world that is not finite restarts first."""
    world = wp.tid()
    staged.broken[world] = False
    if staged.dof_mask[world]:
        if sound(state, rest, world):
            forget(state, inputs, world)
        else:
            restart(state, inputs, rest, world)
        for i in range(places.dof_qpos.shape[0]):
            state.qpos[world, places.dof_qpos[i]] = staged.dof_pos[world, i]
            state.qvel[world, places.dof_qvel[i]] = staged.dof_vel[world, i]
        staged.dof_mask[world] = False
    for actor in range(places.root_qpos.shape[0]):
        if staged.root_mask[actor, world]:
            write_root(state, staged, places, actor, world)
            staged.root_mask[actor, world] = False
    for i in range(inputs.ctrl.shape[1]):
        inputs.ctrl[world, i] = staged.target[world, i]


@wp.kernel(enable_backward=False)
def place_raw(state: State, inputs: Inputs, staged: Staged, rest: Rest, qpos_mask: FLAGS, qvel_mask: FLAGS):
    """Start the worlds anew whose raw positions or velocities are about to be written."""
    world = wp.tid()
    staged.broken[world] = False
    if qpos_mask[world] or qvel_mask[world]:
        restart(state, inputs, rest, world)


@wp.kernel(enable_backward=False)
def guard(state: State, inputs: Inputs, staged: Staged, rest: Rest):
    """Put a world that is not finite, or too fast, back to the defaults, before it reaches the shared contact list.

    Controls count: an actuator's range would turn a NaN into a number and hide it.
    """
    world = wp.tid()
    if not (driven(inputs, world) and sound(state, rest, world)):
        restart(state, inputs, rest, world)
        staged.broken[world] = True


@wp.kernel(enable_backward=False)
def keep(state: State, kept: State, staged: Staged):
    """Remember the state of held worlds: MuJoCo-Warp steps all of them."""
    world = wp.tid()
    if staged.chosen[world]:
        copy_state(state, kept, world)


@wp.func
def copy_state(source: State, target: State, world: int):
    target.time[world] = source.time[world]
    for i in range(source.qpos.shape[1]):
        target.qpos[world, i] = source.qpos[world, i]
    for i in range(source.qvel.shape[1]):
        target.qvel[world, i] = source.qvel[world, i]
        target.warmstart[world, i] = source.warmstart[world, i]
    for i in range(source.act.shape[1]):
        target.act[world, i] = source.act[world, i]


@wp.kernel(enable_backward=False)
def put_back(state: State, kept: State, inputs: Inputs, staged: Staged, bad: FLAGS, wrench_body: INDEX):
    """Held worlds return to where they were, and forces that last one step end."""
    world = wp.tid()
    held = staged.chosen[world]
    if held:
        copy_state(kept, state, world)
    bad[world] = staged.broken[world]
    staged.still[world] = held or staged.broken[world]
    for i in range(wrench_body.shape[0]):
        inputs.xfrc[world, wrench_body[i]] = wp.spatial_vector()


@wp.kernel(enable_backward=False)
def add_still(staged: Staged):
    """A refreshed world has not been stepped since."""
    world = wp.tid()
    staged.still[world] = staged.still[world] or staged.chosen[world]


@wp.struct
class Counters:
    """Sums since construction, and what one step adds to them."""

    broken: wp.array(dtype=wp.int32)  # (1,) worlds of this step
    full: wp.array(dtype=wp.int32)
    capped: wp.array(dtype=wp.int32)
    totals: wp.array(dtype=wp.int64)  # (4,) non-finite, full, capped, steps in a row with every world broken


@wp.kernel(enable_backward=False)
def census(staged: Staged, overflow: wp.array(dtype=wp.int32), full_bits: int, capped_bits: int, counters: Counters):
    """Count the worlds that broke, overflowed a buffer or met the solver's cap, and clear MuJoCo-Warp's flags."""
    world = wp.tid()
    if staged.broken[world]:
        wp.atomic_add(counters.broken, 0, 1)
    if not staged.chosen[world]:
        if (overflow[world] & full_bits) != 0:
            wp.atomic_add(counters.full, 0, 1)
        if (overflow[world] & capped_bits) != 0:
            wp.atomic_add(counters.capped, 0, 1)
    overflow[world] = 0


@wp.kernel(enable_backward=False)
def total(counters: Counters, worlds: int):
    """Add this step to the sums."""
    counters.totals[0] = counters.totals[0] + wp.int64(counters.broken[0])
    counters.totals[1] = counters.totals[1] + wp.int64(counters.full[0])
    counters.totals[2] = counters.totals[2] + wp.int64(counters.capped[0])
    if counters.broken[0] == worlds:
        counters.totals[3] = counters.totals[3] + wp.int64(1)
    else:
        counters.totals[3] = wp.int64(0)
    counters.broken[0] = 0
    counters.full[0] = 0
    counters.capped[0] = 0


@wp.struct
class Frames:
    """The frames that are read: fixed in a body, their velocity taken at a body's centre of mass or at themselves."""

    body: INDEX  # (F,)
    pos: wp.array(dtype=wp.vec3)  # (F,) in the body
    quat: wp.array(dtype=wp.quat)  # (F,) in the body, xyzw
    centre: INDEX  # (F,) body whose centre of mass the linear velocity belongs to, -1: the frame's own origin
    root: INDEX  # (F,) root of the tree whose centre of mass ``cvel`` refers to


@wp.struct
class Bodies:
    """MuJoCo's kinematics."""

    xpos: VECTORS
    xquat: QUATS
    xipos: VECTORS
    cvel: wp.array2d(dtype=wp.spatial_vector)  # angular, linear
    subtree_com: VECTORS


@wp.func
def shown(staged: Staged, world: int, everywhere: bool) -> bool:
    """Whether the world's views are packed: a refresh packs those of the chosen worlds only."""
    return everywhere or staged.chosen[world]


@wp.kernel(enable_backward=False)
def pack_frames(frames: Frames, bodies: Bodies, staged: Staged, everywhere: bool, out: wp.array3d(dtype=wp.float32)):
    """Thirteen numbers per frame; v(p) = v + w x (p - com)."""
    world, frame = wp.tid()
    if not shown(staged, world, everywhere):
        return
    body = frames.body[frame]
    q = bodies.xquat[world, body]
    turn = wp.quat(q[1], q[2], q[3], q[0])
    pos = bodies.xpos[world, body] + wp.quat_rotate(turn, frames.pos[frame])
    quat = turn * frames.quat[frame]
    centre = frames.centre[frame]
    point = pos
    if centre >= 0:
        point = bodies.xipos[world, centre]
        body = centre
    twist = bodies.cvel[world, body]
    angular = wp.spatial_top(twist)
    linear = wp.spatial_bottom(twist) + wp.cross(angular, point - bodies.subtree_com[world, frames.root[frame]])
    for i in range(3):
        out[world, frame, i] = pos[i]
        out[world, frame, 3 + i] = quat[i]
        out[world, frame, 7 + i] = linear[i]
        out[world, frame, 10 + i] = angular[i]
    out[world, frame, 6] = quat[3]


@wp.kernel(enable_backward=False)
def pack_dofs(
    state: State,
    drive: FLOATS,
    places: Places,
    staged: Staged,
    everywhere: bool,
    pos: FLOATS,
    vel: FLOATS,
    force: FLOATS,
):
    """Joint angles, speeds and drive forces; a world that stood still has no forces."""
    world, dof = wp.tid()
    if not shown(staged, world, everywhere):
        return
    pos[world, dof] = state.qpos[world, places.dof_qpos[dof]]
    vel[world, dof] = state.qvel[world, places.dof_qvel[dof]]
    force[world, dof] = wp.where(staged.still[world], 0.0, drive[world, places.dof_qvel[dof]])


@wp.struct
class Contacts:
    """MuJoCo-Warp's contact list, shared by all worlds, and each contact's wrench in world axes."""

    count: wp.array(dtype=wp.int32)  # (1,) found, which may be more than fit
    world: wp.array(dtype=wp.int32)
    geom: wp.array(dtype=wp.vec2i)
    pos: wp.array(dtype=wp.vec3)
    wrench: wp.array(dtype=wp.spatial_vector)
    geom_body: INDEX


@wp.kernel(enable_backward=False)
def add_contacts(contacts: Contacts, sensor_of_body: INDEX, bodies: Bodies, out: wp.array3d(dtype=wp.float32)):
    """Sum each contact's force, and its torque about the link's origin, on the links that are sensed; world axes."""
    contact = wp.tid()
    if contact >= contacts.count[0]:
        return
    world = contacts.world[contact]
    pair = contacts.geom[contact]
    if world < 0 or pair[0] < 0 or pair[1] < 0:
        return
    wrench = contacts.wrench[contact]
    for side in range(2):
        body = contacts.geom_body[pair[side]]
        sensor = sensor_of_body[body]
        if sensor >= 0:
            # the contact frame points from the first geom into the second
            sign = 2.0 * float(side) - 1.0
            force = sign * wp.spatial_top(wrench)
            lever = contacts.pos[contact] - bodies.xpos[world, body]
            torque = sign * wp.spatial_bottom(wrench) + wp.cross(lever, force)
            for i in range(3):
                wp.atomic_add(out, world, sensor, i, force[i])
                wp.atomic_add(out, world, sensor, 3 + i, torque[i])


@wp.kernel(enable_backward=False)
def turn_wrenches(
    sum: wp.array3d(dtype=wp.float32),
    sensor_body: INDEX,
    bodies: Bodies,
    staged: Staged,
    everywhere: bool,
    out: wp.array3d(dtype=wp.float32),
):
    """The summed wrenches in the links' axes; none where the world stood still."""
    world, sensor = wp.tid()
    if not shown(staged, world, everywhere):
        return
    q = bodies.xquat[world, sensor_body[sensor]]
    turn = wp.quat(q[1], q[2], q[3], q[0])
    row = sum[world, sensor]
    force = wp.quat_rotate_inv(turn, wp.vec3(row[0], row[1], row[2]))
    torque = wp.quat_rotate_inv(turn, wp.vec3(row[3], row[4], row[5]))
    for i in range(3):
        out[world, sensor, i] = wp.where(staged.still[world], 0.0, force[i])
        out[world, sensor, 3 + i] = wp.where(staged.still[world], 0.0, torque[i])


@wp.kernel(enable_backward=False)
def copy_rows(mask: FLAGS, wanted: bool, source: FLOATS, target: FLOATS):
    """Copy the rows whose flag is ``wanted``."""
    world, column = wp.tid()
    if mask[world] == wanted:
        target[world, column] = source[world, column]
