"""Settings that all two-handed tasks share; a task's YAML lists only those that it sets. Torch-free."""

from dataclasses import dataclass, field
from enum import Enum

from dima_isaac.schema import Count, Fraction, NonNegative, Seed


class Profile(Enum):
    """Which reading of the benchmark."""

    fixed = "fixed"  # its defects repaired; the default for new work
    compat = "compat"  # as published, to compare with published curves


class LeftHand(Enum):
    """What hand 1 is."""

    right = "right"  # a second right hand, as published
    mirrored = "mirrored"  # a left one


@dataclass
class TwoHandConfig:
    """Settings of every two-handed task. ``None`` means: the profile decides.

    A task adds its own, which are the published numbers.
    """

    profile: Profile = Profile.fixed
    episode_length: Count = 75  # control steps
    hand_agent_index: list[list[int]] = field(default_factory=lambda: [[0, 1, 2, 3, 4, 5]])
    """The agents of one hand, each a list of parts (0 palm and wrist, 1 ff, 2 mf, 3 rf, 4 lf, 5 th)."""
    left_hand: LeftHand = LeftHand.right
    reset_position_noise: NonNegative = 0.0  # m, half range per axis
    reset_dof_noise: NonNegative = 0.0  # share of the joint range
    transition_scale: NonNegative = 0.0  # free bases: force per action
    orientation_scale: NonNegative = 0.0  # free bases: torque per action
    action_smoothing: Fraction = 1.0  # weight of the new target; 1 is none
    relative_control: bool = False  # joint actions move the last targets; published, only hand 0 was moved, and wrongly
    dof_speed_scale: NonNegative = 20.0  # with it: rad/s at an action of 1
    assets_root: str = ""  # the user's own copy of the benchmark's assets (it holds mjcf/); empty: authored objects
    own_fingertips: bool | None = None  # published, hand 1's fingertip columns show hand 0's fingertips again
    undamped_objects: bool | None = None  # published, free objects lose half of their spin in 1.4 s
    clamp_reset: bool | None = None  # published reset noise leaves the joint limits, because u spans (-1, 1)
    randomize: bool = False  # every environment draws its own hands, objects and gravity, once
    randomize_seed: Seed = 0  # of those draws

    def repaired(self, choice: bool | None) -> bool:
        """``choice`` itself, or by the profile: a defect is repaired in ``fixed`` and kept in ``compat``."""
        return self.profile is Profile.fixed if choice is None else choice
