"""One environment in a web page, for machines without a display: viser serves it, any browser shows it."""

import importlib
import time
from typing import Any

import mujoco
import numpy as np

from dima_isaac.errors import UsageError
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.model import compile_visuals
from dima_isaac.sim.render import camera

Array = np.ndarray
_COLLIDERS = 3  # geom groups from here on are not drawn
_PERIOD = 1.0 / 30.0  # s between two pictures
_SHAPE = mujoco.mjtGeom


class WebViewer:
    """A page that shows one environment, chosen by a slider. What the camera of a video follows stays in the middle."""

    def __init__(self, engine: Engine, port: int) -> None:
        """Serve an engine with the capability ``viewer`` at localhost:``port``, or the next free one.

        Raises:
            UsageError: viser is not installed.
        """
        try:
            viser, self._shapes = importlib.import_module("viser"), importlib.import_module("trimesh.creation")
        except ModuleNotFoundError as error:
            raise UsageError("viewer=web needs viser: pip install 'dima-isaac[viewer]'.") from error
        self._engine, self._drawn = engine, 0.0
        self._model = compile_visuals(engine.scene)
        self._data = mujoco.MjData(self._model)
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
        self._floors: list[tuple[Any, Array]] = []
        self._bodies = [scene.add_frame(f"/{body}", show_axes=False) for body in range(self._model.nbody)]
        for geom in range(self._model.ngeom):
            self._add(scene, geom)
        last = max(engine.num_envs - 1, 1)  # a slider must have two ends
        self._slider = self._server.gui.add_slider("environment", min=0, max=last, step=1, initial_value=0)
        self._slider.disabled = engine.num_envs == 1

    @property
    def env(self) -> int:
        """The environment that is shown."""
        return int(self._slider.value) % int(self._engine.num_envs)

    def show(self) -> bool:
        """Send the current state, if the last one is old enough; True: a page cannot be closed from outside."""
        if time.perf_counter() - self._drawn < _PERIOD:
            return True
        self._drawn = time.perf_counter()
        self._engine.copy_env(self.env, self._data)
        mujoco.mj_forward(self._model, self._data)
        positions, walked = self._data.xpos, np.zeros(3)
        if self._followed >= 0:  # move the world, because each browser's camera belongs to its user
            walked[:2] = positions[self._followed, :2]
        with self._server.atomic():
            for body, handle in enumerate(self._bodies):
                handle.position, handle.wxyz = positions[body] - walked, self._data.xquat[body]
            for floor, place in self._floors:
                floor.position = place + np.round(walked)  # by whole squares, which is not seen
        return True

    def close(self) -> None:
        """Stop serving."""
        self._server.stop()

    def _add(self, scene: Any, geom: int) -> None:
        model = self._model
        body, rgba = int(model.geom_bodyid[geom]), model.geom_rgba[geom]
        if model.geom_matid[geom] >= 0:
            rgba = model.mat_rgba[model.geom_matid[geom]]
        place = {"position": model.geom_pos[geom], "wxyz": model.geom_quat[geom]}
        if model.geom_group[geom] >= _COLLIDERS or rgba[3] == 0.0:
            return
        if model.geom_type[geom] == _SHAPE.mjGEOM_PLANE:
            self._floors.append((scene.add_grid(f"/{body}/{geom}", **place), model.geom_pos[geom]))
            return
        vertices, faces = self._mesh(geom)
        opacity = None if rgba[3] >= 1.0 else float(rgba[3])
        look = {"color": tuple(rgba[:3]), "opacity": opacity, "flat_shading": True}
        scene.add_mesh_simple(f"/{body}/{geom}", vertices, faces, **look, **place)

    def _mesh(self, geom: int) -> tuple[Array, Array]:
        """Vertices (V, 3) and triangles (F, 3) in the geom's frame."""
        model, shapes = self._model, self._shapes
        kind, size = int(model.geom_type[geom]), model.geom_size[geom]
        if kind == _SHAPE.mjGEOM_MESH:
            mesh = int(model.geom_dataid[geom])
            first, face = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh]
            vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
            return vertices, model.mesh_face[face : face + model.mesh_facenum[mesh]]
        if kind == _SHAPE.mjGEOM_BOX:
            solid = shapes.box(extents=2.0 * size)
        elif kind == _SHAPE.mjGEOM_CYLINDER:
            solid = shapes.cylinder(radius=size[0], height=2.0 * size[1])
        elif kind == _SHAPE.mjGEOM_CAPSULE:
            solid = shapes.capsule(radius=size[0], height=2.0 * size[1])
            solid.vertices[:, 2] -= solid.vertices[:, 2].mean()
        else:
            solid = shapes.icosphere(subdivisions=3)
            solid.vertices *= size if kind == _SHAPE.mjGEOM_ELLIPSOID else size[0]
        return np.asarray(solid.vertices), np.asarray(solid.faces)
