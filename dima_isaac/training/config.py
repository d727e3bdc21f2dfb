"""When and how much a run learns, and what it measures and keeps.

Everything counts environment steps, and learning is a ratio to them, so that ``num_envs`` can change without
changing the algorithm.
"""

from dataclasses import dataclass, field

from dima_isaac.schema import Count, CountOrZero, Few, Fraction, Size, UpdateRatio


@dataclass
class LearnConfig:
    """The work done per environment step; defaults give DIMA's 200 / 200 / 5 per 1000 steps."""

    start: CountOrZero = 4_000  # environment steps before the first world-model update
    behaviour_start: CountOrZero = 6_000  # ... and before the first policy update
    round: Count = 1_000  # collect this many steps between two learning phases
    whole_episodes: bool = False  # with one environment a learning phase waits for the episode's end (published)
    dynamics_per_step: UpdateRatio = 0.2  # denoiser updates
    dynamics_batch: Size = 192  # windows; DIMA's 64 make three passes each (world_model.unroll)
    reward_per_step: UpdateRatio = 0.2
    reward_batch: Size = 256
    decoder_per_step: UpdateRatio = 0.2  # only with a learned decoder
    rollouts_per_step: UpdateRatio = 0.005
    dreams: Size = 600  # dreamt episodes per rollout
    horizon: Few = 15  # steps of a dream; at most, where a learner from replay tests how far dreams hold
    dream_share: Fraction = 0.5  # of what a learner from replay learns from, while dreams hold; 0 learns without them
    # Training's episodes are cut off after this many control steps (0: only as the task says), which is not learned as
    # a termination. A robot that has fallen on its back would otherwise fill the rest of a long episode with such rows.
    episode: CountOrZero = 250


@dataclass
class EvalConfig:
    """Deterministic episodes on separate environments."""

    every: CountOrZero = 5_000  # environment steps; 0 never
    episodes: Size = 32  # one per evaluation environment


@dataclass
class CheckpointConfig:
    """What is kept on disk."""

    every: CountOrZero = 10_000  # environment steps; 0 only at the end
    keep: Few = 2  # step_<n>.pt files beside last.pt


@dataclass
class TrainConfig:
    """The run's own settings."""

    learn: LearnConfig = field(default_factory=LearnConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    probe_every: CountOrZero = 25_000  # environment steps between open-loop probes; 0 never
