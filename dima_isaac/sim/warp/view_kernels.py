"""Warp kernels that pack the contract's views from MuJoCo-Warp's arrays, one thread per world and item.

MuJoCo stores quaternions as wxyz; the views have xyzw.
No ``from __future__ import annotations`` here: Warp reads the annotations as objects.
"""

# mypy: ignore-errors
# (Warp's annotations are values, and its kernels are compiled from their source.)
import warp as wp

from dima_isaac.sim.warp.state_kernels import FLOATS, INDEX, QUATS, VECTORS, Addresses, Staged, State


@wp.struct
class Frames:
    """The frames of the views: fixed in a body, their velocity that of a body's centre of mass or of their origin."""

    body: INDEX  # (F,)
    pos: wp.array(dtype=wp.vec3)  # (F,) in the body
    quat: wp.array(dtype=wp.quat)  # (F,) in the body, xyzw
    centre: INDEX  # (F,) body whose centre of mass the linear velocity belongs to, -1: the frame's own origin
    root: INDEX  # (F,) root of the tree whose centre of mass ``cvel`` refers to


@wp.struct
class Kinematics:
    """MuJoCo's poses and velocities of kinematics."""

    xpos: VECTORS
    xquat: QUATS
    xipos: VECTORS
    cvel: wp.array2d(dtype=wp.spatial_vector)  # angular, linear
    subtree_com: VECTORS


@wp.func
def is_packed(staged: Staged, world: int, everywhere: bool) -> bool:
    """Whether the world's views are packed: a refresh packs only those of the chosen worlds."""
    return everywhere or staged.chosen[world]


@wp.kernel(enable_backward=False)
def pack_frames(
    frames: Frames, kinematics: Kinematics, staged: Staged, everywhere: bool, out: wp.array3d(dtype=wp.float32)
):
    """Thirteen numbers per frame; v(p) = v + w x (p - com)."""
    world, frame = wp.tid()
    if not is_packed(staged, world, everywhere):
        return
    body = frames.body[frame]
    q = kinematics.xquat[world, body]
    rotation = wp.quat(q[1], q[2], q[3], q[0])
    pos = kinematics.xpos[world, body] + wp.quat_rotate(rotation, frames.pos[frame])
    quat = rotation * frames.quat[frame]
    centre = frames.centre[frame]
    point = pos
    if centre >= 0:
        point = kinematics.xipos[world, centre]
        body = centre
    twist = kinematics.cvel[world, body]
    angular = wp.spatial_top(twist)
    linear = wp.spatial_bottom(twist) + wp.cross(angular, point - kinematics.subtree_com[world, frames.root[frame]])
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
    addresses: Addresses,
    staged: Staged,
    everywhere: bool,
    pos: FLOATS,
    vel: FLOATS,
    force: FLOATS,
):
    """Joint angles, speeds and drive forces; a world that stood still has no forces."""
    world, dof = wp.tid()
    if not is_packed(staged, world, everywhere):
        return
    pos[world, dof] = state.qpos[world, addresses.dof_qpos[dof]]
    vel[world, dof] = state.qvel[world, addresses.dof_qvel[dof]]
    force[world, dof] = wp.where(staged.still[world], 0.0, drive[world, addresses.dof_qvel[dof]])


@wp.struct
class Contacts:
    """MuJoCo-Warp's contact list, shared by all worlds, and each contact's wrench in world axes."""

    nacon: wp.array(dtype=wp.int32)  # (1,) found, which may be more than fit
    worldid: wp.array(dtype=wp.int32)
    geom: wp.array(dtype=wp.vec2i)
    pos: wp.array(dtype=wp.vec3)
    wrench: wp.array(dtype=wp.spatial_vector)
    geom_body: INDEX


@wp.kernel(enable_backward=False)
def sum_contacts(contacts: Contacts, sensor_of_body: INDEX, kinematics: Kinematics, out: wp.array3d(dtype=wp.float32)):
    """Sum each contact's force, and its torque about the link's origin, on the links that are sensed; world axes."""
    contact = wp.tid()
    if contact >= contacts.nacon[0]:
        return
    world = contacts.worldid[contact]
    pair = contacts.geom[contact]
    if world < 0 or pair[0] < 0 or pair[1] < 0:
        return
    wrench = contacts.wrench[contact]
    for side in range(2):
        body = contacts.geom_body[pair[side]]
        sensor = sensor_of_body[body]
        if sensor >= 0:
            # the contact frame's normal points from the first geom to the second
            sign = 2.0 * float(side) - 1.0
            force = sign * wp.spatial_top(wrench)
            lever = contacts.pos[contact] - kinematics.xpos[world, body]
            torque = sign * wp.spatial_bottom(wrench) + wp.cross(lever, force)
            for i in range(3):
                wp.atomic_add(out, world, sensor, i, force[i])
                wp.atomic_add(out, world, sensor, 3 + i, torque[i])


@wp.kernel(enable_backward=False)
def pack_wrenches(
    sum: wp.array3d(dtype=wp.float32),
    sensor_body: INDEX,
    kinematics: Kinematics,
    staged: Staged,
    everywhere: bool,
    out: wp.array3d(dtype=wp.float32),
):
    """The summed wrenches in the links' axes; none where the world stood still."""
    world, sensor = wp.tid()
    if not is_packed(staged, world, everywhere):
        return
    q = kinematics.xquat[world, sensor_body[sensor]]
    rotation = wp.quat(q[1], q[2], q[3], q[0])
    row = sum[world, sensor]
    force = wp.quat_rotate_inv(rotation, wp.vec3(row[0], row[1], row[2]))
    torque = wp.quat_rotate_inv(rotation, wp.vec3(row[3], row[4], row[5]))
    for i in range(3):
        out[world, sensor, i] = wp.where(staged.still[world], 0.0, force[i])
        out[world, sensor, 3 + i] = wp.where(staged.still[world], 0.0, torque[i])
