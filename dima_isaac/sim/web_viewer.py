"""One environment in a web page, for machines without a display: viser serves it, any browser shows it."""

import importlib
import time
from typing import Any

import mujoco
import numpy as np

from dima_isaac.errors import UsageError
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.model import compile_visuals
from dima_isaac.sim.render import Controls, camera

Array = np.ndarray
_COLLIDERS = 3  # geom groups from here on are not drawn
_DREAMT, _OPACITY = (0.2, 0.5, 1.0), 0.5  # look of a dream
_LONGEST = 60  # steps of one
_PERIOD = 1.0 / 30.0  # s between two pictures
_SHAPE = mujoco.mjtGeom


class _Figure:
    """One environment's bodies as frames of the page, and the meshes that hang on them."""

    def __init__(self, scene: Any, shapes: Any, model: mujoco.MjModel, root: str, dreamt: bool) -> None:
        self.data = mujoco.MjData(model)
        self._model, self._shapes, self._dreamt = model, shapes, dreamt
        self.floors: list[tuple[Any, Array]] = []
        self.bodies = [scene.add_frame(f"{root}/{body}", show_axes=False) for body in range(model.nbody)]
        for geom in range(model.ngeom):
            self._add(scene, root, geom)

    def draw(self, walked: Array) -> None:
        """Put every body where ``data`` has it, less ``walked`` (3,); floors follow."""
        for body, handle in enumerate(self.bodies):
            handle.position, handle.wxyz = self.data.xpos[body] - walked, self.data.xquat[body]
        for floor, place in self.floors:
            floor.position = place + np.round(walked)  # by whole squares, which is not seen

    def _add(self, scene: Any, root: str, geom: int) -> None:
        model = self._model
        body, rgba = int(model.geom_bodyid[geom]), model.geom_rgba[geom]
        if model.geom_matid[geom] >= 0:
            rgba = model.mat_rgba[model.geom_matid[geom]]
        place = {"position": model.geom_pos[geom], "wxyz": model.geom_quat[geom]}
        if model.geom_group[geom] >= _COLLIDERS or rgba[3] == 0.0:
            return
        if model.geom_type[geom] == _SHAPE.mjGEOM_PLANE:
            if not self._dreamt:
                self.floors.append((scene.add_grid(f"{root}/{body}/{geom}", **place), model.geom_pos[geom]))
            return
        vertices, faces = self.mesh(geom)
        look = {"color": tuple(rgba[:3]), "opacity": None if rgba[3] >= 1.0 else float(rgba[3])}
        if self._dreamt:
            look = {"color": _DREAMT, "opacity": _OPACITY}
        scene.add_mesh_simple(f"{root}/{body}/{geom}", vertices, faces, **look, **place)

    def mesh(self, geom: int) -> tuple[Array, Array]:
        """Vertices (V, 3) and triangles (F, 3) in the geom's frame; triangles share them where the shape is smooth."""
        model, shapes = self._model, self._shapes
        kind, size = int(model.geom_type[geom]), model.geom_size[geom]
        if kind == _SHAPE.mjGEOM_MESH:
            mesh = int(model.geom_dataid[geom])
            first, face = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh]
            vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
            faces = slice(face, face + model.mesh_facenum[mesh])
            corners = np.stack([model.mesh_face[faces], model.mesh_facenormal[faces]], -1).reshape(-1, 2)
            unique, index = np.unique(corners, axis=0, return_inverse=True)
            return vertices[unique[:, 0]], index.reshape(-1, 3)
        if kind == _SHAPE.mjGEOM_BOX:
            solid = shapes.box(extents=2.0 * size)
            solid.unmerge_vertices()
        elif kind == _SHAPE.mjGEOM_CYLINDER:
            solid = shapes.cylinder(radius=size[0], height=2.0 * size[1])
        elif kind == _SHAPE.mjGEOM_CAPSULE:
            solid = shapes.capsule(radius=size[0], height=2.0 * size[1])
            solid.vertices[:, 2] -= solid.vertices[:, 2].mean()
        else:
            solid = shapes.icosphere(subdivisions=3)
            solid.vertices *= size if kind == _SHAPE.mjGEOM_ELLIPSOID else size[0]
        return np.asarray(solid.vertices), np.asarray(solid.faces)


class WebViewer:
    """A page that shows one environment. What the camera of a video follows stays in the middle."""

    def __init__(
        self, engine: Engine, port: int, title: str = "", dream: Engine | None = None, horizon: int = 0
    ) -> None:
        """Serve an engine with the capability ``viewer`` at localhost:``port``, or the next free one.

        ``dream`` is another engine of the same scene, drawn in the same place, blue and half transparent; a slider
        sets how many steps a dream has, at first ``horizon``.

        Raises:
            UsageError: viser is not installed.
        """
        try:
            viser, shapes = importlib.import_module("viser"), importlib.import_module("trimesh.creation")
        except ModuleNotFoundError as error:
            raise UsageError("viewer=web needs viser: pip install 'dima-isaac[viewer]'.") from error
        self._engine, self._drawn, self.controls = engine, 0.0, Controls(horizon=horizon)
        self._model = compile_visuals(engine.scene)
        # for this machine only; from another one through ssh -L
        self._server = viser.ViserServer(host="localhost", port=port, verbose=False)
        self.address = f"http://localhost:{self._server.get_port()}"
        scene, view = self._server.scene, camera(engine.scene, self._model)
        scene.set_up_direction("+z")
        around, up = np.radians((view.azimuth, view.elevation))
        gaze = np.array((np.cos(up) * np.cos(around), np.cos(up) * np.sin(around), np.sin(up)))
        self._server.initial_camera.position = view.lookat - view.distance * gaze
        self._server.initial_camera.look_at = view.lookat
        self._followed = int(view.trackbodyid)
        self.figures = [(engine, _Figure(scene, shapes, self._model, "/real", False))]
        if dream is not None:
            self.figures.append((dream, _Figure(scene, shapes, self._model, "/dream", True)))
        self._add_controls(title)

    def _add_controls(self, title: str) -> None:
        gui, controls, envs = self._server.gui, self.controls, self._engine.num_envs
        gui.set_panel_label(title)
        self._text = gui.add_markdown("")
        # a slider must have two ends
        self._slider = gui.add_slider("environment", min=0, max=max(envs - 1, 1), step=1, initial_value=0)
        self._slider.disabled = envs == 1
        pause, restart = gui.add_checkbox("pause", controls.paused), gui.add_button("reset")
        speed = gui.add_slider("speed", min=0.05, max=2.0, step=0.05, initial_value=controls.speed)
        pause.on_update(lambda _: setattr(controls, "paused", pause.value))
        restart.on_click(lambda _: setattr(controls, "restart", True))
        speed.on_update(lambda _: setattr(controls, "speed", speed.value))
        if controls.horizon:
            horizon = gui.add_slider("horizon", min=1, max=_LONGEST, step=1, initial_value=controls.horizon)
            horizon.on_update(lambda _: setattr(controls, "horizon", int(horizon.value)))

    @property
    def env(self) -> int:
        """The environment that is shown."""
        return int(self._slider.value) % int(self._engine.num_envs)

    def show(self) -> bool:
        """Send the current state, if the last one is old enough; True: a page cannot be closed from outside."""
        if time.perf_counter() - self._drawn < _PERIOD:
            return True
        self._drawn = time.perf_counter()
        for engine, figure in self.figures:
            engine.copy_env(self.env, figure.data)
            mujoco.mj_forward(self._model, figure.data)
        walked = np.zeros(3)
        if self._followed >= 0:  # move the world, because each browser's camera belongs to its user
            walked[:2] = self.figures[0][1].data.xpos[self._followed, :2]
        with self._server.atomic():
            for _, figure in self.figures:
                figure.draw(walked)
        return True

    def close(self) -> None:
        """Stop serving."""
        self._server.stop()

    def set_text(self, text: str) -> None:
        """Write ``text`` (Markdown) above the controls."""
        if text != self._text.content:
            self._text.content = text
