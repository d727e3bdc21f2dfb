"""The command line: ``train``, ``evaluate``, ``play``, ``plot`` and ``bench``.

Nothing heavy is imported until what was typed has been checked: a wrong name, key or value costs a fraction of
a second, one sentence and exit code 2. Exit codes: 0 finished, 2 usage, 3 checkpoint, 4 simulation,
5 divergence, 6 worker, 75 saved and to be run again, 130 interrupted and saved.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dima_isaac.errors import DimaError, UsageError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dima_isaac.cli.overrides import Command
    from dima_isaac.config import RunConfig
    from dima_isaac.run.catalog import Catalog


PROGRAM = "DIMA_PROGRAM"
"""The variable that tells the jobs of a multirun what was typed to start it."""


def main(argv: Sequence[str] | None = None) -> int:
    """``dima train task=...``: the first word chooses the command."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    asked = words in (["-h"], ["--help"])
    print(f"usage: dima {{{','.join(COMMANDS)}}} key=value ...", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def train(argv: Sequence[str] | None = None) -> int:
    """Train, or continue, or (``test=True``) evaluate."""
    from dima_isaac.run.signals import Early

    with Early():
        return guarded(_train, argv)


def play(argv: Sequence[str] | None = None) -> int:
    """Watch a policy: a video, or a window where there is a display."""
    return guarded(lambda words: _tool("play", words), argv)


def evaluate(argv: Sequence[str] | None = None) -> int:
    """Measure a policy over many episodes, beside doing nothing and acting at random."""
    return guarded(lambda words: _tool("evaluate", words), argv)


def plot(argv: Sequence[str] | None = None) -> int:
    """Draw learning curves, probes and dreams."""
    return guarded(lambda words: _tool("plot", words), argv)


def bench(argv: Sequence[str] | None = None) -> int:
    """Measure speed."""
    return guarded(lambda words: _tool("bench", words), argv)


def guarded(command: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run ``command`` on the command line's words and return its exit code.

    What the user can mend is told in one sentence, without a traceback.
    """
    # torch's idle threads would spin on the cores where the physics threads run; read when torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return command(list(sys.argv[1:] if argv is None else argv))
    except DimaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "dima_isaac":
            raise
        print(f"missing: {error.name} -> pip install -e .", file=sys.stderr)
        return UsageError.exit_code
    except RuntimeError as error:  # torch and Warp both tell a full GPU this way
        reason = " ".join(str(error).split()).partition(". ")[0]
        if not re.search(r"out of memory|Failed to allocate \d+ bytes", reason):
            raise
        print(f"error: memory is full ({reason}); lower num_envs, replay.capacity or scale.", file=sys.stderr)
        return UsageError.exit_code
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror}{where}; make room, or choose another folder.", file=sys.stderr)
        return UsageError.exit_code
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # nobody listens any more; Python would complain about it once more on leaving
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _train(argv: list[str]) -> int:
    from dima_isaac.cli.overrides import check, parse
    from dima_isaac.run.catalog import Catalog

    command = parse(argv)
    catalog = Catalog(command.config_dir)
    if command.help:
        print(usage(catalog))
        return 0
    overrides = check(command, catalog)
    if not any(text.startswith("task=") for text in overrides):
        raise UsageError(f"no task was given: add task=NAME. Known: {', '.join(catalog.names('task'))}.")
    if command.multirun and command.show:
        raise UsageError("--cfg prints the values of one run; leave -m out.")
    if command.multirun:
        return _multirun(command, overrides)
    cfg = compose(command, overrides)
    if command.show:
        _print_config(cfg)
        return 0
    if cfg.test:
        if not cfg.checkpoint:
            raise UsageError("test=True needs checkpoint=RUN|FILE|latest.")
        _before_heavy_imports(cfg.checkpoint)
        from dima_isaac.tools import evaluate as report

        return report.test(cfg, catalog)
    return run(cfg, catalog)


def _tool(name: str, argv: list[str]) -> int:
    """One of the programs around training. It composes a run's configuration only if it has no checkpoint's."""
    from importlib import import_module

    from dima_isaac.cli import options
    from dima_isaac.cli.overrides import Command, check
    from dima_isaac.run.catalog import Catalog

    asked = options.parse(name, argv)
    if asked.help:
        print(options.usage(name))
        return 0
    catalog = Catalog(asked.config_dir)
    command = Command(asked.overrides, asked.config_dir)
    checked = [] if getattr(asked.cfg, "checkpoint", "") else check(command, catalog)

    def composed(*more: str) -> RunConfig:
        return compose(command, [*checked, *more])

    _before_heavy_imports(getattr(asked.cfg, "checkpoint", ""))
    return int(import_module(options.TOOLS[name][1]).main(asked.cfg, asked.changes, composed, catalog))


def compose(command: Command, overrides: list[str]) -> RunConfig:
    """The typed configuration of one run.

    Raises:
        UsageError: whatever hydra or the schema refuse.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from dima_isaac.schema import summary

    register_schema()
    search = [f"hydra.searchpath=[file://{os.path.abspath(command.config_dir)}]"] if command.config_dir else []
    try:
        with initialize_config_module("dima_isaac.cfg", version_base="1.3"):
            cfg = hydra_compose("config", overrides=[*search, *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        raise UsageError(summary(cause)) from error
    return structured(cfg)


def structured(cfg: DictConfig) -> RunConfig:
    """What hydra composed as dataclasses, with the task's values that its YAML leaves to its dataclass.

    Raises:
        UsageError: a key that does not exist, a value of another type or out of range.
    """
    from dima_isaac.config import typed
    from dima_isaac.run.catalog import complete

    run = typed(cfg)
    return replace(run, task=complete(run.task))


def register_schema() -> None:
    """Make ``RunConfig`` known to hydra as the first entry of cfg/config.yaml's defaults."""
    from hydra.core.config_store import ConfigStore

    from dima_isaac.config import RunConfig

    ConfigStore.instance().store(name="run_schema", node=RunConfig)


def run(cfg: RunConfig, catalog: Catalog) -> int:
    """One training run from a checked configuration; returns the exit code."""
    from dima_isaac.config import Algo
    from dima_isaac.run.folder import CONTINUE, RunFolder, find, plan, read_config

    place, baseline = plan(cfg), cfg.algo is not Algo.dima
    if baseline and (place.stored is not None or cfg.checkpoint not in ("", *CONTINUE)):
        what = place.path if place.stored is not None else f"checkpoint={cfg.checkpoint}"
        raise UsageError(f"algo={cfg.algo.name} cannot continue {what}; leave checkpoint out, in a new folder.")
    _before_heavy_imports(cfg.checkpoint)
    from dima_isaac.run import build, checkpoint
    from dima_isaac.run.logger import Logger, say
    from dima_isaac.run.signals import Signals
    from dima_isaac.tools.play import training_window
    from dima_isaac.train.baselines import train_baseline
    from dima_isaac.train.trainer import Trainer

    if cfg.checkpoint not in ("", *CONTINUE):
        file = find(cfg.checkpoint)  # before a folder is made for nothing
        checkpoint.check_task(file, checkpoint.read(file), cfg.task["name"])
    resolved, reasons = build.resolve_run(cfg, catalog, place.stored)
    build.set_global_state(resolved)
    env = build.build_env(resolved, int(resolved.num_envs), resolved.seed, resolved.train.learn.episode)
    build.check_fit(resolved, env.spec)
    eval_env = build.build_env(resolved, resolved.train.eval.episodes, resolved.seed + 1_000_003)
    named = place.stored is not None or resolved.run_dir
    try:
        with (
            training_window(env, not resolved.headless),
            RunFolder(place.path) if named else RunFolder.fresh(place.path) as folder,
            Signals() as signals,
        ):
            if place.stored is None and read_config(folder.path) is not None:  # since it was planned
                raise UsageError(f"another process has made a run in {folder.path}; choose another run_dir.")
            folder.write_config(resolved, reasons)
            again = "" if baseline else folder.resume_command
            _banner(resolved, reasons, folder.path, env.spec.notes, again)
            logger = Logger(folder, resolved, resolved.max_env_steps)
            try:
                if baseline:
                    train_baseline(resolved, resolved.algo is Algo.mappo, folder, env, eval_env, logger, signals)
                else:
                    Trainer(resolved, folder, env, eval_env, logger, signals).run()
            finally:
                logger.close()
            if signals.stop:
                say(f"{signals.stop}: saved." + (f" Continue with:\n  {again}" if again else ""))
            elif not baseline:
                say(f"finished    measure it: {folder.command('evaluate')}")
                say(f"            film it:    {folder.command('play')}")
            return signals.exit_code
    finally:
        env.close()
        eval_env.close()


def _multirun(command: Command, overrides: list[str]) -> int:
    """Several runs through hydra's launcher (basic, joblib, submitit ...), chosen with ``hydra/launcher=``."""
    import hydra

    from dima_isaac.run.catalog import CONFIG_DIR

    _check_sweep(command, overrides)
    register_schema()
    words = ["-m", *overrides]
    if command.config_dir:
        words += ["--config-dir", os.path.abspath(command.config_dir)]
        os.environ[CONFIG_DIR] = os.path.abspath(command.config_dir)  # the jobs' catalogue needs it too
    os.environ[PROGRAM] = sys.argv[0]  # a job that submitit starts is another program
    before, sys.argv = sys.argv, [sys.argv[0], *words]
    try:
        hydra.main(version_base="1.3", config_path="pkg://dima_isaac.cfg", config_name="config")(job)()
    finally:
        sys.argv = before
        del os.environ[PROGRAM]
    return 0


def _check_sweep(command: Command, overrides: list[str]) -> None:
    """Compose every run of a sweep before the first one starts: the turn of a bad value would come hours later.

    Raises:
        UsageError: whatever one of them would be refused for, or a launcher that is not there.
    """
    from importlib.util import find_spec

    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from dima_isaac.cli.overrides import Command, check
    from dima_isaac.run.catalog import Catalog
    from dima_isaac.schema import summary

    for text in overrides:
        if text.startswith("hydra/launcher=submitit_") and find_spec("submitit") is None:
            raise UsageError(f"{text} needs submitit: pip install 'dima-isaac[slurm]'.")
    if any(text.startswith("hydra/sweeper=") for text in overrides):
        return  # it has its own idea of what a value stands for
    try:
        runs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)[0]
    except HydraException as error:
        raise UsageError(summary(error)) from error
    catalog, folders = Catalog(command.config_dir), set()
    for words in runs:
        cfg = compose(command, check(Command(words, command.config_dir), catalog))
        if cfg.test:
            raise UsageError("test=True measures one checkpoint; leave -m out.")
        if cfg.run_dir in folders:
            raise UsageError(f"run_dir={cfg.run_dir} is one run's; experiment=NAME gives each run a folder of its own.")
        folders |= {cfg.run_dir} - {""}


def job(cfg: Any) -> int:
    """One run of a multirun; hydra calls it, here or on a cluster node."""
    from hydra.core.hydra_config import HydraConfig

    from dima_isaac.run.catalog import Catalog

    # what would have been typed for this run alone: the command that continues it is made from these words
    folder = os.environ.get("DIMA_CONFIG_DIR")
    program = os.environ.get(PROGRAM, sys.argv[0])
    start = [] if program.endswith(".py") else ["train"]
    sys.argv = [program, *start, *(["--config-dir", folder] if folder else []), *HydraConfig.get().overrides.task]

    try:
        code = run(structured(cfg), Catalog())
    except DimaError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    if code:
        raise SystemExit(code)
    return code


def usage(catalog: Catalog) -> str:
    """What can be typed, from the schema and the YAML files."""
    import textwrap

    from dima_isaac.cli.options import described
    from dima_isaac.config import RunConfig

    lines = ["usage: python scripts/train.py task=NAME [key=value ...]", ""]
    for group in ("task", "engine", "preset", "scale"):
        names = f"{group + '=':<8}{', '.join(catalog.names(group))}"
        lines += textwrap.wrap(names, 112, subsequent_indent=" " * 8)
    lines += ["", *described(RunConfig, 32)]
    lines += [
        "",
        "flags: -m (several runs: seed=1,2,3), --config-dir DIR (your own YAML), --cfg (print every value and stop)",
        "layers: world_model.denoiser.reveal=joint, agent.gamma=0.96, train.eval.every=10000, task.KEY, engine.KEY",
    ]
    return "\n".join(lines)


def _print_config(cfg: RunConfig) -> None:
    import yaml

    from dima_isaac.schema import as_dict

    print(yaml.safe_dump(as_dict(cfg), sort_keys=False, allow_unicode=True), end="")


def _banner(cfg: RunConfig, reasons: dict[str, str], path: Any, notes: Sequence[str], again: str) -> None:
    print(f"task        {cfg.task['name']}")
    for note in notes:
        print(f"            {note}")
    shown = {key: getattr(cfg, key) for key in ("sim_device", "rl_device", "num_envs", "threads", "compile")}
    for key, value in {"engine": cfg.engine["name"], **shown, "precision": cfg.world_model.precision.name}.items():
        print(f"{key:<12}{value}" + (f"  (auto: {reasons[key].removeprefix(f'{value}: ')})" if key in reasons else ""))
    print(f"run         {path}")
    after = f"continue with: {again}" if again else "a baseline cannot be continued"
    print(f"            Ctrl-C saves; {after}", flush=True)


def _before_heavy_imports(checkpoint: str) -> None:
    """Refuse a ``checkpoint`` that is not there, and say that something begins: torch takes seconds to import."""
    from dima_isaac.run.folder import CONTINUE, find

    if checkpoint not in ("", *CONTINUE):
        find(checkpoint)
    if "torch" not in sys.modules:
        print("starting ...", flush=True)


COMMANDS: dict[str, Callable[[Sequence[str] | None], int]] = {
    "train": train,
    "evaluate": evaluate,
    "play": play,
    "plot": plot,
    "bench": bench,
}
