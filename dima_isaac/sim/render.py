"""Pictures of one environment: offscreen through EGL or OSMesa, or live in MuJoCo's viewer."""

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from dima_isaac.errors import UsageError
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.model import compile_visuals
from dima_isaac.sim.scene import Scene

_NEAR, _LENGTHS = 4.0, 1.5  # m, and lengths of a robot: the distance of a camera that follows one is the larger
_RENDERING_OFF = ("disable", "disabled", "off", "false", "0")  # values of MUJOCO_GL
_ELSEWHERE = "play viewer=web shows a policy in a browser, headless=True needs no display"
_BACKSPACE = 259  # GLFW's number
_CURE = "install libegl1 or libosmesa6; training needs neither without capture_video=True"


class Renderer:
    """Draws environments of one scene; owns an OpenGL context until ``close``."""

    def __init__(self, scene: Scene) -> None:
        self.model = compile_visuals(scene)
        self.data = mujoco.MjData(self.model)
        self._camera = camera(scene, self.model)
        self._renderer: mujoco.Renderer | None = None

    def draw(self, engine: Engine, env: int, width: int, height: int) -> np.ndarray:
        """One environment of ``engine`` as (height, width, 3) uint8.

        Raises:
            UsageError: neither EGL nor OSMesa works on this machine.
        """
        engine.copy_env(env, self.data)
        mujoco.mj_forward(self.model, self.data)
        renderer = self._open(width, height)
        renderer.update_scene(self.data, camera=self._camera)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            # both multiply the cost of software rendering several times
            renderer.scene.flags[flag] = 0
        return renderer.render().copy()

    def _open(self, width: int, height: int) -> mujoco.Renderer:
        if self._renderer is not None and (self._renderer.width, self._renderer.height) == (width, height):
            return self._renderer
        self.close()
        self.model.vis.global_.offwidth = max(width, self.model.vis.global_.offwidth)
        self.model.vis.global_.offheight = max(height, self.model.vis.global_.offheight)
        self._renderer = _first_working(lambda: mujoco.Renderer(self.model, height, width))
        return self._renderer

    def close(self) -> None:
        """Free the context now: one left to the garbage collector raises at interpreter exit."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _first_working(make: Callable[[], mujoco.Renderer]) -> mujoco.Renderer:
    """Try the OpenGL backend that ``MUJOCO_GL`` names, then EGL, then OSMesa.

    MuJoCo chooses its context class when it is first imported, whether or not it works here, so the class is replaced.
    """
    contexts = sys.modules[mujoco.Renderer.__module__].gl_context
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen in _RENDERING_OFF:
        raise UsageError(f"MUJOCO_GL={chosen} forbids pictures; unset it, or train without capture_video=True")
    reasons = []
    for backend in dict.fromkeys(name for name in (chosen, "egl", "osmesa") if name in ("egl", "osmesa", "glfw")):
        problem = display_problem() if backend == "glfw" else ""
        if problem:  # GLFW would end the process
            reasons.append(f"glfw: {problem}")
            continue
        try:
            contexts.GLContext = importlib.import_module(f"mujoco.{backend}").GLContext
            return make()
        except Exception as error:  # every backend fails with its own type, from ImportError to raw OpenGL codes
            reasons.append(f"{backend}: {' '.join(str(error).split()) or type(error).__name__}")
            os.environ.pop("PYOPENGL_PLATFORM", None)  # each backend insists on setting it
    raise UsageError(f"no offscreen renderer works here ({'; '.join(reasons)}); {_CURE}")


def display_problem() -> str:
    """Why no window can be opened here; empty if one can.

    Without a display the viewer's thread ends the whole process, so this has to be checked first.
    """
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "DISPLAY is not set"
    glfw = importlib.import_module("glfw")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if glfw.init():
            glfw.terminate()
            return ""
    # GLFW gives a number and the text as bytes: (65550) b'X11: ...'
    return "; ".join(str(warning.message).split("b'")[-1].strip("'") for warning in caught) or "GLFW cannot start"


def camera(scene: Scene, model: mujoco.MjModel) -> mujoco.MjvCamera:
    """A free camera at the scene's eye, looking at its target; in a scene of one file, one that follows its robot."""
    view = mujoco.MjvCamera()
    view.type = mujoco.mjtCamera.mjCAMERA_FREE
    if scene.world:
        mujoco.mjv_defaultFreeCamera(model, view)
        if mujoco.mjtJoint(model.jnt_type[0]) in (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_SLIDE):
            view.type, view.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, int(model.jnt_bodyid[0])
            view.distance, view.elevation = max(_NEAR, _LENGTHS * _length(model, view.trackbodyid)), -25.0
        return view
    gaze = np.asarray(scene.camera_target, dtype=float) - np.asarray(scene.camera_eye, dtype=float)
    view.lookat[:] = scene.camera_target
    view.distance = float(np.linalg.norm(gaze))
    view.azimuth = float(np.degrees(np.arctan2(gaze[1], gaze[0])))
    view.elevation = float(np.degrees(np.arcsin(gaze[2] / view.distance)))
    return view


def _length(model: mujoco.MjModel, root: int) -> float:
    """How far (m) the farthest body of ``root``'s tree is from it where the model begins."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    own = model.body_rootid == model.body_rootid[root]
    return float(np.linalg.norm(data.xpos[own] - data.xpos[root], axis=1).max())


@dataclass
class Controls:
    """The settings of a live viewer's user, read by the loop that steps the environments."""

    paused: bool = False
    restart: bool = False  # once: the reader sets it back
    speed: float = 1.0  # in units of real time
    horizon: int = 0  # imagined steps of a dream; 0: as it was


class Viewer:
    """MuJoCo's window on one environment; ``[`` and ``]`` walk through them, space pauses, backspace restarts."""

    def __init__(self, engine: Engine) -> None:
        """Open the window on an engine with the capability ``viewer``.

        Raises:
            UsageError: there is no display.
        """
        problem = display_problem()
        if problem:
            raise UsageError(f"the window needs a display: {problem}; {_ELSEWHERE}.")
        viewer = importlib.import_module("mujoco.viewer")
        self._engine, self.env, self.controls = engine, 0, Controls()
        self._model = compile_visuals(engine.scene)
        self._data = mujoco.MjData(self._model)
        try:
            self._handle = viewer.launch_passive(
                self._model, self._data, key_callback=self._key, show_left_ui=False, show_right_ui=False
            )
        except Exception as error:  # glfw reports a missing display as a bare RuntimeError or its own type
            raise UsageError(f"the window needs a display ({error}); {_ELSEWHERE}.") from error
        start = camera(engine.scene, self._model)
        with self._handle.lock():
            self._handle.cam.type, self._handle.cam.trackbodyid = start.type, start.trackbodyid
            self._handle.cam.lookat[:] = start.lookat
            self._handle.cam.distance, self._handle.cam.azimuth = start.distance, start.azimuth
            self._handle.cam.elevation = start.elevation

    @property
    def closed(self) -> bool:
        """Whether the user or ``close`` has closed it."""
        return not self._handle.is_running()

    def _key(self, code: int) -> None:
        step = {ord("["): -1, ord("]"): 1}.get(code, 0)
        self.env = (self.env + step) % self._engine.num_envs
        self.controls.paused ^= code == ord(" ")
        self.controls.restart |= code == _BACKSPACE

    def set_text(self, text: str) -> None:
        """Write ``text`` in the window's corner."""
        self._handle.set_texts((mujoco.mjtFontScale.mjFONTSCALE_150, mujoco.mjtGridPos.mjGRID_TOPLEFT, text, ""))

    def show(self) -> bool:
        """Draw the current state; False once the window was closed."""
        if self.closed:
            return False
        with self._handle.lock():
            self._engine.copy_env(self.env, self._data)
            mujoco.mj_forward(self._model, self._data)
        self._handle.sync()
        return True

    def close(self) -> None:
        """Close the window."""
        self._handle.close()
