"""Success is reachable and starts are sound: the physics is put into a solved state, and into every start state."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dima_isaac import make
from dima_isaac.tasks.bidexhands.hands.handles import HandleTask
from tests.tasks.bidexhands.stage import Stage, everyone
from tests.tasks.bidexhands.test_suite import TASKS

Goal = dict[str, tuple[float, ...]]
UPRIGHT = (0.0, 0.0, 0.0, 1.0)


class World(Stage):
    """A stage whose physics, not only its views, is moved."""

    def move(self, actor: str, pos: tuple[float, ...], quat: tuple[float, ...] | None = None) -> World:
        """Stage an actor's root, at rest."""
        index = self.engine.actor_names.index(actor)
        keep = self.engine.root_state[0, index, 3:7].tolist()
        row = torch.tensor([[*pos, *(quat or keep), *([0.0] * 6)]])
        self.engine.set_root_state(everyone(self.env), index, row)
        return self

    def turn(self, **joints: float) -> World:
        """Stage joints, given as actor__joint."""
        pos = self.engine.dof_pos.clone()
        for name, value in joints.items():
            pos[0, self.engine.dof_names.index(name.replace("__", "/"))] = value
        self.engine.set_dof_state(everyone(self.env), pos, torch.zeros_like(pos))
        return self

    def settle(self) -> World:
        """Bring the views up to date."""
        self.engine.refresh(everyone(self.env))
        return self

    def bring(self, side: int, target: Tensor, by_palm: bool = False) -> World:
        """Shift a free hand so that its fingertips' centre (or its palm's) is at ``target`` (3,)."""
        place = self.task.palms()[0, side] if by_palm else self.task.tips()[0, side].mean(0)
        root = self.engine.root_state[0, self.engine.actor_names.index(f"hand{side}"), :3]
        return self.move(f"hand{side}", tuple((root + target - place).tolist()))


def catch(world: World) -> None:
    for actor in world.engine.actor_names:
        if actor.startswith("goal"):
            pose = world.engine.root_state[0, world.engine.actor_names.index(actor), :7].tolist()
            thing = next(
                n
                for n in (actor.replace("goal", "egg"), actor.replace("goal", "cube"))
                if n in world.engine.actor_names
            )
            world.move(thing, tuple(pose[:3]), tuple(pose[3:]))


def doors(angle: float) -> Callable[[World], None]:
    def put(world: World) -> None:
        world.turn(door__right_hinge=angle, door__left_hinge=angle)

    return put


def cap_off(world: World) -> None:
    world.turn(bottle__cap_lift=0.05)


def pot_up(world: World) -> None:
    world.move("pot", (0.0, -0.6, 0.84))


def stack(world: World) -> None:
    world.move("right", (0.0, 0.0, 0.625)).move("left", (0.0, 0.0, 0.675))


def push(world: World) -> None:
    own = world.task.cfg.repaired(world.task.cfg.own_goals)
    world.move("right", (-0.2, 0.2 if own else -0.14, 0.625)).move("left", (-0.2, -0.2, 0.625))


def place(world: World) -> None:
    world.move("cube", (0.0, 0.2, 0.632), UPRIGHT)


def pour(world: World) -> None:
    for ball in range(30):
        x, y = 0.012 * (ball % 5 - 2), 0.012 * (ball // 5 % 3 - 1)
        world.move(f"ball{ball}", (x, -0.3 + y, 0.41 + 0.012 * (ball // 15)))
    world.move("kettle", (0.0, 0.0, 0.65))


def press(world: World) -> None:
    world.turn(right__rocker_hinge=0.0, left__rocker_hinge=0.0)


def swing(world: World) -> None:
    world.move("mug", (0.0, 0.0, 0.684), (0.0, 0.0, 0.70710678, -0.70710678))


SOLUTIONS: dict[str, Callable[[World], None]] = {
    "ShadowHandOver": catch,
    "ShadowHandCatchUnderarm": catch,
    "ShadowHandTwoCatchUnderarm": catch,
    "ShadowHandCatchAbreast": catch,
    "ShadowHandCatchOver2Underarm": catch,
    "ShadowHandReOrientation": catch,
    "ShadowHandLiftUnderarm": pot_up,
    "ShadowHandDoorOpenInward": doors(1.4),
    "ShadowHandDoorOpenOutward": doors(1.4),
    "ShadowHandDoorCloseInward": doors(0.02),
    "ShadowHandDoorCloseOutward": doors(0.02),
    "ShadowHandBottleCap": cap_off,
    "ShadowHandPushBlock": push,
    "ShadowHandSwingCup": swing,
    "ShadowHandScissors": lambda world: world.turn(scissors__pivot=0.2),
    "ShadowHandGraspAndPlace": place,
    "ShadowHandBlockStack": stack,
    "ShadowHandKettle": pour,
    "ShadowHandPen": lambda world: world.turn(pen__cap_slide=0.2),
    "ShadowHandSwitch": press,
}
LASTING = {  # solved states that stay solved without the hands' help
    *(name for name in SOLUTIONS if "Door" in name),
    "ShadowHandPushBlock",
    "ShadowHandSwingCup",
    "ShadowHandScissors",
    "ShadowHandGraspAndPlace",
    "ShadowHandBlockStack",
    "ShadowHandKettle",
    "ShadowHandPen",
}
BY_PALM = {"ShadowHandLiftUnderarm"}


def test_every_task_has_a_solution():
    assert set(SOLUTIONS) == set(TASKS)


@pytest.mark.parametrize("profile", ["fixed", "compat"])
@pytest.mark.parametrize("name", SOLUTIONS)
def test_solved_states_fire_and_starts_do_not(name, profile):
    world = World(name, profile)
    start = float(world.compute_reward().reward)
    assert not world.success()
    SOLUTIONS[name](world)
    world.settle()
    if profile == "fixed" or name != "ShadowHandKettle":  # the published pouring has nothing to do with the bucket
        assert world.success()
    if isinstance(world.task, HandleTask):
        points = world.task.points()[0]
        world.bring(0, points[0], name in BY_PALM)
        world.bring(1, points[1], name in BY_PALM or name == "ShadowHandBottleCap")
        world.settle()
    assert float(world.compute_reward().reward) > start


@pytest.mark.parametrize("name", sorted(LASTING))
def test_solved_states_last(name):
    world = World(name)
    SOLUTIONS[name](world)
    world.settle()
    for _ in range(20):  # without the environment, which would end the episode: the hands are elsewhere
        world.engine.step(hold=~everyone(world.env))
    assert world.success()


AT_REST = {
    "ShadowHandLiftUnderarm": ["pot"],
    "ShadowHandPushBlock": ["right", "left"],
    "ShadowHandSwingCup": ["mug"],
    "ShadowHandScissors": ["scissors"],
    "ShadowHandGraspAndPlace": ["bucket", "cube"],
    "ShadowHandBlockStack": ["right", "left"],
    "ShadowHandKettle": ["kettle", "bucket", *(f"ball{i}" for i in (0, 14, 29))],
    "ShadowHandPen": ["pen"],
}


@pytest.mark.parametrize("name", AT_REST)
def test_things_start_at_rest_on_their_supports(name):
    world = World(name)
    rows = [world.engine.actor_names.index(actor) for actor in AT_REST[name]]
    before = world.engine.root_state[0, rows, :7].clone()
    joints = world.engine.dof_pos[0, 48:].clone()
    still = torch.zeros(1, 2, 26)
    for _ in range(30):
        world.env.step(still)
    after = world.engine.root_state[0, rows]
    assert (after[:, :3] - before[:, :3]).norm(dim=1).max() < 2e-3
    assert (after[:, 7:10]).norm(dim=1).max() < 0.02
    assert (world.engine.dof_pos[0, 48:] - joints).abs().max() < 0.02 if joints.numel() else True


def test_rockers_rest_at_their_upper_stop():
    world = World("ShadowHandSwitch")
    rockers = [world.engine.dof_names.index(f"{side}/rocker_hinge") for side in ("right", "left")]
    world.turn(right__rocker_hinge=0.2, left__rocker_hinge=0.2).settle()
    for _ in range(60):
        world.env.step(torch.zeros(1, 2, 26))
    assert world.engine.dof_pos[0, rockers].tolist() == pytest.approx([0.5585, 0.5585], abs=0.01)


def test_force_moves_a_base_like_a_velocity():
    """83.3 N at a = 1 and transition scale 0.05: about 0.027 m/s, reached within two control steps."""
    world = World("ShadowHandCatchUnderarm")
    action = torch.zeros(1, 2, 26)
    action[0, 0, 1] = 1.0
    root = world.engine.actor_names.index("hand0")
    speeds = []
    for _ in range(6):
        before = world.engine.root_state[0, root, :3].clone()
        world.env.step(action)
        speeds.append(60 * float((world.engine.root_state[0, root, :3] - before)[1]))
    assert speeds[-1] == pytest.approx(0.0277, rel=0.1)
    assert speeds[2] == pytest.approx(speeds[-1], rel=0.1)


def test_an_idle_hand_holds_the_bottle_for_an_episode():
    world = World("ShadowHandBottleCap")
    for _ in range(world.env.spec.episode_length - 1):
        assert not world.env.step(torch.zeros(1, 2, 26)).last.any()


def drive(name: str, steps: int, act: Callable[[int, Tensor], None]) -> World:
    """Play a script from the start until it succeeds."""
    world = World(name)
    for step in range(steps):
        action = torch.zeros(1, 2, 26)
        act(step, action[0])
        assert not world.env.step(action).last.any()
        if world.success():
            break
    return world


def test_pushing_hands_open_the_outward_door():
    def push(step: int, action: Tensor) -> None:
        action[:, 0], action[:, 6:] = -1.0, -0.6

    assert drive("ShadowHandDoorOpenOutward", 90, push).success()


def test_pressing_hands_press_the_switches():
    def press(step: int, action: Tensor) -> None:
        action[:, 2], action[:, 6:] = -1.0, -0.6
        action[:, 0] = -1.0 if step < 15 else 0.0

    assert drive("ShadowHandSwitch", 80, press).success()


@pytest.mark.parametrize("name", ["ShadowHandKettle", "ShadowHandPushBlock", "ShadowHandBottleCap"])
def test_position_noise_shifts_all_objects_equally_and_along_their_support(name):
    env = make(name, num_envs=200, engine="mujoco", seed=5, device="cpu", reset_position_noise=0.02)
    env.reset()
    free = [p.actor for p in env.task.props if not (p.actor.fixed or p.actor.marker)]
    start = torch.tensor([actor.pos for actor in free])
    shift = env.engine.root_state[:, [env.engine.actor_names.index(actor.name) for actor in free], :3] - start
    assert shift[..., 2].abs().max() < 1e-6
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-6)
    assert shift.abs().amax((0, 1))[:2].tolist() == pytest.approx([0.02, 0.02], abs=1e-3)
    env.close()
