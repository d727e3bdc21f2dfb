"""The agent's choices. Defaults are ours; ``preset=paper`` sets what DIMA published (Zhang et al. 2025). Torch-free."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

from dima_isaac.schema import CountOrZero, Few, Fraction, NonNegative, Positive, Range, Size, Sizes, UpdateRatio


class LearnerKind(Enum):
    """Which algorithm improves the policies; the values say where each is implemented (``agent.learner``)."""

    ppo = "dima_isaac.agent.ppo:PPO"  # from dreams alone (published)
    sac = "dima_isaac.agent.sac:SAC"  # from replay and from dreams


@dataclass
class ActorConfig:
    """One network for all agents."""

    hidden: Sizes = field(default_factory=lambda: [128, 128, 128])
    agent_id: bool = True  # append a one-hot of the agent, so that hands with like observations may differ


@dataclass
class CriticConfig:
    """One centralised value of the global state."""

    hidden: Sizes = field(default_factory=lambda: [256, 256])


@dataclass
class ExploreConfig:
    """Slow noise that training adds to the policy's actions, of another deviation in every episode.

    White noise at 60 Hz averages out before it has moved anything, so a policy that holds an object never sees it
    fly; noise that lasts moves the object. Deviations from 0 on keep most of the replay near what the policy does.
    """

    max_std: NonNegative = 0.0  # an episode's deviation is uniform from 0 to this; 0 is the policy's own noise alone


@dataclass
class PpoConfig:
    """``learner=ppo``: proximal policy optimisation with one advantage for the team (MAPPO, Yu et al. 2022)."""

    lr: Fraction = 5e-4
    lam: Fraction = 0.95
    epochs: Few = 3
    minibatches: Size = 4
    clip: Positive = 0.1
    desired_kl: NonNegative = 0.0  # of a rollout's updates, towards which the actor's rate moves; 0: it stays ``lr``
    entropy: NonNegative = 0.001
    weigh_by_survival: bool = True  # weight each dreamt step by the probability that the episode got there
    # As the released program: ReLU in place of SiLU, LayerNorm on raw observations in place of running statistics, a
    # critic that also sees the joint action that led to the state, slower value statistics, a clipped value loss, and a
    # lambda-return that discounts its one-step bootstrap twice.
    published: bool = False


@dataclass
class SacConfig:
    """``learner=sac``: soft actor-critic with categorical, batch-normalised critics."""

    lr: Fraction = 3e-4
    critic_steps_per_step: UpdateRatio = 1.0  # critic steps per environment step
    batch: Annotated[int, Range(2, 2**20)] = 256  # transitions per critic step
    n_step: Few = 3  # rewards that a return counts before it bootstraps
    start: CountOrZero = 2_000  # environment steps before the first update
    target_entropy: Annotated[
        float, Range(-10.0, 1.0)
    ] = -0.5  # per action entry, to which the entropy's weight is tuned


@dataclass
class AgentConfig:
    """Who acts and how the policies learn."""

    learner: LearnerKind = LearnerKind.sac
    actor: ActorConfig = field(default_factory=ActorConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    gamma: Fraction = 0.99
    ppo: PpoConfig = field(default_factory=PpoConfig)
    sac: SacConfig = field(default_factory=SacConfig)
    explore: ExploreConfig = field(default_factory=ExploreConfig)
