"""Settings of the Multi-Agent MuJoCo tasks. Torch-free."""

from dataclasses import dataclass, field
from enum import Enum

from dima_isaac.schema import CountOrZero


class Protocol(Enum):
    """Which published definition of the benchmark is played; results of the two never share a table."""

    v5 = "v5"  # Gymnasium's -v5 robots, as gymnasium-robotics factorises them; actions clipped to [-1, 1]
    harl = "harl"  # what HARL, MARIE and DIMA ran: flat actions, every agent sees the whole state, -v2 rewards


class FloatType(Enum):
    """The type of the tensors that leave the task; the physics itself is float64."""

    float32 = "float32"
    float64 = "float64"


@dataclass
class MamujocoConfig:
    """One robot, shared out among agents."""

    agent_conf: str = ""  # "2x3": two agents of three actuators; "9|8"; a name of upstream's; empty: its first
    agent_obsk: str = "full"  # "full", or the depth in joints to which an agent sees: 0, 1, 2, ...
    protocol: Protocol = Protocol.v5
    partition: list[list[str]] = field(default_factory=list)  # joint names per agent; takes the place of agent_conf
    local_categories: list[list[str]] = field(default_factory=list)  # seen at depth 0, 1, ...; empty: the benchmark's
    global_categories: list[str] = field(default_factory=lambda: ["qpos", "qvel"])  # what every agent sees of the root
    episode_length: CountOrZero = 0  # control steps; 0: the benchmark's
    # Gymnasium's numbers and its include_<field>_in_observation, such as ctrl_cost_weight: 0.2
    constants: dict[str, float | int | bool] = field(default_factory=dict)
    precision: FloatType = FloatType.float32
