"""What can be chosen about the world model. Torch-free; ``cfg/preset/paper.yaml`` holds the published values.

Defects of the published program (facts of the released code) and what became of them here:

====================================== ==================================================================
published behaviour                    here
====================================== ==================================================================
sample nearly blind to all but one     ``denoiser.reveal``: ``cumulative`` and ``joint`` beside ``sequential``
agent's current action
offset noise is white, training never  kept, ``denoiser.offset`` (it is the noise floor that ``cumulative``
sees less than 0.3                     needs); 0 switches it off
one agent order for the whole batch    ``denoiser.order``: ``descending`` as published, default ``per_sample``
two optimiser steps per reward batch,  ``reward.double_step``, on in the paper preset
the first one unclipped
a time-out learned as a termination    fixed: a window knows terminations only
Heun branch raises, ensemble discards  neither exists: the sampler is Euler's
its second sample
masks corrupted after a dream's reset  fixed: dreams are never reset
unbounded actions reach the model      ``clip_actions``, off in the paper preset
====================================== ==================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

from dima_isaac.schema import (
    Count,
    CountOrZero,
    Few,
    FewOrZero,
    Fraction,
    Limit,
    Log,
    NonNegative,
    Positive,
    Range,
    Size,
)


class Target(Enum):
    """What is diffused."""

    state = "state"  # the next normalised state (published)
    residual = "residual"  # what a running linear regression on state and joint action leaves of that change


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
    mlp = "mlp"
    unet = "unet"  # published


class ActionEncoder(Enum):
    light = "light"
    perceiver = "perceiver"  # published


class RewardKind(Enum):
    head = "head"  # sees (s, a, s')
    gpt = "gpt"  # sees (s, a) up to now (published)


class DecoderKind(Enum):
    exact = "exact"  # the task's own view of the state
    vq = "vq"  # learned, nearest-neighbour codebook (published for MAMuJoCo)


class Precision(Enum):
    auto = "auto"  # bf16 where the device multiplies it natively, else fp32; resolved once, at the start of a run
    fp32 = "fp32"
    bf16 = "bf16"  # inside the networks only


@dataclass
class OptimConfig:
    """AdamW. Biases, norms and embeddings are never decayed unless ``decay_all``."""

    lr: Fraction = 3e-4
    weight_decay: NonNegative = 0.0
    decay_all: bool = False
    warmup: CountOrZero = 0  # updates over which the rate rises from 0
    clip: Limit = 1.0  # of the gradient's global norm


@dataclass
class DenoiserConfig:
    """D(x; sigma, history, actions, visible agents), its noise and its reverse process."""

    reveal: Reveal = Reveal.cumulative
    order: Order = Order.per_sample
    full_fraction: Fraction = 0.5  # cumulative training: how often every agent is visible
    steps: FewOrZero = 0  # K; 0 means N, or 2 N when N <= 2
    sigma_data: Positive = 0.5
    offset: NonNegative = 0.3
    sigma_min: Positive = 0.002
    sigma_max: Positive = 5.0
    rho: Annotated[float, Range(1.0, 100.0)] = 7.0
    temperature: NonNegative = 1.0  # of the noise a dream starts from; 0 follows the most likely path
    train_mean: Log = -0.4  # of ln sigma in training
    train_std: NonNegative = 1.2
    train_max: Positive = 20.0
    backbone: Backbone = Backbone.mlp
    width: Size = 256  # mlp: hidden units; unet: 64 channels are fixed by `channels`
    blocks: FewOrZero = 3  # mlp: residual blocks
    channels: Annotated[int, Range(32, 4096, step=32)] = 64  # unet
    fourier: Annotated[int, Range(2, 4096, step=2)] = 16  # numbers that describe the noise level
    cond: Annotated[int, Range(2, 4096, step=2)] = 128  # width of the condition vector and of the action code
    actions: ActionEncoder = ActionEncoder.light
    ema: Fraction = 0.998  # dreams use this moving average of the weights, which generalises better; 0 (published) none
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3))


@dataclass
class RewardConfig:
    """Reward and continuation."""

    kind: RewardKind = RewardKind.head
    width: Size = 256
    layers: Few = 2  # head: hidden layers; gpt: transformer layers
    heads: Few = 4  # gpt
    block: Few = 15  # gpt: steps of context
    dropout: Annotated[float, Range(0.0, 0.99)] = 0.0  # gpt
    normalise: bool = True  # learn the reward in units of its running standard deviation
    double_step: bool = False  # published defect: two optimiser steps on the same gradient
    optim: OptimConfig = field(default_factory=OptimConfig)


@dataclass
class DecoderConfig:
    """State to observations."""

    kind: DecoderKind = DecoderKind.exact
    tokens: Few = 12
    token_dim: Size = 64  # vq
    codes: Size = 256  # vq
    ema: Fraction = 0.995  # vq
    width: Size = 256
    commitment: NonNegative = 10.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(weight_decay=0.01, decay_all=True, clip=10.0))


@dataclass
class WorldModelConfig:
    """The whole world model."""

    history: Annotated[int, Range(2, 64)] = 3
    # Training passes, each on the predictions of the one before; published 3. One pass over three times as many windows
    # costs the same and predicts better.
    unroll: Few = 1
    target: Target = Target.residual
    linear_every: Count = 50  # residual: updates between two solutions of the regression
    linear_decay: Fraction = 0.9995  # residual: what the regression keeps of older updates, per update
    linear_penalty: NonNegative = 2.5e-4
    # Dreams believe each dimension of D as far as steps that it had not seen bore it out; a round keeps this much of
    # the evidence before it. 0 believes all (published).
    trust_decay: Fraction = 0.9
    # Every dreamt step errs as the model erred on unseen steps, by this share of whole misses drawn from the newest
    # ``doubt_rows`` of them: a model that knows its data by heart is surer than it is right, and its dreams lack
    # the accidents that a policy must learn to avoid. 0 (published) trusts the model's own spread. Where that is half
    # of a miss, 0.85 brings a step's errors to their true size; scripts/study_dream.py shows which value makes dreams
    # fail as often as the simulator. Readouts (contact forces), which only a regression predicts, take whole misses.
    doubt: NonNegative = 1.0
    doubt_rows: Count = 4096
    # Share of the denoiser's loss weights that follows how much the value of a state depends on each dimension of y
    # (VaGraM, Voelcker et al. 2022): of 398 numbers of two hands and an egg, the egg's velocity decides; of an ant's
    # 105, 78 are contact forces. 0 (published) weighs all alike.
    value_weight: Fraction = 0.7
    residual_floor: NonNegative = 0.03  # residual: smallest unit of a dimension's residual, in units of its change
    copy_last_action: bool = True  # where the state repeats the action just taken, write it instead of predicting it
    clip_actions: bool = True  # to [-1, 1], as environments do
    z_clamp: NonNegative = 10.0  # dreamt states stay within this many standard deviations; 0 = unbounded
    # A step's change counts as at most so many of its standard deviations; 0 = unbounded. What nobody has touched yet
    # moves by rounding alone, and its first real move would be millions.
    change_clamp: NonNegative = 30.0
    prior_count: NonNegative = 0.0  # weight of the moments' prior N(0, 1); published 1e-4
    precision: Precision = Precision.auto
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
