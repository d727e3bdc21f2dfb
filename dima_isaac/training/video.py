"""Moving pictures of a vectorised environment: tiles with a line of text each, written as MP4 or GIF."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import UsageError
from dima_isaac.types import Controller

Array = np.ndarray
_INK, _SHADE = (255, 255, 255), (0, 0, 0)
_GAP, _BORDER = 4, (32, 34, 38)  # pixels around every tile, even as MP4 has it, and their colour


def can_write_mp4() -> bool:
    """Whether imageio and its ffmpeg are installed (the ``video`` extra)."""
    return find_spec("imageio") is not None and find_spec("imageio_ffmpeg") is not None


class Writer:
    """``with Writer(path, fps) as video: video.add(frame)``; the format is that of the suffix: .mp4, .gif or .webp.

    A video appears under its name when it is complete; if anything fails, one that was there before stays.
    """

    def __init__(self, path: Path, fps: float) -> None:
        """Raises ``UsageError`` for another suffix, for MP4 without ffmpeg, and where nothing can be written."""
        self.path, self.fps, self.frames = path, fps, 0
        self._images: list[Image.Image] = []
        self._mp4: Any = None
        if path.suffix not in (".mp4", ".gif", ".webp"):
            raise UsageError(f"out={path} is neither .mp4 nor .gif nor .webp.")
        if path.suffix == ".mp4" and not can_write_mp4():
            raise UsageError(f"{path.name} needs ffmpeg: pip install imageio imageio-ffmpeg, or choose a .gif.")
        self._made = not path.parent.exists()
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}.") from error

    def add(self, frame: Array) -> None:
        """(height, width, 3) uint8, all of one size."""
        self.frames += 1
        if self.path.suffix != ".mp4":
            self._images.append(Image.fromarray(frame))
            return
        if self._mp4 is None:
            import imageio

            self._mp4 = imageio.get_writer(self._temporary, fps=self.fps, quality=8, macro_block_size=2)
        self._mp4.append_data(frame)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, failed: object, *rest: object) -> None:
        try:
            if self._mp4 is not None:
                self._mp4.close()
            if self.frames and not failed:
                if self._images:
                    self._save_images()
                os.replace(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)
            if self._made and not any(self.path.parent.iterdir()):
                self.path.parent.rmdir()

    def _save_images(self) -> None:
        # a GIF counts hundredths of a second in 16 bits, and players ignore less than two of them
        shown = min(max(20, 10 * round(100.0 / self.fps)), 655_350)
        images = self._images
        if self.path.suffix == ".gif":  # with one palette, frames store only what changes
            some = [np.asarray(images[k]) for k in (0, len(images) // 2, -1)]
            palette = Image.fromarray(np.concatenate(some)).quantize(256)
            images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
        images[0].save(self._temporary, save_all=True, append_images=images[1:], duration=shown, loop=0)


def number(value: float) -> str:
    """Two decimals, or three digits of what is smaller than 1: 12.35, 0.00213."""
    return f"{value:.2f}" if abs(value) >= 1.0 else f"{value:.3g}"


def tile(pictures: Sequence[Array], columns: int = 0) -> Array:
    """Pictures (h, w, 3) of one size in a grid, as square as possible, with borders; empty places are border, too."""
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width, _ = pictures[0].shape
    out = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), _BORDER, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        y, x = _GAP + i // columns * (height + _GAP), _GAP + i % columns * (width + _GAP)
        out[y : y + height, x : x + width] = picture
    return out


def caption(picture: Array, text: str) -> Array:
    """``picture`` with ``text`` in its upper left corner, on a dark box that keeps it readable."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image, "RGBA")
    font = ImageFont.load_default(size=max(9, picture.shape[0] // 20))
    left, top, right, bottom = draw.textbbox((4, 3), text, font=font)
    draw.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=(*_SHADE, 120))
    draw.text((4, 3), text, font=font, fill=_INK)
    return np.asarray(image)


@torch.no_grad()
def record(
    env: VecEnv, policy: Controller, writer: Writer, episode: int, steps: int, size: tuple[int, int], tiles: int = 0
) -> float:
    """Film episode ``episode`` of the first ``tiles`` environments of ``env`` (0: all); returns their mean return.

    Each tile stands still once its episode is over. ``size`` is a tile's width and height.
    """
    count = tiles or env.num_envs
    step = env.reset(episode)
    running = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    total = torch.zeros(env.num_envs, device=env.device)
    pictures: list[Array] = [np.empty(0)] * count
    for tick in range(steps + 1):
        if tick:
            step = env.step(policy(step.obs))
            running = running & ~step.first
            total += step.reward.masked_fill(~running, 0.0)
        alive, totals, solved = running.tolist(), total.tolist(), env.success.tolist()
        for i in range(count):
            if alive[i]:
                text = f"#{i}  step {tick}  return {number(totals[i])}" + ("  solved" if solved[i] else "")
                pictures[i] = caption(env.engine.render(i, *size), text)
        writer.add(tile(pictures))
        running = running & ~step.last
        if not any(running.tolist()[:count]):
            break
    return float(total[:count].mean())


def clip(
    env: VecEnv, policy: Controller, folder: Path, env_steps: int, steps: int, note: Callable[[str], None]
) -> Path | None:
    """Film ``steps`` control steps of two evaluation episodes into ``folder``; None after telling ``note`` why not."""
    path = folder / f"step_{env_steps}.{'mp4' if can_write_mp4() else 'gif'}"
    try:
        with Writer(path, 1.0 / env.spec.control_dt) as writer:
            record(env, policy, writer, 1, steps, (320, 240), tiles=min(2, env.num_envs))
    except Exception as error:  # a failed video must not end the run
        note(f"no video: {' '.join(str(error).split()) or type(error).__name__}; training goes on without.")
        return None
    note(f"video {path}")
    return path
