"""``export``: a run's policy as a small folder that needs neither the run nor, as ONNX, this library (``run.zoo``)."""

import csv
import json
import logging
import os
import shlex
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
import yaml
from torch import Tensor

from dima_isaac.config import RunConfig, WandbConfig
from dima_isaac.errors import UsageError
from dima_isaac.run import sealed, zoo
from dima_isaac.run.atomic import write_atomic
from dima_isaac.run.catalog import Catalog, engine_config
from dima_isaac.run.checkpoint import FORMAT
from dima_isaac.run.plan import changes
from dima_isaac.schema import as_dict
from dima_isaac.tools import curves, runs
from dima_isaac.tools.config import ExportConfig
from dima_isaac.tools.evaluate import measure
from dima_isaac.tools.policies import Policy, policy_of
from dima_isaac.tools.restore import Restored, restore

COLUMNS = ("env_steps", "wall_time", "eval/return", "eval/success", "eval/length")


def main(cfg: ExportConfig, _: dict[str, str], compose: Callable[..., RunConfig], catalog: Catalog) -> int:
    """Measure the policy of a checkpoint on fresh episodes and write its folder."""
    missing = [module for module in ("onnx", "onnxscript") if find_spec(module) is None]
    if missing:
        raise UsageError(f"export needs {' and '.join(missing)}: pip install 'dima-isaac[onnx]'.")
    restored = restore(cfg, catalog)
    out = Path(os.path.expanduser(cfg.out)) if cfg.out else restored.run_folder / "policy"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}.") from error
    env = restored.build_env(min(cfg.num_envs, cfg.episodes), cfg.seed)
    try:
        policy = policy_of(restored, env.task)
        obs = env.reset().obs[:2].cpu()
        measured = measure(env, policy.act, cfg.episodes)
    finally:
        env.close()
    card = {
        "task": restored.cfg.task["name"],
        "algorithm": restored.cfg.algo.name,
        "env_steps": restored.env_steps,
        **write_curve(restored, out),
        "command": command(restored.cfg, restored.env_steps, compose),
        "commit": cfg.commit or _commit(restored.run_folder),
        "seed": restored.cfg.seed,
        "shape": vars(policy.spec.dims).copy(),
        "evaluation": {"episodes": cfg.episodes, **{key: round(value, 4) for key, value in measured.items()}},
    }
    run = replace(restored.cfg, run_dir="", experiment="", checkpoint="", wandb=WandbConfig())
    write(policy.cpu(), obs, run, restored.env_steps, out)
    write_atomic(out / "card.yaml", yaml.safe_dump(card, sort_keys=False))
    if out.resolve().parent == zoo.folder():
        write_atomic(zoo.folder() / "README.md", index())
    success = f", success {100 * measured['success']:.1f} %" if "success" in measured else ""
    print(f"exported    {out}  ({sum(path.stat().st_size for path in out.iterdir()) / 1e6:.2f} MB)")
    print(f"            return {measured['return_mean']:.4g}{success} over {cfg.episodes} episodes")
    return 0


def index() -> str:
    """The zoo's page, from its cards."""
    head = (
        "# Trained policies\n\n`python scripts/play.py checkpoint=zoo:NAME`; more in [python.md](../docs/python.md).\n"
    )
    lines = [head, "| name | task | algorithm | environment steps | minutes | return | success |", "|---" * 7 + "|"]
    for name in zoo.names():
        card = zoo.card(name)
        seen = card["evaluation"]
        spread = f" ± {seen['return_std']:.3g}" if seen["return_std"] else ", all episodes alike"
        success = f"{100 * seen['success']:.1f} %" if "success" in seen else "-"
        cells = [card["task"], card["algorithm"], f"{card['env_steps']:,}", str(card.get("minutes", "-"))]
        cells += [f"{seen['return_mean']:.4g}{spread}", success]
        lines.append(f"| [{name}]({name}/card.yaml) | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def write(policy: Policy, obs: Tensor, run: RunConfig, env_steps: int, out: Path) -> None:
    """The policy's files; ``obs`` (batch, N, O) is an example."""
    config = as_dict(run)
    content = {"format": FORMAT, "env_steps": env_steps, "config": config, "policy": policy.actor.state_dict()}
    sealed.save(out / zoo.WEIGHTS, content)
    write_atomic(out / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    with torch.no_grad():
        traced = torch.jit.freeze(torch.jit.trace(policy, obs, check_trace=False))
    buffer = BytesIO()
    torch.jit.save(traced, buffer)
    with ZipFile(buffer) as whole, ZipFile(out / "policy.pt", "w") as kept:
        for item in whole.infolist():
            if not item.filename.endswith(".debug_pkl"):  # places in source files of this machine
                kept.writestr(item, whole.read(item))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of every optional package that is not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about its own code
        program = torch.onnx.export(
            policy, (obs,), input_names=["obs"], output_names=["action"],
            dynamic_shapes={"obs": {0: torch.export.Dim("batch")}}, dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # the same places
    program.save(out / "policy.onnx", external_data=False)


def write_curve(restored: Restored, out: Path) -> dict[str, float]:
    """curve.csv of the run's evaluations, and curve.png where there is matplotlib; returns the minutes until then."""
    if not (restored.run_folder / "metrics.jsonl").is_file():
        return {}
    (run,) = runs.load([str(restored.run_folder)])
    run.rows = [row for row in run.rows if "eval/return" in row and (row["env_steps"] or 0) <= restored.env_steps]
    if not run.rows:
        return {}
    columns = [column for column in COLUMNS if column in run.rows[0]]
    with open(out / "curve.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(run.rows)
    if find_spec("matplotlib") is not None:
        run.rows = [{column: row.get(column) for column in columns} for row in run.rows]
        curves.learning_curves(runs.group([run]), "env_steps", out / "curve.png", [])
    return {"minutes": round((run.rows[-1]["wall_time"] or 0.0) / 60.0, 1)}


def command(cfg: RunConfig, env_steps: int, compose: Callable[..., RunConfig]) -> str:
    """What to type for the run ``cfg``: its choices, and every setting that is not what they give today."""
    chosen = {"task": cfg.task["name"], "algo": cfg.algo.name, "engine": cfg.engine["name"]}
    chosen |= {key: getattr(cfg, key) for key in ("preset", "scale") if getattr(cfg, key) != getattr(RunConfig, key)}
    chosen |= {"num_envs": cfg.num_envs, "seed": cfg.seed, "max_env_steps": env_steps}
    words = [f"{key}={value}" for key, value in chosen.items()]
    today = compose(*words)
    today.engine |= as_dict(engine_config(today.engine))
    differing = changes(as_dict(cfg), today)
    words += [f"{key}={'null' if was is None else was}" for key, (was, _) in differing.items()]
    return shlex.join(["python", "scripts/train.py", *words])


def _commit(folder: Path) -> str:
    """The commit that the run in ``folder`` noted, '' where it knew none."""
    try:
        noted: dict[str, Any] = json.loads((folder / "versions.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(noted.get("git", ""))[:7] + ("-dirty" if noted.get("git_dirty") else "")
