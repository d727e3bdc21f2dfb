"""What every two-handed task shares: the scene, the action map, the state and the reset.

The hand is an axis, not a prefix: joint tensors are (E, 2, 24), hand 0 is the benchmark's "right" hand (its agent 0),
hand 1 its "left" one; both are right hands unless ``left_hand=mirrored``. A task adds its props, its tail of the
state, and its outcome.

State, 2 x 187 (fixed base) or 2 x 199 (free base) numbers and then the task's tail, all clipped to +-5:

    24 joint positions on [-1, 1]    24 joint velocities x 0.2    24 joint drive forces x 10
    65 five fingertips x (pose 7, linear velocity 3, angular velocity 3)
    30 five fingertip contact wrenches x 10
    [6 base position and roll, pitch, yaw: free base only]
    20 or 26 last action ([force 3, torque 3,] joint targets 20)

An agent sees its hand's block and the tail.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dima_isaac.envs.agent_view import AgentView
from dima_isaac.envs.noise import Noise
from dima_isaac.envs.task import Task, TaskSpec
from dima_isaac.sim.engine import Engine, names_to_index
from dima_isaac.sim.rotations import rotate, to_rpy
from dima_isaac.sim.scene import Scene, Variation, Vec3
from dima_isaac.tasks.bidexhands.hands.agents import Agents
from dima_isaac.tasks.bidexhands.hands.config import LeftHand, TwoHandConfig
from dima_isaac.tasks.bidexhands.hands.hand import ACTUATED, JOINTS, PALM, TIPS
from dima_isaac.tasks.bidexhands.hands.layout import BASE_ACTIONS, StateLayout
from dima_isaac.tasks.bidexhands.hands.originals import with_original
from dima_isaac.tasks.bidexhands.hands.placement import HANDS, BasePoint, Hands
from dima_isaac.tasks.bidexhands.hands.starts import JointStart, Prop, RootStart, spawn_joints
from dima_isaac.types import Dims

FORCE_PER_ACTION = 1e5  # N per (action x control_dt x transition_scale)
TORQUE_PER_ACTION = 1e3  # N m per (action x control_dt x orientation_scale)
OBJECT_DAMPING = 0.5  # 1/s of angular velocity: Isaac Gym's default, which the benchmark left on every object
TIP_POINT: Vec3 = (0.0, 0.0, 0.02)  # in the distal link
PALM_POINT: Vec3 = (0.0, -0.02, 0.08)  # in the palm: its centre, on the inner side
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
_LEFT_NOTES = {
    LeftHand.right: "both hands are right hands, as published",
    LeftHand.mirrored: "hand 1 is a left hand, unlike the published benchmark",
}


class TwoHandTask(Task):
    """The shared part of a task; a task adds its scene, its ``tail`` and ``compute_reward``.

    A scene that depends on the configuration is set by a constructor before it calls this one.
    """

    cfg: TwoHandConfig
    name: str = ""  # empty: the class's
    hands: Hands
    props: Sequence[Prop] = ()
    tail_size: int = 0  # numbers that follow the hands' blocks
    objects: Sequence[int] = (0,)  # the tail's columns at each of which 13 numbers begin: the first props', in order
    links: Sequence[str] = ()  # read besides the hands' own
    camera: tuple[Vec3, Vec3] = ((0.75, -0.5, 1.0), (0.0, -0.5, 0.52))  # eye, target

    def __init__(self, cfg: TwoHandConfig) -> None:
        self.cfg = cfg
        if cfg.assets_root:
            self.props = [replace(p, actor=with_original(p.actor, cfg.assets_root)) for p in self.props]
        self._columns = StateLayout(self.hands.free, self.tail_size, self.objects)
        self._agents = Agents(cfg.hand_agent_index, self._columns.base)
        count, used = len(self._agents.names), self._agents.used
        views = [self._columns.seen_by(side) for side in range(len(HANDS)) for _ in range(count // len(HANDS))]
        self._view = AgentView(views, self._columns.width)
        begins = [first for first, prop in zip(self.objects, self.props, strict=False) if prop.actor.free]
        self.spec = TaskSpec(
            name=self.name or type(self).__name__,
            dims=Dims(agents=count, state=self._columns.width, obs=len(views[0]), action=used.shape[1]),
            episode_length=cfg.episode_length,
            control_dt=1.0 / 60.0,
            agent_names=self._agents.names,
            last_action_index=torch.where(used, self._columns.last_action()[self._agents.action], -1),
            object_columns=self._columns.positions(begins) if begins else None,
            action_mask=None if bool(used.all()) else used,
            notes=(f"profile={cfg.profile.value}", _LEFT_NOTES[cfg.left_hand]),
        )

    # ---- what a task adds --------------------------------------------------------------------------------------

    @abstractmethod
    def tail(self, engine: Engine) -> list[Tensor]:
        """The task's own numbers of the state, pieces (E, k) that add up to tail_size, as the engine has them.

        They are scaled and clipped together with the hands' blocks: an object's angular velocity x 0.2.
        """

    def describe_tail(self, index: int) -> str:
        """A short name of one number of the tail."""
        return f"object {index}"

    # ---- the task contract -------------------------------------------------------------------------------------

    def scene(self) -> Scene:
        """The hands, the props, and the links and sensors that are read."""
        tips = [f"{hand}/{tip}" for hand in HANDS for tip in TIPS]
        palms = [f"{hand}/{PALM}" for hand in HANDS] if self._reads_palms else []
        hands, props = self.hands.actors(self.cfg.left_hand), [prop.actor for prop in self.props]
        if not self.cfg.repaired(self.cfg.undamped_objects):
            props = [replace(prop, damping=(0.0, OBJECT_DAMPING)) if prop.free else prop for prop in props]
        if self.cfg.randomize:
            hands = [replace(hand, variation=HAND_VARIATION) for hand in hands]
            props = [prop if prop.marker else replace(prop, variation=OBJECT_VARIATION) for prop in props]
        return Scene(
            actors=[*hands, *props],
            links=[*tips, *palms, *self.links],
            force_sensors=tips,
            control_dt=self.spec.control_dt,
            camera_eye=self.camera[0],
            camera_target=self.camera[1],
            gravity_deviation=GRAVITY_DEVIATION if self.cfg.randomize else 0.0,
            variation_seed=self.cfg.randomize_seed,
        )

    @property
    def _reads_palms(self) -> bool:
        return self.hands.palms or (self.hands.free and self.hands.base_point is BasePoint.palm)

    def bind(self, engine: Engine) -> None:
        device, envs = engine.device, engine.num_envs
        # the engine's views keep their address, so slices of them can be made once
        self._actor = {name: index for index, name in enumerate(engine.actor_names)}
        self._roots = dict(zip(engine.actor_names, engine.root_state.unbind(1), strict=True))
        self._tip_frames = engine.body_state[:, : 2 * len(TIPS)].unflatten(1, (2, len(TIPS)))
        self._palm_frames = engine.body_state[:, 2 * len(TIPS) : 2 * len(TIPS) + 2]
        self._tip_point = torch.tensor(TIP_POINT, device=device).view(1, 1, 1, 3)
        self._palm_point = torch.tensor(PALM_POINT, device=device).view(1, 1, 3)
        driven = names_to_index(engine.dof_names, [f"{hand}/{joint}" for hand in HANDS for joint in ACTUATED], device)
        drives = [engine.actuator_dofs.tolist().index(dof) for dof in driven.tolist()]
        self._drive_of_action = torch.tensor(drives, dtype=torch.int64, device=device)
        self._all_drives = drives == list(range(len(engine.actuator_dofs)))
        lower, upper = engine.dof_lower[driven], engine.dof_upper[driven]
        self._middle, self._half_range = 0.5 * (lower + upper), 0.5 * (upper - lower)
        force = self.spec.control_dt * self.cfg.transition_scale * FORCE_PER_ACTION
        torque = self.spec.control_dt * self.cfg.orientation_scale * TORQUE_PER_ACTION
        self._wrench_gain = torch.tensor([force] * 3 + [torque] * 3, device=device)
        self._agents.to(device)
        dofs = names_to_index(engine.dof_names, [f"{hand}/{joint}" for hand in HANDS for joint in JOINTS], device)
        own_fingertips = self.cfg.repaired(self.cfg.own_fingertips)
        self._columns.bind(engine, dofs.view(2, len(JOINTS)), own_fingertips)
        self._bind_start(engine, dofs)
        self._last_action = torch.zeros(envs, 2, self._columns.actions, device=device)
        self._targets = self._start_pos[engine.actuator_dofs].expand(envs, -1).clone()

    def _bind_start(self, engine: Engine, hand_dofs: Tensor) -> None:
        """Where joints and roots start, and what an episode's start draws around that."""
        self._start_pos, self._start_vel = spawn_joints(engine, HANDS, self.hands.start, self.props)
        self._joint_start = JointStart(
            self._start_pos,
            engine.dof_lower,
            engine.dof_upper,
            hand_dofs.view(2, len(JOINTS)),
            self.cfg.reset_dof_noise,
            self.cfg.repaired(self.cfg.clamp_reset),
        )
        bases = [Prop(hand) for hand in self.hands.actors(self.cfg.left_hand) if self.hands.free]
        movers = [*bases, *(prop for prop in self.props if not prop.actor.fixed)]
        self._root_start = RootStart(movers, self.cfg.reset_position_noise, engine.device)

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
        hand = self._last_action = self._agents.by_hand(action.clamp(-1.0, 1.0))
        joints = hand[..., -len(ACTUATED) :].flatten(1)
        weight = self.cfg.action_smoothing
        if self.cfg.relative_control:
            last = self._targets[:, self._drive_of_action]
            wanted = last + self.cfg.dof_speed_scale * self.spec.control_dt * joints
            wanted = wanted.clamp(self._middle - self._half_range, self._middle + self._half_range)
        else:
            wanted = torch.addcmul(self._middle, joints, self._half_range)
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
        return self._columns.state(raw + self.tail(engine))

    def _base_pose(self, engine: Engine) -> Tensor:
        """(E, 2, 6): base position, then roll, pitch and yaw of the root."""
        roots = engine.root_state[:, : len(HANDS)]  # the scene's first actors
        point = self.palms() if self.hands.base_point is BasePoint.palm else roots[..., :3]
        return torch.cat([point, to_rpy(roots[..., 3:7])], -1)

    def observe(self, state: Tensor) -> Tensor:
        return self._view(state)

    def describe(self, index: int) -> str:
        return self._columns.describe(index) or self.describe_tail(index - 2 * self._columns.block)

    def pose_hands(self, engine: Engine, state: Tensor) -> None:
        """Stage the joints that ``state`` (E, D) shows, for pictures; other dofs go to their start."""
        pos = self._start_pos.repeat(engine.num_envs, 1)
        pos = pos.index_copy(1, self._columns.dofs, self._columns.joint_positions(state))
        everyone = torch.ones(engine.num_envs, dtype=torch.bool, device=engine.device)
        engine.set_dof_state(everyone, pos, torch.zeros_like(pos))

    def state_dict(self) -> dict[str, Tensor]:
        return {"last_action": self._last_action.clone(), "targets": self._targets.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._last_action = state["last_action"].to(self._last_action).clone()
        self._targets = state["targets"].to(self._targets).clone()

    # ---- what rewards are made of, after ``bind`` --------------------------------------------------------------

    def root(self, actor: str) -> Tensor:
        """Pose and velocity (E, 13) of an actor."""
        return self._roots[actor]

    def tips(self) -> Tensor:
        """The fingertip points (E, 2, 5, 3), order ff, mf, rf, lf, th."""
        return attached(self._tip_frames, self._tip_point)

    def palms(self) -> Tensor:
        """The palm centres (E, 2, 3), of a scene that reads the palms."""
        return attached(self._palm_frames, self._palm_point)


def attached(frame: Tensor, point: Tensor) -> Tensor:
    """World position (..., 3) of a point (..., 3) given in the axes of ``frame`` (..., 13)."""
    return frame[..., :3] + rotate(frame[..., 3:7], point)
