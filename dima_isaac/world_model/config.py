"""What can be chosen about the world model. Torch-free; ``cfg/preset/paper.yaml`` holds the published values.

``docs/algorithm.md`` explains each of them. What is never varied is a constant of the module that uses it.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

from dima_isaac.schema import CountOrZero, Few, FewOrZero, Fraction, Limit, NonNegative, Range, Size


class TargetKind(Enum):
    """What is diffused."""

    state = "state"  # the next normalised state (published)
    residual = "residual"  # what a running linear regression on state and joint action leaves of the one-step change


class Reveal(Enum):
    """Which agents' current actions a reverse step sees."""

    sequential = "sequential"  # one agent (published)
    cumulative = "cumulative"  # every agent revealed so far
    joint = "joint"  # all


class Order(Enum):
    """In which order agents are revealed."""

    descending = "descending"  # N - 1, ..., 0 (published)
    per_sample = "per_sample"  # one random permutation for each row of the batch


class Backbone(Enum):
    """The denoiser's network."""

    mlp = "mlp"  # residual blocks, actions encoded linearly
    unet = "unet"  # 1-D U-Net, actions encoded by a Perceiver (published)


GPT_STEPS = 15  # of a trajectory that the published model of reward sees, at most


class RewardKind(Enum):
    """The model of reward and continuation."""

    head = "head"  # an MLP that sees (s, a, s')
    gpt = "gpt"  # a transformer that sees (s, a) up to now (published)


class Ends(Enum):
    """Which ends of episodes are learned, and what imagination makes of them."""

    task = "task"  # the task's own; their probability discounts what follows
    timeouts = "timeouts"  # time-outs too (published)
    drawn = "drawn"  # time-outs too, and whether an imagined episode goes on is drawn (published for Ant)


class DecoderKind(Enum):
    """From state to observations."""

    exact = "exact"  # the task's own function
    vq = "vq"  # learned, through a codebook (published)


class Precision(Enum):
    """What the networks compute in; everything else is float32 or float64."""

    auto = "auto"  # bf16 where the device multiplies it natively, else fp32; resolved once, at the start of a run
    fp32 = "fp32"
    bf16 = "bf16"


@dataclass
class OptimConfig:
    """AdamW. Biases, norms and embeddings are never decayed."""

    lr: Fraction = 3e-4
    weight_decay: NonNegative = 0.0
    warmup: CountOrZero = 0  # updates over which the rate rises from 0
    clip: Limit = 1.0  # of the gradient's global norm


@dataclass
class DenoiserConfig:
    """The denoiser D(y; sigma, history, actions) and its reverse process."""

    reveal: Reveal = Reveal.cumulative
    order: Order = Order.per_sample
    # K reverse steps; 0 means N, or 2 N when N <= 2. 1 is a regression in place of diffusion: the network sees no
    # sample of y and learns its mean, and all that is random in an imagined step are the held-out errors.
    steps: FewOrZero = 0
    backbone: Backbone = Backbone.mlp
    width: Annotated[int, Range(2, 2**20, step=2)] = 256  # mlp
    blocks: FewOrZero = 3  # mlp
    ema: Fraction = 0.998  # imagination uses this moving average of the weights; 0 (published) the weights themselves
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3))


@dataclass
class RewardConfig:
    """Reward and continuation."""

    kind: RewardKind = RewardKind.head
    width: Size = 256
    normalise: bool = True  # learn the reward in units of its running standard deviation
    double_step: bool = False  # published defect: two optimiser steps on the same gradient
    ends: Ends = Ends.task
    sparsity: NonNegative = 0.0  # head: strength of the group lasso on its inputs (nn.optim.shrink_columns); 0 none
    ema: Fraction = 0.0  # imagination uses this moving average of the weights; 0 (published) the weights themselves
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass
class WorldModelConfig:
    """The whole world model."""

    history: Annotated[int, Range(2, 64)] = 3  # rows that the denoiser sees, the current one included
    # Training passes, each on the predictions of the one before; published 3. One pass over three times as many windows
    # costs the same and predicts better.
    unroll: Few = 1
    target: TargetKind = TargetKind.residual
    # Scale of the held-out errors that imagined steps add, of which output-only dimensions always take the whole;
    # 0 (published) adds none and takes every prediction as it is. Where a model's own spread is half of its error,
    # 0.85 gives a step's errors their true size; scripts/study_dream.py shows which value makes dreams fail as often as
    # the simulator.
    error_scale: NonNegative = 1.0
    value_weight: Fraction = 0.7  # share of the denoiser's loss weights that follows the value's gradient; published 0
    copy_last_action: bool = True  # where the state repeats the action just taken, write it instead of predicting it
    clip_actions: bool = True  # to [-1, 1], as environments do
    z_clamp: NonNegative = 10.0  # imagined states stay within this many standard deviations; 0 (published) unbounded
    decoder: DecoderKind = DecoderKind.exact
    precision: Precision = Precision.auto
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
