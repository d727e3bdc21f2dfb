"""A Gymnasium robot as a Markov game of N agents: everything that the robots have in common.

The physics is float64; tensors leave the task as float32 (or float64 on request). Derived quantities are those that
MuJoCo's step leaves behind, one substep old with the Euler integrator: the benchmark is defined that way.

Which numbers an agent sees is found by running gymnasium-robotics' factorisation once on column numbers
(``factorisation``); from then on an observation is a gather.
"""

from abc import abstractmethod
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dima_isaac.envs.agent_view import AgentView
from dima_isaac.envs.noise import Noise
from dima_isaac.envs.task import Outcome, Task, TaskSpec
from dima_isaac.errors import UsageError
from dima_isaac.sim.engine import Engine
from dima_isaac.sim.scene import Scene
from dima_isaac.tasks.mamujoco.config import FloatType, MamujocoConfig, Protocol
from dima_isaac.tasks.mamujoco.definition import define, included
from dima_isaac.tasks.mamujoco.factorisation import Graph, custom_graph, encode, factorise, named_graph
from dima_isaac.tasks.mamujoco.harl import Harl, in_order, standardised
from dima_isaac.types import Dims

_DTYPES = {FloatType.float32: torch.float32, FloatType.float64: torch.float64}


class Robot(Task):
    """Base of the robots. A robot defines its state, its reward and when it has fallen."""

    Config = MamujocoConfig
    preferred_engine = "mujoco"
    """With a GPU, too: the benchmark is defined by its float64 numbers, and a GPU engine has float32."""

    scenario: ClassVar[str]  # Gymnasium's name without the version
    template: ClassVar[str] = ""  # Gymnasium's name where it differs
    partitions: ClassVar[tuple[str, ...]]  # gymnasium-robotics' names, the default one first
    nq: int  # sizes of the model, checked against the engine
    nv: int
    nu: int
    nbody: int = 0
    state_fields: dict[str, int]  # MjData fields of the state, and how many leading numbers are left out
    limits: dict[str, float] = {}  # noqa: RUF012  # fields that the state clips to +- this
    extra_fields: tuple[str, ...] = ()  # fields needed besides those of the state
    local_categories: ClassVar[list[list[str]]] = [["qpos", "qvel"], ["qpos"]]
    normal_velocity: ClassVar[bool] = False  # initial velocities are normal, not uniform
    harl: ClassVar[Harl | None] = None  # None: that protocol never played this robot

    def __init__(self, cfg: MamujocoConfig) -> None:
        """Compute sizes, partition and observations; ``bind`` adds the physics.

        Raises:
            UsageError: a partition, depth, constant or protocol that this robot does not have.
        """
        self.cfg = cfg
        old = self._old = None if cfg.protocol is Protocol.v5 else self.harl
        if cfg.protocol is Protocol.harl and old is None:
            raise UsageError(f"{self.scenario} was never played under protocol=harl; use task.protocol=v5.")
        changes = {**(old.constants if old else {}), **cfg.constants}
        self.definition = define(self.template or self.scenario, changes)
        if old and old.state_fields is not None:
            self.state_fields = old.state_fields
        hidden = [name for name in self.state_fields if not included(self.definition.constants, name)]
        self.extra_fields = (*self.extra_fields, *hidden)  # rewards may still need them
        self.state_fields = {name: skip for name, skip in self.state_fields.items() if name not in hidden}
        self._blocks = self._layout()
        self._zeros = old.zeros if old else 0
        self._width = max(stop for _, stop in self._blocks.values()) + self._zeros
        self._dtype = _DTYPES[cfg.precision]
        conf = cfg.agent_conf or self.partitions[0]
        if cfg.partition:
            self.graph, conf = custom_graph(self.scenario, cfg.partition, self.partitions), "custom"
        else:
            self.graph = self._graph(conf)
        depth = None if old or cfg.agent_obsk == "full" else _depth(cfg.agent_obsk)
        local = cfg.local_categories or [[f for f in level if f not in hidden] for level in self.local_categories]
        parts = factorise(self.graph, self._columns(), self._width, depth, local, cfg.global_categories)
        self._view = None if depth is None else AgentView(parts.columns, self._width)
        actuators = in_order(parts.actuators, self.scenario) if old else parts.actuators
        self._set_actions(actuators)
        self._agents = len(actuators)
        widths = sorted({len(columns) + (self._agents if old else 0) for columns in parts.columns})
        self.spec = TaskSpec(
            name=self.scenario,
            dims=Dims(agents=self._agents, state=self._width, obs=widths[-1], action=self._slots),
            episode_length=cfg.episode_length or self.definition.episode_length,
            control_dt=float("nan"),
            agent_names=tuple(f"agent_{i}" for i in range(self._agents)),
            output_only=self._output_only(),
            goal=False,
            action_mask=None if bool(self._used.all()) else self._used,
            notes=self._notes(conf, actuators, widths),
        )

    # ---- construction ------------------------------------------------------------------------------------------

    def _notes(self, conf: str, actuators: list[list[int]], widths: list[int]) -> tuple[str, ...]:
        labels = {node.act_ids: node.label for part in self.graph.parts for node in part}
        shared = f"{conf}: " + " | ".join(" ".join(labels[u] for u in part) for part in actuators)
        if self._old:
            return (
                "protocol harl: -v2 rewards, unclipped actions in actuator order whatever the partition's name says",
                shared,
                f"every agent sees the whole state of {self._width} and its own number, standardised sample by sample",
            )
        seen = " or ".join(map(str, widths))
        return (
            "protocol v5: Gymnasium -v5 rewards, actions clipped to [-1, 1]",
            shared,
            f"agent_obsk={self.cfg.agent_obsk}: an agent sees {seen} numbers of a state of {self._width}",
        )

    def _graph(self, conf: str) -> Graph:
        return named_graph(self.scenario, conf, self.partitions)

    def _sizes(self) -> dict[str, int]:
        """Length of each raw field, flattened."""
        bodies = self.nbody
        lengths = {"qpos": self.nq, "qvel": self.nv, "qfrc_actuator": self.nv}
        return lengths | {"cinert": 10 * bodies, "cvel": 6 * bodies, "cfrc_ext": 6 * bodies}

    def _layout(self) -> dict[str, tuple[int, int]]:
        """The state's blocks: field -> first column, one past the last."""
        blocks, start, sizes = {}, 0, self._sizes()
        for name, skipped in self.state_fields.items():
            blocks[name] = (start, start + sizes[name] - skipped)
            start = blocks[name][1]
        return blocks

    def _output_only(self) -> Tensor | None:
        """(D,) bool: the contact forces. They follow from positions, velocities and controls, nothing from them."""
        if "cfrc_ext" not in self._blocks:
            return None
        start, stop = self._blocks["cfrc_ext"]
        columns = torch.arange(self._width)
        return (start <= columns) & (columns < stop)

    def _columns(self) -> Any:
        """MjData's fields, each number replaced by its state column (``encode``), or by D where the state has none."""
        fields = {}
        for name, (start, stop) in self._blocks.items():
            columns = encode([self._width] * self.state_fields[name] + list(range(start, stop)))
            per_body = {"cinert": 10, "cvel": 6, "cfrc_ext": 6}.get(name)
            fields[name] = columns.reshape(-1, per_body) if per_body else columns
        return SimpleNamespace(**fields)

    def _set_actions(self, actuators: list[list[int]]) -> None:
        """Resolve where in the (N, A) actions each actuator's number stands."""
        self._slots = max(len(part) for part in actuators)
        self._used = torch.tensor([[slot < len(part) for slot in range(self._slots)] for part in actuators])
        place = {u: agent * self._slots + slot for agent, part in enumerate(actuators) for slot, u in enumerate(part)}
        source = [place[u] for u in range(self.nu)]
        in_place = source == list(range(len(actuators) * self._slots))
        self._source = None if in_place else torch.tensor(source)

    # ---- the task contract -------------------------------------------------------------------------------------

    def scene(self) -> Scene:
        """The robot's file as the whole world."""
        fields = dict.fromkeys(("qpos", "qvel", *self.state_fields, *self.extra_fields))
        return Scene(
            world=self.definition.asset(self._old.asset if self._old else ""),
            fields=tuple(fields),
            frame_skip=int(self.definition.constants["frame_skip"]),
        )

    def bind(self, engine: Engine) -> None:
        """Keep the engine's fields.

        Raises:
            UsageError: the installed robot has other sizes than this task was written for.
        """
        self._qpos, self._qvel = engine.field("qpos"), engine.field("qvel")
        self._fields = {name: engine.field(name).flatten(1) for name in (*self.state_fields, *self.extra_fields)}
        self._shown = {name: self._fields[name][:, skipped:] for name, skipped in self.state_fields.items()}
        ranges = engine.constant("actuator_ctrlrange")
        found = (self._qpos.shape[1], self._qvel.shape[1], ranges.shape[0])
        if found != (self.nq, self.nv, self.nu):
            known = (self.nq, self.nv, self.nu)
            raise UsageError(f"{self.scenario}: nq, nv, nu of the installed robot are {found}, not {known}.")
        envs = engine.num_envs
        self._dt = engine.control_dt
        self.spec = replace(self.spec, control_dt=engine.control_dt)
        low, high = ranges.unbind(1)
        self._middle, self._half = (low + high) / 2.0, (high - low) / 2.0
        self._unit_range = bool((self._middle == 0.0).all() and (self._half == 1.0).all())
        self._qpos0, self._qvel0 = self._qpos[0].clone(), self._qvel[0].clone()
        self._ctrl = torch.zeros(envs, self.nu, dtype=torch.float64, device=engine.device)
        self._rest = torch.zeros_like(self._ctrl)
        self._everywhere = torch.ones(envs, dtype=torch.bool, device=engine.device)
        self._never = torch.zeros(envs, dtype=torch.bool, device=engine.device)
        self._source = None if self._source is None else self._source.to(engine.device)
        self._before = self._progress().clone()

    def act(self, engine: Engine, action: Tensor) -> None:
        """Controls (E, nu) from actions (E, N, A), stretched to the actuators' range; v5 clips them first."""
        ctrl = self.scatter(action)
        if not self._old:
            ctrl = ctrl.clamp(-1.0, 1.0)
        else:
            # MuJoCo would clip an infinite command, and the control cost would still be infinite; NaN fails the physics
            ctrl = ctrl.masked_fill(ctrl.isinf(), torch.nan)
        self._ctrl.copy_(ctrl)
        if not self._unit_range:
            torch.add(self._middle, self._half * self._ctrl, out=self._ctrl)
        engine.set_field(self._everywhere, "ctrl", self._ctrl)
        self._before.copy_(self._progress())

    def scatter(self, action: Tensor) -> Tensor:
        """(E, N, A) -> (E, nu): every actuator's own number."""
        flat = action.flatten(1)
        return flat if self._source is None else flat.index_select(1, self._source)

    def reset(self, engine: Engine, mask: Tensor, noise: Noise) -> None:
        """Rest pose and rest velocity, each with the benchmark's noise."""
        qpos, qvel = self._start(noise)
        self._restart(engine, mask, qpos, qvel)

    def state(self, engine: Engine) -> Tensor:
        """(E, D): Gymnasium's observation of the whole robot."""
        return self._state64().to(self._dtype)

    def observe(self, state: Tensor) -> Tensor:
        dims = self.spec.dims
        if self._old:
            return standardised(state, self._agents)
        if self._view is None:
            return state.unsqueeze(-2).expand(*state.shape[:-1], dims.agents, dims.state)
        return self._view(state)

    def compute_reward(self, engine: Engine) -> Outcome:
        """The team's reward and whether the robot has fallen; computed in float64."""
        terminal = self._fallen()
        reward, terms = self._reward(terminal)
        return Outcome(reward.to(self._dtype), terminal, self._never, terms)

    # ---- optional ----------------------------------------------------------------------------------------------

    def physics_state(self) -> tuple[np.ndarray, np.ndarray]:
        position, velocity = (np.array(value.cpu(), dtype=np.float64) for value in (self._qpos, self._qvel))
        return position, velocity

    def set_physics_state(self, engine: Engine, qpos: Any, qvel: Any) -> Tensor:
        """See ``Task``; an environment that is there already keeps its contact forces and solver state."""
        position = torch.as_tensor(qpos, dtype=torch.float64, device=engine.device)
        velocity = torch.as_tensor(qvel, dtype=torch.float64, device=engine.device)
        if position.shape != self._qpos.shape or velocity.shape != self._qvel.shape:
            raise ValueError(f"qpos and qvel must be {tuple(self._qpos.shape)} and {tuple(self._qvel.shape)}")
        moved = (position != self._qpos).any(1) | (velocity != self._qvel).any(1)
        self._restart(engine, moved, position, velocity)
        engine.refresh(moved)
        return moved

    def pose(self, engine: Engine, state: Tensor) -> None:
        """See ``Task``. Coordinates that the state leaves out advance by one control step of their velocity."""
        if "qpos" not in self._blocks:  # the arms
            return super().pose(engine, state)
        shown = state.to(torch.float64)
        (first, last), (start, stop), hidden = self._blocks["qpos"], self._blocks["qvel"], self.state_fields["qpos"]
        velocity = shown[:, start:stop]
        travelled = self._qpos[:, :hidden] + self._dt * velocity[:, :hidden]
        self._restart(engine, self._everywhere, torch.cat([travelled, shown[:, first:last]], 1), velocity)

    # ---- what a robot defines ----------------------------------------------------------------------------------

    def _start(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """qpos (E, nq) and qvel (E, nv) of an episode's start."""
        scale = self._constant("reset_noise_scale")
        qpos = self._qpos0 + scale * noise.uniform(self.nq).to(torch.float64)
        draw = noise.normal(self.nv) if self.normal_velocity else noise.uniform(self.nv)
        return qpos, self._qvel0 + scale * draw.to(torch.float64)

    def _state64(self) -> Tensor:
        """(E, D) float64."""
        blocks = []
        for name, block in self._shown.items():
            limit = self.limits.get(name)
            blocks.append(block if limit is None else block.clamp(-limit, limit))
        if self._zeros:
            blocks.append(self._qpos.new_zeros(len(self._qpos), self._zeros))
        return torch.cat(blocks, 1)

    def _progress(self) -> Tensor:
        """(E,) the coordinate whose speed is rewarded (m)."""
        return self._qpos[:, 0]

    def _speed(self) -> Tensor:
        """(E,) m/s over the control step."""
        return (self._progress() - self._before) / self._dt

    def _effort(self) -> Tensor:
        """(E,) weighted sum of squared controls."""
        return self._constant("ctrl_cost_weight") * self._ctrl.square().sum(1)

    def _fallen(self) -> Tensor:
        """(E,) bool: the episode ends here."""
        return self._never

    def _upright(self, fallen: Tensor) -> Tensor:
        """(E,) the bonus for being healthy; -v2 paid it in the last step too."""
        healthy = torch.ones_like(fallen) if self._old else ~fallen
        return healthy * self._constant("healthy_reward")

    @abstractmethod
    def _reward(self, fallen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The reward (E,), added up in the benchmark's order, and its named parts; float64."""

    def _constant(self, name: str) -> float:
        return float(self.definition.constants[name])

    def _restart(self, engine: Engine, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        engine.set_field(mask, "qpos", qpos)
        engine.set_field(mask, "qvel", qvel)
        engine.set_field(mask, "ctrl", self._rest)


def _depth(obsk: str) -> int:
    if not obsk.isdecimal():
        raise UsageError(f"agent_obsk={obsk} is neither a depth (0, 1, 2, ...) nor full.")
    return int(obsk)
