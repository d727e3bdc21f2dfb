"""Watch a policy: headless into a video, or live in MuJoCo's window or a web page."""

import importlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import UsageError
from dima_isaac.run import build, zoo
from dima_isaac.run.catalog import Catalog
from dima_isaac.tools import dream as dreams
from dima_isaac.tools import table
from dima_isaac.tools.config import Agent, PlayConfig, Viewer, World
from dima_isaac.tools.dream import Dream
from dima_isaac.tools.policies import controller
from dima_isaac.tools.restore import Restored, restore_or_compose
from dima_isaac.training import video
from dima_isaac.types import Controller, Step

PERIOD = 1.0 / 30.0  # s between two pictures of training: more would only slow it down


def main(cfg: PlayConfig, changes: dict[str, str], compose: Callable[..., RunConfig], catalog: Catalog) -> int:
    """Show a checkpoint's policy, or a scripted one on a task."""
    restored, run = restore_or_compose(cfg, changes, compose, catalog)
    if cfg.world is World.dream and restored:
        restored.check_world()
    env = restored.build_env(cfg.num_envs, cfg.seed) if restored else build.build_env(run, cfg.num_envs, cfg.seed)
    try:
        policy = controller(cfg, restored, env)
        if cfg.viewer is Viewer.web or not cfg.headless:
            return watch(env, policy, cfg, restored)
        return film(env, policy, cfg, restored)
    finally:
        env.close()


def film(env: VecEnv, policy: Controller, cfg: PlayConfig, restored: Restored | None) -> int:
    """One episode of every environment as a video; prints where it is."""
    path = Path(os.path.expanduser(cfg.out)) if cfg.out else _default_path(env, cfg, restored)
    fps = cfg.fps or 1.0 / env.spec.control_dt
    steps, size = cfg.steps or env.spec.episode_length, (cfg.width, cfg.height)
    started = time.perf_counter()
    with video.Writer(path, fps) as writer:
        if cfg.world is World.dream:
            assert restored is not None
            summary = dreams.record(restored, env, policy, writer, cfg, steps)
        else:
            total = video.record(env, policy, writer, cfg.episode, steps, size)
            summary = f"mean return {video.number(total)}"
    print(f"{summary}, {writer.frames} frames in {time.perf_counter() - started:.1f} s")
    print(f"video       {path}")
    return 0


def watch(env: VecEnv, policy: Controller, cfg: PlayConfig, restored: Restored | None = None) -> int:
    """Episode after episode in a window or a page, in real time, until it is closed or interrupted.

    Raises:
        UsageError: no display, no viser, an engine without a viewer, or a dream in a window.
    """
    _check_live(env)
    dream, speed = None, cfg.fps * env.spec.control_dt if cfg.fps else 1.0
    with ExitStack() as stack, torch.no_grad():
        if cfg.world is World.dream:
            assert restored is not None
            if cfg.viewer is not Viewer.web:
                raise UsageError("world=dream is shown by viewer=web, or filmed with headless=True.")
            dream = stack.enter_context(closing(Dream(restored, env, cfg.seed)))
        viewer: Any
        if cfg.viewer is Viewer.web:
            of_dream = (dream.display.engine, dream.horizon) if dream else (None, 0)
            web = importlib.import_module("dima_isaac.sim.web_viewer").WebViewer
            viewer = stack.enter_context(closing(web(env.engine, cfg.port, env.spec.name, *of_dream)))
            print(f"viewer: {viewer.address} shows it; Ctrl-C stops.", flush=True)
        else:
            viewer = stack.enter_context(closing(importlib.import_module("dima_isaac.sim.render").Viewer(env.engine)))
            print("viewer: [ and ] walk through the environments, space pauses, backspace restarts; close it to stop.")
        controls = viewer.controls
        step, total = env.reset(cfg.episode), torch.zeros(env.num_envs, device=env.device)
        while viewer.show():
            due = time.perf_counter() + env.spec.control_dt / (speed * controls.speed)
            if controls.restart:
                controls.restart = False
                step = env.reset()  # the next episodes
                total.zero_()
            elif not controls.paused:
                action = policy(step.obs)
                if dream is not None:
                    dream.horizon = controls.horizon
                    dream.advance(step, action)
                step = env.step(action)
                total = (total + step.reward).masked_fill(step.first, 0.0)
            text = f"return {video.number(float(total[viewer.env]))}"
            if dream is not None:
                text += _errors(env, dream, dream.show(step)[viewer.env])
            viewer.set_text(text)
            time.sleep(max(0.0, due - time.perf_counter()))
    return 0


def _errors(env: VecEnv, dream: Dream, error: Tensor) -> str:
    """A Markdown table of the largest errors (D,) in one dreamt state."""
    largest = error.abs().topk(min(8, len(error)))
    rows = [[env.task.describe(i), f"{e:.2f}"] for e, i in zip(*map(Tensor.tolist, largest), strict=True)]
    size = float(error.square().mean().sqrt())
    head = f"dream: step {dream.age} of {dream.horizon}, error {size:.2f} (standard deviations)"
    return f"\n\n{head}\n\n" + table.markdown(["state", "error"], rows)


@contextmanager
def training_window(env: VecEnv, enabled: bool) -> Iterator[None]:
    """With ``enabled``, MuJoCo's window shows every step of ``env`` inside this context until the user closes it.

    Raises:
        UsageError: no display, or an engine without a viewer.
    """
    if not enabled:
        yield
        return
    _check_live(env)
    viewer: Any = importlib.import_module("dima_isaac.sim.render").Viewer(env.engine)
    print("viewer: [ and ] walk through the environments; training goes on when the window is closed.")
    plain_step, drawn = env.step, 0.0

    def step(action: Tensor) -> Step:
        nonlocal drawn
        row = plain_step(action)
        if time.perf_counter() - drawn >= PERIOD:
            drawn = time.perf_counter()
            if not viewer.show():
                del env.step  # type: ignore[method-assign]  # back to the class's own
        return row

    env.step = step  # type: ignore[method-assign]
    with closing(viewer):
        yield


def _check_live(env: VecEnv) -> None:
    if not env.engine.capabilities.viewer:
        raise UsageError("this engine has no live viewer; use headless=True for a video.")


def _default_path(env: VecEnv, cfg: PlayConfig, restored: Restored | None) -> Path:
    suffix = "mp4" if video.can_write_mp4() else "gif"
    dream = "-dream" if cfg.world is World.dream else ""
    if restored is None:
        return Path("videos") / f"{env.spec.name}-{cfg.agent.name}.{suffix}"
    who = "" if cfg.agent is Agent.trained else f"-{cfg.agent.name}"
    if cfg.checkpoint.startswith(zoo.PREFIX):
        return Path("videos") / f"{restored.path.parent.name}-zoo{who}.{suffix}"
    return restored.run_folder / "videos" / f"play-{restored.env_steps}{who}{dream}.{suffix}"
