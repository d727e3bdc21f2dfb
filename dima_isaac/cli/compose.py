"""Hydra's part: composing a run's configuration from YAML files and words, and launching several runs (``-m``)."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dima_isaac.cli.args import Args, parse
from dima_isaac.config import RunConfig, typed
from dima_isaac.errors import DimaError, UsageError
from dima_isaac.run.catalog import CONFIG_DIR, Catalog, complete
from dima_isaac.schema import summary

if TYPE_CHECKING:
    from omegaconf import DictConfig

PROGRAM = "DIMA_PROGRAM"
"""The variable that tells the jobs of a multirun what was typed to start it."""


def compose(args: Args, *more: str) -> RunConfig:
    """The configuration of one run, from ``args`` and ``more`` overrides.

    Raises:
        UsageError: whatever hydra or the schema refuse.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register_schema()
    search = [f"hydra.searchpath=[file://{os.path.abspath(args.config_dir)}]"] if args.config_dir else []
    try:
        with initialize_config_module("dima_isaac.cfg", version_base="1.3"):
            cfg = hydra_compose("config", overrides=[*search, *args.overrides, *more])
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
        raise UsageError(summary(cause)) from error
    return structured(cfg)


def structured(cfg: DictConfig) -> RunConfig:
    """What hydra composed as dataclasses, with the task's values that its YAML leaves to its dataclass.

    Raises:
        UsageError: a key that does not exist, a value of another type or out of range.
    """
    run = typed(cfg)
    return replace(run, task=complete(run.task))


def register_schema() -> None:
    """Make ``RunConfig`` known to hydra as the first entry of cfg/config.yaml's defaults."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="run_schema", node=RunConfig)


def multirun(args: Args) -> int:
    """Several runs through hydra's launcher (basic, joblib, submitit ...), chosen with ``hydra/launcher=``.

    Raises:
        UsageError: what any of the runs would be refused for, before the first one starts.
    """
    import hydra

    check_sweep(args)
    register_schema()
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
    """Compose every run of a sweep: the turn of a bad value would come hours later.

    Raises:
        UsageError: whatever one of them would be refused for, or a launcher that is not there.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for text in args.overrides:
        if text.startswith("hydra/launcher=submitit_") and find_spec("submitit") is None:
            raise UsageError(f"{text} needs submitit: pip install 'dima-isaac[slurm]'.")
    if any(text.startswith("hydra/sweeper=") for text in args.overrides):
        return  # it has its own idea of what a value stands for
    try:
        runs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(args.overrides), None)[0]
    except HydraException as error:
        raise UsageError(summary(error)) from error
    folders, folder = set(), ["--config-dir", args.config_dir] if args.config_dir else []
    for words in runs:
        cfg = compose(parse("train", [*words, *folder]))
        if cfg.test:
            raise UsageError("test=True measures one checkpoint; leave -m out.")
        if cfg.run_dir in folders:
            raise UsageError(f"run_dir={cfg.run_dir} is one run's; experiment=NAME gives each run a folder of its own.")
        folders |= {cfg.run_dir} - {""}


def job(cfg: Any) -> int:
    """One run of a multirun; hydra calls it, here or on a cluster node."""
    from hydra.core.hydra_config import HydraConfig

    from dima_isaac.cli.train import run

    # what would have been typed for this run alone: the command that continues it is made from these words
    folder = os.environ.get(CONFIG_DIR)
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
