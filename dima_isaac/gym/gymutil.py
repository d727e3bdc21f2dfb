"""``isaacgym.gymutil``: the arguments that every program takes, and simulation settings from a dictionary."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from dima_isaac.gym.rules import absent
from dima_isaac.gym.structs import SimParams, SimType, Vec3


def parse_device_str(device: str) -> tuple[str, int]:
    """``cuda:1`` as ("cuda", 1)."""
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or not (index or "0").isdigit():
        raise ValueError(f"the device '{device}' is neither cpu nor cuda:NUMBER")
    return kind, int(index or 0)


def parse_arguments(
    description: str = "Isaac Gym program",
    headless: bool = False,
    no_graphics: bool = False,
    custom_parameters: Sequence[Mapping[str, Any]] = (),
) -> argparse.Namespace:
    """Isaac Gym's own options and ``custom_parameters``, each with name, and type or action, default, help, choices."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--sim_device", default="cuda:0", help="cpu or cuda:NUMBER")
    parser.add_argument("--pipeline", default="gpu", help="where tensors are: cpu or gpu")
    parser.add_argument("--graphics_device_id", type=int, default=0)
    engine = parser.add_mutually_exclusive_group()
    engine.add_argument("--flex", action="store_true", help="FleX is not here: MuJoCo simulates")
    engine.add_argument("--physx", action="store_true", help="MuJoCo simulates")
    parser.add_argument("--num_threads", type=int, default=0)
    parser.add_argument("--subscenes", type=int, default=0)
    parser.add_argument("--slices", type=int, default=0)
    if headless:
        parser.add_argument("--headless", action="store_true", help="without a viewer")
    if no_graphics:
        parser.add_argument("--nographics", action="store_true", help="without a viewer and without cameras")
    for one in custom_parameters:
        parser.add_argument(one["name"], **{key: value for key, value in one.items() if key != "name"})
    args = parser.parse_args()
    args.sim_device_type, args.compute_device_id = parse_device_str(args.sim_device)
    args.use_gpu = args.sim_device_type == "cuda"
    args.use_gpu_pipeline = args.use_gpu and args.pipeline.lower() in ("gpu", "cuda")
    args.physics_engine = SimType.SIM_FLEX if args.flex else SimType.SIM_PHYSX
    if no_graphics and args.nographics:
        args.headless = True
    return args


def parse_sim_config(sim_cfg: Mapping[str, Any], sim_options: SimParams) -> None:
    """Copy ``sim_cfg`` into ``sim_options``; nested dictionaries into the members of their names."""
    for name, value in sim_cfg.items():
        if isinstance(value, Mapping):
            if hasattr(sim_options, name):
                parse_sim_config(value, getattr(sim_options, name))
        elif name == "gravity":
            sim_options.gravity = Vec3(*value)
        else:
            setattr(sim_options, name, value)


def _refuse(*arguments: Any, **named: Any) -> Any:
    raise NotImplementedError(
        "randomisation of physics while a program runs is not here: switch it off (task.randomize=False), or give every"
        " environment its properties before prepare_sim"
    )


# programs import them by name, and call them only where they randomise physics
get_property_setter_map = get_property_getter_map = get_default_setter_args = _refuse
apply_random_samples = check_buckets = generate_random_samples = _refuse

__getattr__ = absent("gymutil")
