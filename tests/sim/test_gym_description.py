"""Where a scene's parts are in tensors that list one actor's parts after another's, in the importer's order."""

from __future__ import annotations

from dima_isaac.sim.compiled import compile_scene
from dima_isaac.sim.config import PhysicsConfig
from dima_isaac.sim.isaacgym.description import tensor_order
from dima_isaac.sim.scene import IDENTITY, Actor, Mjcf, Scene
from tests.sim.toss import LOPSIDED

ARM = """<mujoco><worldbody><body name="base"><geom size="0.02" mass="1"/>
<body name="left"><joint name="l" axis="0 1 0"/><geom size="0.02" mass="1"/></body>
<body name="right"><joint name="r" axis="0 1 0"/><geom size="0.02" mass="1"/></body></body></worldbody></mujoco>"""


def test_parts_by_name() -> None:
    scene = Scene(
        actors=[
            Actor("a", Mjcf(xml=ARM)),
            Actor("stick", Mjcf(xml=LOPSIDED)),
            Actor("b", Mjcf(xml=ARM), wrench="left"),
        ],
        links=["b/right", "stick", "a"],
        force_sensors=["b/left", "a/right", "b", "a/left"],
    )
    swapped = ["base", "right", "left"]  # the importer may number otherwise
    order = tensor_order(
        scene, compile_scene(scene, PhysicsConfig()), [swapped, ["stick"], swapped], [["r", "l"], [], ["r", "l"]]
    )
    assert order.bodies == 7
    assert order.links == [5, 3, 0]
    assert order.dofs == [1, 0, 3, 2]  # a/l, a/r, b/l, b/r
    assert order.sensors == [2, 0, 3, 1]  # made as a/right, a/left, b/left, b/base
    assert order.wrenches == [-1, -1, 6]
    assert order.roots[0] == order.roots[2] == IDENTITY
    assert [round(x, 6) for x in order.roots[1]] == [0.6, 0.0, 0.0, 0.8]
