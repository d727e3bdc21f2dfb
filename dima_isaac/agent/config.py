"""The agent's choices. Defaults are ours; ``preset=paper`` sets what DIMA published (Zhang et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from dima_isaac.schema import Few, Fraction, Limit, Log, NonNegative, Positive, Size, Sizes


class Activation(Enum):
    """What follows a linear layer."""

    relu = "relu"
    silu = "silu"
    gelu = "gelu"
    tanh = "tanh"


@dataclass
class ActorConfig:
    """One network for all agents."""

    hidden: Sizes = field(default_factory=lambda: [128, 128, 128])
    activation: Activation = Activation.silu
    agent_id: bool = True  # append a one-hot of the agent, so that hands with like observations may differ
    normalise: bool = True  # running mean and deviation per agent and entry; False: LayerNorm on the raw observation
    std_max: Positive = 0.5  # standard deviation = std_max * sigmoid(l), l learned per action dimension
    std_init: Log = 1.0  # the initial l
    lr: Fraction = 5e-4
    clip_action: bool = True  # clip to [-1, 1] before the world model sees the action, as the environment does


@dataclass
class CriticConfig:
    """One centralised value of the global state."""

    hidden: Sizes = field(default_factory=lambda: [256, 256])
    activation: Activation = Activation.silu
    sees_action: bool = False  # append the joint action that led to the state (upstream)
    lr: Fraction = 5e-4
    huber: Positive = 10.0
    value_decay: Fraction = 0.999  # EMA of the return statistics that values are normalised by
    clip_value: bool = False


@dataclass
class ExploreConfig:
    """Episodes of training in which slow noise is added to the policy's actions.

    White noise at 60 Hz averages out before it has moved anything, so a policy that holds an object never sees it
    fly, and dreams of flight stay wrong. Noise that lasts moves the object; a share of episodes is enough to keep the
    world model honest about what the policy has not dared yet.
    """

    share: Fraction = 0.0  # of episodes; 0 is the policy's own noise alone
    std: NonNegative = 1.0  # stationary standard deviation of the added noise
    correlation: Fraction = 0.9  # of the noise from one control step to the next (an AR(1) process)


@dataclass
class AgentConfig:
    """PPO on dreams."""

    actor: ActorConfig = field(default_factory=ActorConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    gamma: Fraction = 0.99
    lam: Fraction = 0.95
    gamma_twice: bool = False  # upstream's lambda-return discounts the one-step bootstrap twice
    epochs: Few = 3
    minibatches: Size = 4
    clip: Positive = 0.1
    entropy: NonNegative = 0.001
    grad_clip: Limit = 10.0
    weigh_by_survival: bool = True  # weight each dreamt step by the probability that the episode got there
    advantage_eps: Positive = 1e-4
    explore: ExploreConfig = field(default_factory=ExploreConfig)
