"""Assets in MuJoCo's XML as scenes take them: one body tree, without sensors and without a free joint."""

from functools import lru_cache

import mujoco
import numpy as np

from dima_isaac.errors import UsageError
from dima_isaac.sim.scene import Mjcf


def load_asset(asset: Mjcf) -> tuple[mujoco.MjSpec, mujoco.MjsBody]:
    """An editable copy of the asset, and its root body.

    The root is at the origin and has no free joint; sensors and repeated contact pairs are gone.

    Raises:
        UsageError: what MuJoCo cannot read, or no body.
    """
    if bool(asset.path) == bool(asset.xml):
        raise UsageError("an MJCF asset has either a path or xml text")
    try:
        spec = mujoco.MjSpec.from_file(asset.path) if asset.path else mujoco.MjSpec.from_string(asset.xml)
    except (ValueError, OSError) as error:
        raise UsageError(f"MuJoCo cannot read the asset {asset.path or '(xml text)'}: {error}") from error
    root = spec.worldbody.first_body()
    if root is None:
        raise UsageError(f"the asset {asset.path or '(xml text)'} has no body")
    root.pos = [0.0, 0.0, 0.0]
    unwanted = [joint for joint in root.joints if joint.type == mujoco.mjtJoint.mjJNT_FREE]
    unwanted += spec.sensors
    seen: set[frozenset[str]] = set()
    for pair in spec.pairs:
        # the hand's file lists one pair twice; MuJoCo would make two contacts of it, MuJoCo-Warp one
        names = frozenset((pair.geomname1, pair.geomname2))
        if names in seen:
            unwanted.append(pair)
        seen.add(names)
    for element in unwanted:
        spec.delete(element)
    return spec, root


def load_asset_model(asset: Mjcf) -> tuple[mujoco.MjModel, int]:
    """The asset by itself, with all its geoms, compiled; and the id of its root body."""
    spec, root = load_asset(asset)
    name = root.name
    model = compile_spec(spec)
    return model, int(model.body(name).id)


def subtree(model: mujoco.MjModel, root: int) -> list[int]:
    """``root`` and the bodies below it, parents first."""
    bodies = [root]
    for body in range(root + 1, model.nbody):
        if model.body_parentid[body] in bodies:
            bodies.append(body)
    return bodies


@lru_cache(maxsize=16)
def root_name(asset: Mjcf) -> str:
    """The name of the asset's root body."""
    return str(load_asset(asset)[1].name)


@lru_cache(maxsize=16)
def rest_com(asset: Mjcf) -> np.ndarray:
    """Centre of mass (3,) of the whole asset in its actor's frame, joints at zero."""
    model, root = load_asset_model(asset)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data.subtree_com[root].copy()


def compile_spec(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """The compiled model; raises UsageError with MuJoCo's reason."""
    try:
        return spec.compile()
    except ValueError as error:
        raise UsageError(f"MuJoCo cannot compile the scene: {error}") from error
