"""The web page: every body is where the physics has it, and every shape is a mesh of the right extent."""

from __future__ import annotations

import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from dima_isaac.errors import UsageError
from dima_isaac.sim.config import MujocoConfig
from dima_isaac.sim.mujoco.engine import MujocoEngine
from dima_isaac.sim.scene import Actor, Box, Ellipsoid, Mjcf, Scene
from dima_isaac.sim.web_viewer import WebViewer

SHAPES = """<mujoco><worldbody><body name="all"><geom name="c" type="capsule" size="0.1 0.2"/>
<geom name="r" type="cylinder" size="0.1 0.3" pos="1 0 0"/><geom name="s" type="sphere" size="0.2" pos="2 0 0"/>
<geom name="hidden" type="box" size="1 1 1" group="3"/></body></worldbody></mujoco>"""


def engine() -> MujocoEngine:
    actors = [
        Actor("all", Mjcf(xml=SHAPES), pos=(0.0, 0.0, 5.0)),
        Actor("box", Box((0.2, 0.4, 0.6)), pos=(0.0, 3.0, 2.0)),
        Actor("egg", Ellipsoid((0.03, 0.03, 0.04)), pos=(0.0, -3.0, 2.0)),
    ]
    return MujocoEngine(Scene(actors=actors), 2, MujocoConfig(threads=1))


def positions(viewer: WebViewer) -> np.ndarray:
    """(bodies, 3): where the page has the bodies."""
    return np.array([body.position for body in viewer.figures[0][1].bodies])


WALK = """<mujoco><worldbody><geom type="plane" size="0 0 1"/><body name="cart" pos="0 0 0.5">
<joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 0 1"/><geom type="sphere" size="0.1"/></body>
</worldbody></mujoco>"""


def test_a_missing_viser_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(UsageError, match=r"viewer=web needs viser: pip install 'dima-isaac\[viewer\]'"):
        WebViewer(engine(), 8090)


def test_the_page_shows_the_chosen_environment() -> None:
    pytest.importorskip("viser")
    world = engine()
    away = torch.tensor([[0.5, 0.0, 7.0, 0.0, 0.0, 0.0, 1.0] + [0.0] * 6]).expand(2, -1)
    world.set_root_state(torch.tensor([False, True]), 0, away)
    world.refresh(torch.ones(2, dtype=torch.bool))
    with closing(WebViewer(world, 8090)) as viewer:
        assert urllib.request.urlopen(viewer.address, timeout=10).status == 200
        assert viewer.show()
        assert any(np.allclose(place, (0.0, 0.0, 5.0)) for place in positions(viewer))
        viewer._slider.value, viewer._drawn = 1, 0.0
        viewer.show()
        assert any(np.allclose(place, (0.5, 0.0, 7.0)) for place in positions(viewer))
        extents = {viewer._model.geom(g).name: np.ptp(viewer.figures[0][1].mesh(g)[0], axis=0) for g in range(1, 7)}
    for name, size in (
        ("all/c", (0.2, 0.2, 0.6)),
        ("all/r", (0.2, 0.2, 0.6)),
        ("all/s", (0.4, 0.4, 0.4)),
        ("box#geom", (0.2, 0.4, 0.6)),
        ("egg#geom", (0.06, 0.06, 0.08)),
    ):
        assert extents[name] == pytest.approx(size, rel=0.03)


def test_what_walks_stays_on_the_page_and_on_its_floor(tmp_path: Path) -> None:
    pytest.importorskip("viser")
    (tmp_path / "walk.xml").write_text(WALK)
    world = MujocoEngine(Scene(world=str(tmp_path / "walk.xml"), frame_skip=1), 1, MujocoConfig(threads=1))
    everywhere = torch.ones(1, dtype=torch.bool)
    world.set_field(everywhere, "qpos", torch.tensor([[40.3, 0.25]], dtype=torch.float64))
    world.refresh(everywhere)
    with closing(WebViewer(world, 8090)) as viewer:
        eye = np.array(viewer._server.initial_camera.position)
        assert 1.0 < np.linalg.norm(eye - (0.0, 0.0, 0.5)) < 8.0
        viewer.show()
        ground, cart = positions(viewer)
        [(floor, _)] = viewer.figures[0][1].floors
        np.testing.assert_allclose(cart, (0.0, 0.0, 0.75))
        np.testing.assert_allclose(ground, (-40.3, 0.0, 0.0))
        np.testing.assert_allclose(floor.position, (40.0, 0.0, 0.0))  # in the ground's frame


def test_the_dream_is_drawn_in_the_same_place_and_controls_reach_the_reader() -> None:
    pytest.importorskip("viser")
    world, dream = engine(), engine()
    away = torch.tensor([[0.5, 0.0, 7.0, 0.0, 0.0, 0.0, 1.0] + [0.0] * 6]).expand(2, -1)
    dream.set_root_state(torch.tensor([True, True]), 0, away)
    dream.refresh(torch.ones(2, dtype=torch.bool))
    with closing(WebViewer(world, 8090, "Toy", dream, 15)) as viewer:
        viewer.show()
        real, dreamt = ([body.position for body in figure.bodies] for _, figure in viewer.figures)
        moved = [i for i, (a, b) in enumerate(zip(real, dreamt, strict=True)) if not np.allclose(a, b)]
        assert moved and all(np.allclose(dreamt[i], (0.5, 0.0, 7.0)) for i in moved)
        assert not viewer.figures[1][1].floors
        assert (viewer.controls.paused, viewer.controls.speed, viewer.controls.horizon) == (False, 1.0, 15)
        for handle in viewer._server.gui._gui_input_handle_from_uuid.values():
            if handle.label in ("pause", "speed", "horizon"):
                handle.value = {"pause": True, "speed": 0.5, "horizon": 3}[handle.label]
        assert (viewer.controls.paused, viewer.controls.speed, viewer.controls.horizon) == (True, 0.5, 3)


def test_flat_faces_share_no_vertices() -> None:
    pytest.importorskip("viser")
    with closing(WebViewer(engine(), 8090)) as viewer:
        vertices, faces = viewer.figures[0][1].mesh(viewer._model.geom("box#geom").id)
    assert len(vertices) == 3 * len(faces) == 36, "or a browser would round the box's shading"
