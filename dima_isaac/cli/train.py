"""``train``: one run from its configuration to its exit code, or several (``-m``), or one checkpoint's test."""

import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from termcolor import colored

from dima_isaac.cli import launch
from dima_isaac.cli.args import Args, parse
from dima_isaac.cli.compose import command_line, compose, multirun, structured
from dima_isaac.cli.main import announce, guarded
from dima_isaac.config import Algo, RunConfig
from dima_isaac.errors import UsageError
from dima_isaac.run.catalog import Catalog, described
from dima_isaac.run.folder import RESUME, RunFolder, find, has_begun
from dima_isaac.run.plan import Plan, plan
from dima_isaac.run.signals import ExitAtOnce, Signals
from dima_isaac.schema import as_dict, leaves

Row = dict[str, float | None]
"""A row of metrics.jsonl: always with env_steps and wall_time; None is what was not finite."""
Callback = Callable[[Row], Any]


def train(args: Args) -> int:
    """Train, continue a run, or with ``test=True`` evaluate a checkpoint."""
    catalog = Catalog(args.config_dir)
    _check_task(args, catalog)
    if args.multirun and args.show_config:
        raise UsageError("--cfg prints the values of one run; leave -m out.")
    if args.multirun and launch.is_rank():
        raise UsageError("-m under torchrun would make every run once per rank; give the runs gpus=N instead.")
    if args.multirun:
        return multirun(args)
    cfg = compose(args)
    if args.show_config:
        print(yaml.safe_dump(as_dict(cfg), sort_keys=False, allow_unicode=True), end="")
        return 0
    if cfg.test:
        if launch.is_rank() or cfg.gpus != 1:
            raise UsageError("test=True measures in one process: gpus=1, and no torchrun.")
        if not cfg.checkpoint:
            raise UsageError("test=True needs checkpoint=RUN|FILE|latest.")
        announce(cfg.checkpoint)
        from dima_isaac.tools import evaluate

        return evaluate.test(cfg, args.changes, catalog)
    return run(cfg, catalog)


def train_rows(values: Mapping[str, Any], callbacks: Iterable[Callback]) -> Generator[Row, None, None]:
    """``dima_isaac.train``: what the command line does with ``values`` as its key=value words, checked at once."""
    given = leaves(dict(values))  # a dictionary's entries by dotted keys: Python's text for one is not hydra's grammar
    args = parse("train", [f"{key}={'null' if value is None else value}" for key, value in given])
    catalog = Catalog(args.config_dir)
    _check_task(args, catalog)
    cfg = compose(args)
    if cfg.test:
        raise UsageError("test=True trains nothing; in Python that is load_policy(checkpoint).")
    if cfg.gpus != 1:
        raise UsageError(f"gpus={cfg.gpus} starts more processes, which Python's train does not; use scripts/train.py.")
    return rows(cfg, catalog, callbacks)


def job(cfg: DictConfig) -> int:
    """One run of a multirun; hydra calls it, here or on a cluster node."""
    launch.join_submitit()
    sys.argv = command_line()  # from which the command that continues the run is made
    with ExitAtOnce():  # until the run listens: submitit's own handler swallows SIGTERM
        code = guarded(lambda _: run(structured(cfg), Catalog()))
    if code:
        raise SystemExit(code)
    return code


def run(cfg: RunConfig, catalog: Catalog) -> int:
    """One training run from a checked configuration, or this rank's part of it; returns the exit code."""
    baseline = cfg.algo in (Algo.ppo, Algo.mappo)
    if baseline and (launch.is_rank() or cfg.gpus != 1):
        raise UsageError(f"algo={cfg.algo.name} learns in one process: gpus=1, and no torchrun.")
    if not launch.is_rank() and (number := launch.number(cfg)) > 1:
        plan(cfg)  # its errors are printed once, before there are several processes
        return launch.launch(number)
    signals = Signals()
    for _ in rows(cfg, catalog, (), signals):
        pass
    return signals.exit_code


def rows(
    cfg: RunConfig, catalog: Catalog, callbacks: Iterable[Callback], signals: Signals | None = None
) -> Generator[Row, None, None]:
    """One training run, giving each row of metrics once it is written; a baseline gives them all at its end.

    ``callbacks`` get each row at once. With ``signals`` it is the command line's run, which also prints its progress.
    """
    baseline, named = cfg.algo in (Algo.ppo, Algo.mappo), cfg.checkpoint not in ("", *RESUME)
    place = _joined(cfg) if launch.is_rank() else plan(cfg)
    if cfg.tensorboard and find_spec("tensorboard") is None:
        raise UsageError("tensorboard=True needs tensorboard: pip install 'dima-isaac[tensorboard]'.")
    if signals is not None:
        announce(cfg.checkpoint)
    from dima_isaac import ranks
    from dima_isaac.run import build, checkpoint
    from dima_isaac.run.display import say
    from dima_isaac.run.logger import Logger
    from dima_isaac.run.resolve import resolve_run
    from dima_isaac.tools.play import training_window
    from dima_isaac.training.build import loop_class

    if named:
        file = find(cfg.checkpoint)  # before a folder is made for nothing
        checkpoint.check_task(file, checkpoint.read(file), cfg.task["name"])
    cfg, reasons = ranks.after_first(partial(resolve_run, cfg, catalog, place.stored))  # an error is printed once
    build.set_global_state(cfg)
    watched: AbstractContextManager[Signals] = nullcontext(Signals()) if signals is None else signals
    share, first = int(cfg.num_envs) // ranks.count(), ranks.rank() == 0
    with (
        closing(build.build_env(cfg, share, ranks.seed(cfg.seed), cfg.train.learn.episode)) as env,
        closing(build.build_env(cfg, cfg.train.eval.episodes if first else 1, cfg.seed + build.EVALUATION)) as eval_env,
    ):
        build.check_fit(cfg, env)
        with training_window(env, first and not cfg.headless), _folder(place, cfg) as folder:
            if first:
                folder.write_config(cfg, reasons)
            if signals is not None:
                _print_head(cfg, reasons, folder, env.spec.notes)
            # wandb may wait long for its server; until the loop runs on all ranks a signal ends them at once
            logger = ranks.after_first(partial(Logger, folder, cfg, cfg.max_env_steps, show=signals is not None))
            with watched as stopped, closing(logger):
                written: list[Row] = []
                logger.callbacks += [written.append, *callbacks]
                if baseline:
                    from dima_isaac.training.baselines import train_baseline  # needs rl-games

                    train_baseline(cfg, cfg.algo is Algo.mappo, folder, env, eval_env, logger, stopped)
                else:
                    loop = loop_class(cfg)(cfg, folder, env, eval_env, logger, stopped)
                    with closing(loop.steps()) as steps:
                        for _ in steps:
                            yield from written
                            written.clear()
                    stopped.stop = stopped.stop or loop.stop
                yield from written
            if stopped.stop:
                if signals is not None:
                    signals.ignore()
                say(f"{stopped.stop}: saved. Continue with:\n  {folder.resume_command}")
            elif signals is not None and not baseline:
                say(f"{colored('finished', 'green')}    measure it: {folder.command('evaluate')}")
                say(f"            film it:    {folder.command('play')}")


def _joined(cfg: RunConfig) -> Plan:
    """Join the other ranks of one run, where rank 0 plans it."""
    from dima_isaac import ranks

    ranks.start()
    if ranks.rank():  # rank 0 prints for all; any rank may print an error
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  until the process ends
    return ranks.from_first(partial(plan, cfg))


def _folder(place: Plan, cfg: RunConfig) -> RunFolder:
    """The run's folder, locked by rank 0."""
    from dima_isaac import ranks

    own: list[RunFolder] = []

    def opened() -> Path:
        folder = RunFolder(place.path) if place.stored or cfg.run_dir else RunFolder.fresh(place.path)
        if place.stored is None and has_begun(folder.path):  # since it was planned
            folder.close()
            raise UsageError(f"another process has made a run in {folder.path}; choose another run_dir.")
        own.append(folder)
        return folder.path

    path = ranks.from_first(opened)
    return own[0] if own else RunFolder(path, lock=False)


def _check_task(args: Args, catalog: Catalog) -> None:
    if not any(text.startswith("task=") for text in args.overrides):
        raise UsageError(f"no task was given: add task=NAME. Known: {', '.join(catalog.names('task'))}.")


def _print_head(cfg: RunConfig, reasons: dict[str, str], folder: RunFolder, notes: Sequence[str]) -> None:
    """What runs, where, with which values in place of ``auto`` and why."""
    shown = {key: getattr(cfg, key) for key in ("sim_device", "rl_device", "num_envs", "threads", "compile")}
    shown = {"engine": described(cfg.engine), **shown, "precision": cfg.world_model.precision.name}
    why = {key: f"  (auto: {reasons[key].removeprefix(f'{shown[key]}: ')})" for key in shown if key in reasons}
    task = "\n            ".join([described(cfg.task), *notes])
    for key, value in {"task": task, **shown, "run": folder.path}.items():
        print(colored(f"{key:<12}", "cyan") + f"{value}" + why.get(key, ""))
    print(f"            Ctrl-C saves; continue with: {folder.resume_command}", flush=True)
