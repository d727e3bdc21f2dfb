"""``python -m dima_isaac.gym [--engine ...] SCRIPT ...``: run a program of Isaac Gym on our engines."""

import argparse
import runpy
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

from dima_isaac.errors import DimaError, UsageError

_PARTS = ("gymapi", "gymtorch", "gymutil", "torch_utils")


def modules() -> dict[str, ModuleType]:
    """``isaacgym`` and its parts, for ``sys.modules``."""
    package = ModuleType("isaacgym")
    package.__path__ = []
    parts = {name: import_module(f"dima_isaac.gym.{name}") for name in _PARTS}
    vars(package).update(parts)
    return {"isaacgym": package, **{f"isaacgym.{name}": part for name, part in parts.items()}}


def main(argv: list[str]) -> int:
    """Run the script that ``argv`` names with the arguments after it; its own exit code is the program's."""
    parser = argparse.ArgumentParser(prog="python -m dima_isaac.gym", description=__doc__)
    engines = ("auto", "mujoco", "mujoco_warp")
    parser.add_argument("--engine", default="auto", choices=engines, help="auto: as the program's pipeline")
    parser.add_argument("--substeps", type=_count, default=0, help="physics steps per simulate; 0: of 1/240 s or finer")
    parser.add_argument("--threads", type=_count, default=0, help="of MuJoCo on the CPU; 0: every core")
    parser.add_argument("script", help="the program; what follows is for it")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    try:
        script = Path(args.script)
        if not script.is_file():
            raise UsageError(f"there is no program {script.absolute()}")
        from dima_isaac.gym.simulation import SETTINGS

        SETTINGS.engine, SETTINGS.substeps, SETTINGS.threads = args.engine, args.substeps, args.threads
        sys.modules.update(modules())
        sys.argv = [str(script), *args.arguments]
        sys.path.insert(0, str(script.parent.resolve()))
        runpy.run_path(str(script), run_name="__main__")
    except DimaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _count(word: str) -> int:
    if not word.isdigit():
        raise argparse.ArgumentTypeError(f"{word} is not 0, 1, 2 ...")
    return int(word)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
