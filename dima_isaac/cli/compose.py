"""Hydra's part: composing a run's configuration from YAML files and words, and launching several runs (``-m``)."""

import os
import sys
from dataclasses import replace
from importlib.util import find_spec

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from dima_isaac.cli.args import Args, parse
from dima_isaac.config import Algo, RunConfig, is_read, typed
from dima_isaac.errors import UsageError
from dima_isaac.run.catalog import CONFIG_DIR, complete
from dima_isaac.schema import summary

PROGRAM = "DIMA_PROGRAM"
"""The environment variable with the program that a multirun was started by, for its jobs."""

ConfigStore.instance().store(name="run_schema", node=RunConfig)  # the first entry of cfg/config.yaml's defaults


def compose(args: Args, *more: str) -> RunConfig:
    """The configuration of one run, from ``args`` and ``more`` overrides.

    Raises:
        UsageError: whatever hydra or the schema refuse.
    """
    search = [f"hydra.searchpath=[file://{os.path.abspath(args.config_dir)}]"] if args.config_dir else []
    try:
        with hydra.initialize_config_module("dima_isaac.cfg", version_base="1.3"):
            cfg = structured(hydra.compose("config", overrides=[*search, *args.overrides, *more]))
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        raise UsageError(summary(cause)) from error
    if not more:
        _check_effect(cfg, args.keys)
    return cfg


def _check_effect(cfg: RunConfig, keys: dict[str, str]) -> None:
    """Raise ``UsageError`` for one of ``keys`` that changes nothing in ``cfg``."""
    algo, learner = cfg.algo, cfg.agent.learner
    for key, text in keys.items():
        if is_read(key, algo, learner) and not (algo is Algo.sac and key == "agent.learner" and text != "sac"):
            continue
        which, cure = f"algo={algo.name} is rl-games with cfg/rl_games.yaml", "take algo=dima"
        if algo is Algo.sac:
            which = "algo=sac is SAC without a world model"
        elif algo is Algo.dima:
            other = next(kind for kind in type(learner) if kind is not learner)
            which, cure = f"policies learn by agent.learner={learner.name}", f"take agent.learner={other.name}"
        raise UsageError(f"{key} changes nothing here: {which}. Leave {key} out, or {cure}.")


def structured(cfg: DictConfig) -> RunConfig:
    """What hydra composed as dataclasses, with the task's values that its YAML leaves to its dataclass."""
    run = typed(cfg)
    return replace(run, task=complete(run.task))


def multirun(args: Args) -> int:
    """Several runs through hydra's launcher (basic, joblib, submitit ...), chosen with ``hydra/launcher=``."""
    from dima_isaac.cli.train import job

    check_sweep(args)
    if not os.access(".", os.W_OK) and not any(text.startswith("hydra.sweep.dir=") for text in args.overrides):
        raise UsageError("-m writes multirun/ into this folder, which is read-only; hydra.sweep.dir=FOLDER is another.")
    words = ["-m", *args.overrides]
    if args.config_dir:
        words += ["--config-dir", os.path.abspath(args.config_dir)]
        os.environ[CONFIG_DIR] = os.path.abspath(args.config_dir)  # the jobs' catalogue needs it too
    os.environ[PROGRAM] = sys.argv[0]  # a job that submitit starts is another program
    before, sys.argv = sys.argv, [sys.argv[0], *words]
    try:
        hydra.main(version_base="1.3", config_path="pkg://dima_isaac.cfg", config_name="config")(job)()
    finally:
        sys.argv = before
        del os.environ[PROGRAM]
    return 0


def check_sweep(args: Args) -> None:
    """Compose every run of a sweep now: a bad value would otherwise be refused hours later, when its run starts.

    Raises:
        UsageError: whatever one of them would be refused for, or a launcher that is not there.
    """
    for text in args.overrides:
        if text.startswith("hydra/launcher=submitit_") and find_spec("submitit") is None:
            raise UsageError(f"{text} needs submitit: pip install 'dima-isaac[slurm]'.")
        if text.startswith("hydra/sweeper="):
            return  # other sweepers read values in their own way
    try:
        runs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(args.overrides), None)[0]
    except HydraException as error:
        raise UsageError(summary(error)) from error
    folder = ["--config-dir", args.config_dir] if args.config_dir else []
    places: set[str] = set()
    for words in runs:
        cfg = compose(parse("train", [*words, *folder]))
        if cfg.test:
            raise UsageError("test=True measures one checkpoint; leave -m out.")
        if cfg.run_dir in places:
            raise UsageError(f"run_dir={cfg.run_dir} is one run's; experiment=NAME gives each run a folder of its own.")
        places |= {cfg.run_dir} - {""}


def command_line() -> list[str]:
    """Inside a job of a multirun: the command line that would have started this run alone."""
    folder, program = os.environ.get(CONFIG_DIR), os.environ.get(PROGRAM, sys.argv[0])
    start = [] if program.endswith(".py") else ["train"]
    return [program, *start, *(["--config-dir", folder] if folder else []), *HydraConfig.get().overrides.task]
