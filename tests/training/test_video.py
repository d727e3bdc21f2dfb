"""Films: where tiles are, and what is left when one fails."""

import numpy as np
import pytest
from PIL import Image

from dima_isaac.training import video
from tests.toy import toy_env


class Painted:
    """A toy environment whose engine draws its index and the position of its first mass."""

    def __new__(cls, count: int):
        env = toy_env(count)
        env.engine.render = lambda index, width, height: np.full((height, width, 3), 50 * (index + 1), dtype=np.uint8)
        return env


def test_tiles_stay_where_they_are(tmp_path):
    frames = []
    writer = type("W", (), {"add": lambda self, frame: frames.append(frame)})()
    env = Painted(3)
    video.record(env, lambda obs: obs[:, :, :1] * 0, writer, 1, 4, (40, 30))
    assert len(frames) == 5 and frames[0].shape == (2 * 34 + 4, 2 * 44 + 4, 3)  # 30 x 40 and a border of 4
    assert [frames[-1][y, x, 0] for y, x in ((30, 40), (30, 84), (64, 40), (64, 84))] == [50, 100, 150, 32]
    assert {*frames[-1][:, 46, 0]} == {*frames[-1][36, :, 0]} == {32}


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_a_film_holds_every_frame_at_its_pace(tmp_path, suffix):
    with video.Writer(tmp_path / f"film.{suffix}", 25.0) as writer:
        for shade in (0, 100, 200):
            writer.add(np.full((20, 20, 3), shade, dtype=np.uint8))
    film = Image.open(tmp_path / f"film.{suffix}")
    film.seek(2)
    film.load()
    assert film.n_frames == 3 and film.info["duration"] == 40
    assert abs(film.convert("RGB").getpixel((9, 9))[0] - 200) < 5


def test_small_returns_keep_their_digits():
    assert [video.number(x) for x in (0.0, 0.002, -0.12345, 1.005, 27.567)] == ["0", "0.002", "-0.123", "1.00", "27.57"]


def test_a_film_that_fails_never_stops_training(tmp_path):
    said: list[str] = []
    assert not video.clip(toy_env(2), lambda obs: obs[:, :, :1], tmp_path, 7, 3, said.append)  # this engine cannot draw
    assert "training goes on" in said[0] and not list(tmp_path.iterdir())
    assert video.clip(Painted(2), lambda obs: obs[:, :, :1] * 0, tmp_path, 7, 3, said.append)
    assert [path.stem for path in tmp_path.iterdir()] == ["step_7"]


def test_a_film_that_fails_leaves_the_one_before_it(tmp_path):
    path, frame = tmp_path / "film.gif", np.zeros((20, 20, 3), dtype=np.uint8)
    with video.Writer(path, 1e-9) as writer:  # slower than a GIF can tell
        writer.add(frame)
        writer.add(frame + 255)
    whole = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), video.Writer(path, 30.0) as writer:
        writer.add(frame)
        raise KeyboardInterrupt
    assert path.read_bytes() == whole and [*tmp_path.iterdir()] == [path]
    with pytest.raises(KeyboardInterrupt), video.Writer(tmp_path / "new" / "film.gif", 30.0):
        raise KeyboardInterrupt
    assert [*tmp_path.iterdir()] == [path]
