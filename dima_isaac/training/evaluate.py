"""Deterministic episodes on environments of their own, with seeds of their own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dima_isaac import ranks
from dima_isaac.config import RunConfig
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.run.folder import RunFolder
from dima_isaac.run.logger import Logger
from dima_isaac.training.video import clip
from dima_isaac.types import Controller, Metrics


@dataclass
class Episodes:
    """The result of one episode in each environment."""

    total: Tensor  # (E,) the return
    success: Tensor  # (E,) bool, at any time of the episode
    length: Tensor  # (E,) control steps


@torch.no_grad()
def episodes(env: VecEnv, controller: Controller, episode: int) -> Episodes:
    """The first episode of every environment under ``controller``.

    ``episode`` numbers the starts, so that the result depends on nothing that happened before.
    """
    step = env.reset(episode)
    running = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    total = torch.zeros(env.num_envs, device=env.device)
    length, success = torch.zeros_like(total), torch.zeros_like(running)
    on_host = env.device.type == "cpu"
    for _ in range(env.spec.episode_length):
        step = env.step(controller(step.obs))
        running = running & ~step.first  # a first row means that the quarantine restarted it
        total += step.reward.masked_fill(~running, 0.0)
        length += running
        success = torch.where(running, env.success, success)
        running = running & ~step.last
        if on_host and not running.any():  # on a GPU asking would wait for the device at every step
            break
    return Episodes(total, success, length)


def evaluate(env: VecEnv, controller: Controller, episode: int) -> Metrics:
    """Means over ``episodes``: ``return``, ``return_std``, ``length`` and, where the task has a goal, ``success``."""
    seen = episodes(env, controller, episode)
    means = {"return": seen.total.mean(), "return_std": seen.total.std(correction=0), "length": seen.length.mean()}
    return means | ({"success": seen.success.float().mean()} if env.spec.goal else {})


class Evaluator:
    """The evaluations of a run: counted, logged and, with ``capture_video``, filmed."""

    def __init__(self, cfg: RunConfig, run: RunFolder, env: VecEnv, logger: Logger) -> None:
        self.cfg, self.run, self.env, self.logger = cfg, run, env, logger
        self.evaluations = 0

    def evaluate(self, controller: Controller, env_steps: int) -> None:
        """Log the means of new episodes of ``controller`` as ``eval/*``; training's random numbers stay untouched."""
        number = self.evaluations + 1
        self.logger.add(evaluate(self.env, controller, number), "eval/")
        every, freq = self.cfg.train.eval.every, self.cfg.capture_video_freq
        if self.cfg.capture_video and (not every or not freq or env_steps % freq < every):  # the first since each freq
            steps = self.cfg.capture_video_len or self.env.spec.episode_length
            path = clip(self.env, controller, self.run.videos, env_steps, steps, self.logger.note)
            if path is not None:
                self.logger.video(path, env_steps)
        self.evaluations = number  # one that was interrupted is made again


def add_environment_metrics(logger: Logger, env: VecEnv) -> None:
    """Log the episodes that have finished on ``env`` as ``train/*`` and its engine's counters as ``engine/*``."""
    logger.add(env.episode_means(), "train/")
    stats = env.engine.stats()
    logger.add(dict(zip(stats, ranks.total(*stats.values()), strict=True)), "engine/")
