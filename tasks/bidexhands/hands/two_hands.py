"""What every two-handed task shares: the scene, the action map, the observation layout and the reset.

The hand is an axis, not a prefix: joint tensors are (E, 2, 24), hand 0 is the benchmark's "right" hand (its agent 0),
hand 1 its "left" one; both are right hands unless ``left_hand=mirrored``. A task adds its props, its tail of the
state, and its outcome.

State, 2 x 187 (fixed base) or 2 x 199 (free base) numbers and then the task's tail, all clipped to +-5:

    24 joint positions on [-1, 1]    24 joint velocities x 0.2    24 joint drive forces x 10
    65 five fingertips x (pose 7, linear velocity 3, angular velocity 3)
    30 five fingertip contact wrenches x 10
    [6 base position and roll, pitch, yaw: free base only]
    20 or 26 last action ([force 3, torque 3,] joint targets 20)

An agent sees its hand's block and the tail. The layout is data: raw numbers are concatenated once, gathered by one
index and scaled by one row.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import torch
from torch import Tensor

from dima_isaac.envs.noise import Noise
from dima_isaac.envs.task import Outcome, Task, TaskSpec
from dima_isaac.errors import UsageError
from dima_isaac.sim.engine import Engine, names_to_index
from dima_isaac.sim.rotations import from_rpy, rotate, to_rpy
from dima_isaac.sim.scene import Actor, Scene, Variation, Vec3
from dima_isaac.tasks.bidexhands.hands.config import LeftHand, TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.hand import ACTUATED, FOREARM, JOINTS, PALM, PARTS, TIPS, shadow_hand
from dima_isaac.tasks.bidexhands.hands.originals import with_original
from dima_isaac.tasks.bidexhands.hands.starts import JointStart, Prop, RootStart
from dima_isaac.types import Dims

HANDS = ("hand0", "hand1")
STATE_LIMIT = 5.0  # part of the published layout: forces saturate at 0.5 N
BASE_ACTIONS = 6
FORCE_PER_ACTION = 1e5  # N per (action x control_dt x transition_scale)
TORQUE_PER_ACTION = 1e3  # N m per (action x control_dt x orientation_scale)
BASE_DAMPING = (100.0, 100.0)
TIP_POINT: Vec3 = (0.0, 0.0, 0.02)  # in the distal link
HAND_VARIATION = Variation(  # the published ranges; published for hand 0 only, here for both
    mass=(0.5, 1.5),
    friction=(0.7, 1.3),
    damping=(0.3, 3.0),
    stiffness=(0.75, 1.5),
    coupling_damping=(0.3, 3.0),
    coupling_stiffness=(0.75, 1.5),
    limit_shift=0.01,
)
OBJECT_VARIATION = Variation(mass=(0.5, 1.5), friction=(0.7, 1.3), scale=(0.95, 1.05))
GRAVITY_DEVIATION = 0.4  # m/s^2
PALM_POINT: Vec3 = (0.0, -0.02, 0.08)  # in the palm: its centre, on the inner side


class BasePoint(Enum):
    """What the three base position numbers of a free hand are."""

    root = "root"
    palm = "palm"


_LEFT_NOTES = {
    LeftHand.right: "both hands are right hands, as published",
    LeftHand.mirrored: "hand 1 is a left hand, unlike the published benchmark",
}


@dataclass(frozen=True)
class Hands:
    """Where the two hands are and what holds them."""

    pos: tuple[Vec3, Vec3]
    rpy: tuple[Vec3, Vec3] = ((0.0, 0.0, 0.0), (0.0, 0.0, math.pi))
    free: bool = True
    base_point: BasePoint = BasePoint.root
    palms: bool = False  # whether the palm links are read (``TwoHandTask.palms``)
    friction: float = 1.0
    self_collision: bool = False
    start: dict[str, float] = field(default_factory=dict)  # joints that do not start at 0, for both hands

    def actors(self, left: LeftHand = LeftHand.right) -> list[Actor]:
        """The two hands of the scene."""
        return [
            Actor(
                name,
                shadow_hand(mirrored=side == 1 and left is LeftHand.mirrored),
                pos=self.pos[side],
                quat=from_rpy(*self.rpy[side]),
                fixed=not self.free,
                gravity=False,
                friction=self.friction,
                damping=BASE_DAMPING if self.free else (0.0, 0.0),
                wrench=FOREARM if self.free else "",
                self_collision=self.self_collision,
            )
            for side, name in enumerate(HANDS)
        ]


class TwoHandTask(Task):
    """The shared part of a task; a task adds ``tail`` and ``compute_reward``."""

    def __init__(
        self,
        name: str,
        cfg: TwoHandConfig,
        hands: Hands,
        props: Sequence[Prop],
        tail_size: int,
        things: Sequence[int] = (0,),
        links: Sequence[str] = (),
        camera: tuple[Vec3, Vec3] = ((0.75, -0.5, 1.0), (0.0, -0.5, 0.52)),
        notes: Sequence[str] = (),
    ) -> None:
        """``tail_size`` numbers follow the hands' blocks; a thing's 13 begin at each of the tail's columns ``things``.

        ``links`` are read besides the hands' own.

        Raises:
            UsageError: a ``hand_agent_index`` that does not hand out every part exactly once.
        """
        self.cfg, self.hands, self.props, self._camera = cfg, hands, list(props), camera
        if cfg.assets_root:
            self.props = [replace(p, actor=with_original(p.actor, cfg.assets_root)) for p in self.props]
        self._extra_links, self._tail_size, self._things = tuple(links), tail_size, list(things)
        base = BASE_ACTIONS if hands.free else 0
        self._per_hand = base + len(ACTUATED)
        self._block = 3 * len(JOINTS) + len(TIPS) * (13 + 6) + base + self._per_hand
        agents = _agents_of_hand(cfg.hand_agent_index, base)
        width = max(len(slots) for slots in agents)
        count = 2 * len(agents)
        state = 2 * self._block + tail_size
        source = torch.empty(2, self._per_hand, dtype=torch.int64)
        last_action_index = torch.full((count, width), -1, dtype=torch.int64)
        used = torch.zeros(count, width, dtype=torch.bool)
        for side in range(2):
            for k, slots in enumerate(agents):
                agent = side * len(agents) + k
                mine = torch.tensor(slots)
                source[side, mine] = agent * width + torch.arange(len(slots))
                last_action_index[agent, : len(slots)] = (side + 1) * self._block - self._per_hand + mine
                used[agent, : len(slots)] = True
        # where each number of the hands' actions comes from, in the flattened (N, A) action; None: in order
        flat = source.flatten()
        self._action_index = None if torch.equal(flat, torch.arange(len(flat))) else flat
        block = torch.arange(self._block)
        tail = 2 * self._block + torch.arange(tail_size)
        views = [torch.cat([side * self._block + block, tail]) for side in range(2) for _ in agents]
        self._view = torch.cat(views)  # (N * O,)
        names = tuple(hand if len(agents) == 1 else f"{hand}/{k}" for hand in HANDS for k in range(len(agents)))
        self.spec = TaskSpec(
            name=name,
            dims=Dims(agents=count, state=state, obs=len(views[0]), action=width),
            episode_length=cfg.episode_length,
            control_dt=1.0 / 60.0,
            agent_names=names,
            last_action_index=last_action_index,
            action_mask=None if bool(used.all()) else used,
            notes=(f"profile={cfg.profile.value}", _LEFT_NOTES[cfg.left_hand], *notes),
        )

    # ---- what a task adds --------------------------------------------------------------------------------------

    @abstractmethod
    def tail(self, engine: Engine) -> list[Tensor]:
        """The task's own numbers of the state, pieces (E, k) that add up to tail_size, as the engine has them.

        They are scaled and clipped together with the hands' blocks: a thing's angular velocity x 0.2.
        """

    @abstractmethod
    def compute_reward(self, engine: Engine) -> Outcome:
        """Reward, termination and success of the state just reached."""

    # ---- the task protocol -------------------------------------------------------------------------------------

    def scene(self) -> Scene:
        """The hands, the props, and the links and sensors that are read."""
        tips = [f"{hand}/{tip}" for hand in HANDS for tip in TIPS]
        palms = [f"{hand}/{PALM}" for hand in HANDS] if self._reads_palms else []
        hands, props = self.hands.actors(self.cfg.left_hand), [prop.actor for prop in self.props]
        if self.cfg.randomize:
            hands = [replace(hand, variation=HAND_VARIATION) for hand in hands]
            props = [prop if prop.marker else replace(prop, variation=OBJECT_VARIATION) for prop in props]
        return Scene(
            actors=[*hands, *props],
            links=[*tips, *palms, *self._extra_links],
            force_sensors=tips,
            control_dt=self.spec.control_dt,
            camera_eye=self._camera[0],
            camera_target=self._camera[1],
            gravity_deviation=GRAVITY_DEVIATION if self.cfg.randomize else 0.0,
            variation_seed=self.cfg.randomize_seed,
        )

    @property
    def _reads_palms(self) -> bool:
        return self.hands.palms or (self.hands.free and self.hands.base_point is BasePoint.palm)

    def bind(self, engine: Engine) -> None:
        """Resolve names to indices on the engine's device and allocate what is remembered."""
        device, envs = engine.device, engine.num_envs
        self._actor = {name: index for index, name in enumerate(engine.actor_names)}
        # the engine's views keep their address, so slices of them can be made once
        self._roots = dict(zip(engine.actor_names, engine.root_state.unbind(1), strict=True))
        self._links = dict(zip(engine.link_names, engine.body_state.unbind(1), strict=True))
        self._tip_frames = engine.body_state[:, : 2 * len(TIPS)].unflatten(1, (2, len(TIPS)))
        self._palm_frames = engine.body_state[:, 2 * len(TIPS) : 2 * len(TIPS) + 2]
        self._tip_point = torch.tensor(TIP_POINT, device=device).view(1, 1, 1, 3)
        self._palm_point = torch.tensor(PALM_POINT, device=device).view(1, 1, 3)
        dofs = names_to_index(engine.dof_names, [f"{hand}/{joint}" for hand in HANDS for joint in JOINTS], device)
        driven = names_to_index(engine.dof_names, [f"{hand}/{joint}" for hand in HANDS for joint in ACTUATED], device)
        drives = [engine.actuator_dofs.tolist().index(dof) for dof in driven.tolist()]
        self._drive_of_action = torch.tensor(drives, dtype=torch.int64, device=device)
        self._all_drives = drives == list(range(len(engine.actuator_dofs)))
        lower, upper = engine.dof_lower[driven], engine.dof_upper[driven]
        self._middle, self._reach = 0.5 * (lower + upper), 0.5 * (upper - lower)
        self._hand_dofs = dofs.view(2, len(JOINTS))
        force = self.spec.control_dt * self.cfg.transition_scale * FORCE_PER_ACTION
        torque = self.spec.control_dt * self.cfg.orientation_scale * TORQUE_PER_ACTION
        self._wrench_gain = torch.tensor([force] * 3 + [torque] * 3, device=device)
        if self._action_index is not None:
            self._action_index = self._action_index.to(device)
        self._bind_layout(engine)
        self._bind_start(engine)
        self._last_action = torch.zeros(envs, 2, self._per_hand, device=device)
        self._targets = self._start_pos[engine.actuator_dofs].expand(envs, -1).clone()

    def reset(self, engine: Engine, mask: Tensor, noise: Noise) -> None:
        """Stage the start of an episode where ``mask`` (E,): joints, roots, targets; the last action becomes 0."""
        u, *draws = noise.uniforms(self._joint_start.draw, *self._root_start.draws)
        pos = self._joint_start.positions(u)
        engine.set_dof_state(mask, pos, self._start_vel.expand_as(pos))
        driven = pos.index_select(1, engine.actuator_dofs)
        self._targets = torch.where(mask.unsqueeze(1), driven, self._targets)
        engine.set_dof_target(self._targets)
        self._last_action = self._last_action.masked_fill(mask[:, None, None], 0.0)
        roots = self._root_start.states(draws, engine.num_envs).unbind(1)
        for name, root in zip(self._root_start.names, roots, strict=True):
            engine.set_root_state(mask, self._actor[name], root)

    def act(self, engine: Engine, action: Tensor) -> None:
        """Stage joint targets, and forces on free bases, for ``action`` (E, N, A), clipped to [-1, 1]."""
        hand = action.clamp(-1.0, 1.0).flatten(1)
        if self._action_index is not None:
            hand = hand.index_select(1, self._action_index)
        hand = self._last_action = hand.view(-1, 2, self._per_hand)
        joints = hand[..., -len(ACTUATED) :].flatten(1)
        weight = self.cfg.action_smoothing
        if self.cfg.relative_control:
            last = self._targets[:, self._drive_of_action]
            wanted = last + self.cfg.dof_speed_scale * self.spec.control_dt * joints
            wanted = wanted.clamp(self._middle - self._reach, self._middle + self._reach)
        else:
            wanted = torch.addcmul(self._middle, joints, self._reach)
        if weight != 1.0:
            wanted = torch.lerp(self._targets[:, self._drive_of_action], wanted, weight)
        self._targets = wanted if self._all_drives else self._targets.index_copy(1, self._drive_of_action, wanted)
        engine.set_dof_target(self._targets)
        if self.hands.free:
            self._push(engine, hand)

    def _push(self, engine: Engine, hand: Tensor) -> None:
        """Force and torque on each forearm, in world axes, for one control step."""
        wrench = hand[..., :BASE_ACTIONS] * self._wrench_gain
        for side, name in enumerate(HANDS):
            engine.apply_force(self._actor[name], wrench[:, side, :3], wrench[:, side, 3:])

    def state(self, engine: Engine) -> Tensor:
        """The global state (E, D): both hands' blocks, then the tail, clipped."""
        raw = [
            engine.dof_pos,
            engine.dof_vel,
            engine.dof_force,
            engine.body_state.flatten(1),
            engine.force_sensor.flatten(1),
            self._last_action.flatten(1),
        ]
        if self.hands.free:
            raw.append(self._base_pose(engine).flatten(1))
        raw += self.tail(engine)
        state = torch.addcmul(self._shift, torch.cat(raw, 1).index_select(1, self._gather), self._scale)
        return state.clamp_(-STATE_LIMIT, STATE_LIMIT)

    def observe(self, state: Tensor) -> Tensor:
        """What each agent sees: (..., D) -> (..., N, O), its hand's block and the tail. Pure."""
        if self._view.device != state.device:
            self._view = self._view.to(state.device)
        dims = self.spec.dims
        return state.index_select(-1, self._view).unflatten(-1, (dims.agents, dims.obs))

    def describe(self, index: int) -> str:
        """A short name of one number of the state, for figures."""
        side, k = divmod(index, self._block)
        if side > 1:
            return self.describe_tail(index - 2 * self._block)
        for size, name in (
            *((len(JOINTS), kind) for kind in ("joint angle", "joint speed", "joint force")),
            *((13 * len(TIPS), "fingertip"), (6 * len(TIPS), "fingertip force")),
            *((BASE_ACTIONS if self.hands.free else 0, "base"), (self._per_hand, "last action")),
        ):
            if k < size:
                return f"{HANDS[side]} {JOINTS[k] if size == len(JOINTS) else ''} {name} {k}".replace("  ", " ")
            k -= size
        raise IndexError(index)

    def describe_tail(self, index: int) -> str:
        """A short name of one number of the task's own part."""
        return f"object {index}"

    def pose_hands(self, engine: Engine, state: Tensor) -> None:
        """Stage the joints that ``state`` (E, D) shows, for pictures; other dofs go to their start."""
        shown = torch.nonzero(self._gather < len(engine.dof_names)).flatten()
        angles = (state[:, shown] - self._shift[shown]) / self._scale[shown]
        pos = self._start_pos.repeat(engine.num_envs, 1).index_copy(1, self._gather[shown], angles)
        everyone = torch.ones(engine.num_envs, dtype=torch.bool, device=engine.device)
        engine.set_dof_state(everyone, pos, torch.zeros_like(pos))

    def state_dict(self) -> dict[str, Tensor]:
        """Last actions and targets."""
        return {"last_action": self._last_action.clone(), "targets": self._targets.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict``."""
        self._last_action = state["last_action"].to(self._last_action).clone()
        self._targets = state["targets"].to(self._targets).clone()

    # ---- points that rewards are made of -----------------------------------------------------------------------

    def root(self, engine: Engine, actor: str) -> Tensor:
        """Pose and velocity (E, 13) of an actor."""
        return self._roots[actor]

    def link(self, engine: Engine, link: str) -> Tensor:
        """Pose and velocity (E, 13) of a registered link."""
        return self._links[link]

    def tips(self, engine: Engine) -> Tensor:
        """The fingertip points (E, 2, 5, 3), order ff, mf, rf, lf, th."""
        return attached(self._tip_frames, self._tip_point)

    def palms(self, engine: Engine) -> Tensor:
        """The palm centres (E, 2, 3)."""
        return attached(self._palm_frames, self._palm_point)

    # ---- construction ------------------------------------------------------------------------------------------

    def _base_pose(self, engine: Engine) -> Tensor:
        """(E, 2, 6): base position, then roll, pitch and yaw of the root."""
        roots = engine.root_state[:, : len(HANDS)]  # the scene's first actors
        point = self.palms(engine) if self.hands.base_point is BasePoint.palm else roots[..., :3]
        return torch.cat([point, to_rpy(roots[..., 3:7])], -1)

    def _bind_layout(self, engine: Engine) -> None:
        """The gather and the affine map from raw engine numbers to the state."""
        dofs, links = len(engine.dof_names), len(engine.link_names)
        sensors = engine.force_sensor.shape[1]
        start = {"pos": 0, "vel": dofs, "force": 2 * dofs, "link": 3 * dofs}
        start["wrench"] = start["link"] + 13 * links
        start["action"] = start["wrench"] + 6 * sensors
        start["base"] = start["action"] + 2 * self._per_hand
        start["tail"] = start["base"] + (2 * BASE_ACTIONS if self.hands.free else 0)
        index: list[int] = []
        scale: list[float] = []
        shift: list[float] = []

        def add(columns: list[int], factor: float | list[float] = 1.0, offset: list[float] | None = None) -> None:
            index.extend(columns)
            scale.extend(factor if isinstance(factor, list) else [factor] * len(columns))
            shift.extend(offset or [0.0] * len(columns))

        for side in range(2):
            joints = self._hand_dofs[side].tolist()
            lower, upper = engine.dof_lower[joints], engine.dof_upper[joints]
            span = upper - lower
            add(joints, (2.0 / span).tolist(), (-(upper + lower) / span).tolist())
            add([start["vel"] + j for j in joints], 0.2)
            add([start["force"] + j for j in joints], 10.0)
            tips, base = len(TIPS), BASE_ACTIONS if self.hands.free else 0
            add([start["link"] + 13 * tips * side + k for k in range(13 * tips)])
            add([start["wrench"] + 6 * tips * side + k for k in range(6 * tips)], 10.0)
            add([start["base"] + base * side + k for k in range(base)])
            add([start["action"] + self._per_hand * side + k for k in range(self._per_hand)])
        tail = torch.ones(self._tail_size)
        for first in self._things:
            tail[first + 10 : first + 13] = 0.2
        add([start["tail"] + k for k in range(self._tail_size)], tail.tolist())
        self._gather = torch.tensor(index, dtype=torch.int64, device=engine.device)
        self._scale = torch.tensor(scale, device=engine.device)
        self._shift = torch.tensor(shift, device=engine.device)

    def _bind_start(self, engine: Engine) -> None:
        """Spawn joints (dofs,), and what an episode's start draws around them."""
        pos = torch.zeros(len(engine.dof_names))
        vel = torch.zeros(len(engine.dof_names))
        starts = {f"{hand}/{joint}": value for hand in HANDS for joint, value in self.hands.start.items()}
        speeds: dict[str, float] = {}
        for prop in self.props:
            starts.update({f"{prop.actor.name}/{joint}": value for joint, value in prop.joints.items()})
            speeds.update({f"{prop.actor.name}/{joint}": value for joint, value in prop.joint_vel.items()})
        pos[names_to_index(engine.dof_names, list(starts))] = torch.tensor(list(starts.values()))
        vel[names_to_index(engine.dof_names, list(speeds))] = torch.tensor(list(speeds.values()))
        self._start_pos, self._start_vel = pos.to(engine.device), vel.to(engine.device)
        self._joint_start = JointStart(
            self._start_pos,
            engine.dof_lower,
            engine.dof_upper,
            self._hand_dofs,
            self.cfg.reset_dof_noise,
            self.cfg.repaired(self.cfg.clamp_reset),
        )
        bases = [Prop(hand) for hand in self.hands.actors(self.cfg.left_hand) if self.hands.free]
        movers = [*bases, *(prop for prop in self.props if not prop.actor.fixed)]
        self._root_start = RootStart(movers, self.cfg.reset_position_noise, engine.device)


def _agents_of_hand(index: list[list[int]], base: int) -> list[list[int]]:
    """The slots of a hand's action that each of its agents holds."""
    if sorted(part for parts in index for part in parts) != list(range(len(PARTS))) or not all(index):
        raise UsageError(
            f"hand_agent_index={index} must hand out parts 0 to 5 exactly once, as [[0,1,2,3,4,5]] (one agent "
            "per hand), [[0],[1,2,3,4,5]] (two) or [[0],[1],[2],[3],[4],[5]] (six)"
        )
    slots = [[base + ACTUATED.index(joint) for joint in part] for part in PARTS]
    slots[0] = [*range(base), *slots[0]]
    return [[slot for part in parts for slot in slots[part]] for parts in index]


def attached(frame: Tensor, point: Tensor) -> Tensor:
    """World position (..., 3) of a point (..., 3) given in the axes of ``frame`` (..., 13)."""
    return frame[..., :3] + rotate(frame[..., 3:7], point)
