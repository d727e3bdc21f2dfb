"""play, evaluate, plot and bench end to end on tiny runs of the toy game (and one look at real hands)."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dima_isaac.cli import main as cli
from dima_isaac.cli.options import TOOLS
from dima_isaac.errors import CheckpointError, UsageError
from dima_isaac.tools import curves, play, plot
from dima_isaac.tools.curves import Group, Run
from dima_isaac.train import video
from dima_isaac.world_model.config import Reveal
from tests.toy import toy_env

ROOT = Path(__file__).resolve().parents[2]
TOY = ["--config-dir", str(ROOT / "tests" / "cfg")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two seeds of the toy game."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        words = ["train", *TOY, "task=Toy", "engine=toy", "preset=smoke", f"seed={seed}", f"run_dir={folder}/{seed}"]
        words += ["max_env_steps=384", "threads=1", "train.probe_every=128", "train.eval.every=64"]
        assert cli.main(words) == 0
    return folder


def test_a_missing_matplotlib_names_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.plot([str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: plot needs matplotlib: pip install 'dima-isaac[plot]'.\n"


def last_json(text: str) -> dict:
    return json.loads(text.strip().splitlines()[-1])


def not_blank(path: Path) -> bool:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    return min(pixels.shape[:2]) > 200 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


# ---- evaluate ----------------------------------------------------------------------------------------------------


def test_evaluate_reports_policy_baselines_and_probe(runs, capsys):
    words = [f"checkpoint={runs}/0", "num_envs=4", "episodes=10", "baseline=True", "probe=True", "threads=1"]
    assert cli.main(["evaluate", *TOY, *words]) == 0
    said = capsys.readouterr().out
    line = last_json(said)
    assert list(line["policies"]) == ["trained", "zero", "random"] and line["env_steps"] == 384
    for result in line["policies"].values():
        assert result["return_min"] <= result["return_iqm_low"] <= result["return_iqm"] <= result["return_iqm_high"]
        assert 0.0 <= result["success"] <= 1.0 and 1.0 <= result["length"] <= 20.0
    probe = line["probe"]
    assert len(probe["model"]) == len(probe["repeat"]) == len(probe["linear"]) == 15
    assert len(probe["sensitivity_true"]) == 2 and "open-loop error" in said
    assert probe["reveal"] in Reveal.__members__ and f"reveal={probe['reveal']}" in said


def test_the_same_question_has_the_same_answer(runs, capsys):
    answers = []
    for count in (2, 8):  # more environments at once, the same episodes numbered otherwise
        for _ in range(2):
            cli.main(["evaluate", *TOY, f"checkpoint={runs}/0", f"num_envs={count}", "episodes=8", "threads=1"])
            answers.append(last_json(capsys.readouterr().out)["policies"])
    assert answers[0] == answers[1] and answers[2] == answers[3] != answers[0]


def test_doing_nothing_needs_no_checkpoint(capsys):
    words = ["task=Toy", "engine=toy", "agent=zero", "num_envs=3", "episodes=3", "task.episode_length=5", "threads=1"]
    assert cli.main(["evaluate", *TOY, *words]) == 0
    line = last_json(capsys.readouterr().out)
    assert line["policies"]["zero"]["length"] == 5.0 and line["checkpoint"] is None


def test_where_there_is_no_goal_no_success_is_told(capsys):
    words = ["task=HalfCheetah", "engine=mujoco", "agent=zero", "num_envs=2", "episodes=2", "task.episode_length=5"]
    assert cli.main(["evaluate", *words, "threads=1"]) == 0
    said = capsys.readouterr().out
    assert last_json(said)["policies"]["zero"]["length"] == 5.0 and "length" in said and "success" not in said


def test_lengths_are_drawn_where_nobody_has_a_goal(tmp_path):
    row = {"env_steps": 1.0, "eval/return": 2.0, "eval/length": 3.0}
    robot, hand = Run(tmp_path, {}, [row]), Run(tmp_path, {}, [row | {"eval/success": 0.0}])
    assert [panel[0] for panel in plot.panels([robot], "env_steps")] == ["eval/return", "eval/length"]
    assert [panel[0] for panel in plot.panels([robot, hand], "env_steps")] == ["eval/return", "eval/success"]


def test_train_test_true_evaluates(runs, capsys):
    words = ["task=Toy", "engine=toy", "test=True", f"checkpoint={runs}/1", "num_envs=4", "threads=1"]
    assert cli.main(["train", *TOY, *words]) == 0
    assert last_json(capsys.readouterr().out)["env_steps"] == 384


def test_a_torn_last_checkpoint_gives_way_to_an_intact_one(runs, tmp_path, capsys):
    shutil.copytree(runs / "0" / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "last.pt").write_bytes(b"torn")
    words = [f"checkpoint={tmp_path}", "num_envs=2", "episodes=2", "threads=1"]
    assert cli.main(["evaluate", *TOY, *words]) == 0
    said = capsys.readouterr().out
    assert "Taking step_384.pt." in said and last_json(said)["checkpoint"].endswith("step_384.pt")


def test_a_checkpoint_brings_no_code_along(runs, tmp_path):
    """Whatever target a file names, the catalogue's is used."""
    from dima_isaac.cli.options import EvaluateConfig
    from dima_isaac.run import checkpoint
    from dima_isaac.run.catalog import Catalog
    from dima_isaac.tools.restore import restore

    state = checkpoint.read(runs / "0" / "checkpoints" / "last.pt")
    state["config"]["task"]["target"] = "os:system"
    state["config"]["engine"]["target"] = "os:system"
    checkpoint.save(tmp_path / "evil.pt", state)
    restored = restore(str(tmp_path / "evil.pt"), Catalog(TOY[1]), EvaluateConfig(threads=1))
    assert restored.cfg.task["target"] == "tests.toy_plugin:Toy"
    assert restored.cfg.engine["target"] == "tests.toy_plugin:ToyPhysics"


# ---- plot --------------------------------------------------------------------------------------------------------


def test_plot_draws_curves_probes_and_a_table(runs, tmp_path, capsys):
    assert cli.main(["plot", str(runs), f"out={tmp_path}", "reference=hand-made:1.5"]) == 0
    said = capsys.readouterr().out
    for name in ("curves_env_steps.png", "curves_wall_time.png", "probes.png"):
        assert not_blank(tmp_path / name) and name in said
    table = (tmp_path / "results.md").read_text()
    assert table.startswith("| group |") and "| Toy | 2 | 384 |" in table


def test_plot_draws_the_open_loop_figure(runs, tmp_path):
    words = ["open_loop=True", f"checkpoint={runs}/0", f"out={tmp_path}", "num_envs=4", "threads=1"]
    assert cli.main(["plot", *TOY, *words]) == 0
    assert not_blank(tmp_path / "open_loop.png")


def run_of(values: list[float], at: list[int], **config) -> Run:
    rows = [{"env_steps": x, "wall_time": 10.0 * x, "eval/return": y} for x, y in zip(at, values, strict=True)]
    return Run(Path("x"), {"task": {"name": "Toy"}, **config}, rows)


def test_runs_are_grouped_by_what_they_differ_in():
    runs = [run_of([1.0], [0], seed=seed, agent={"gamma": gamma}) for gamma in (0.9, 0.99) for seed in (0, 1, 2)]
    groups = curves.group(runs)
    assert [(one.label, len(one.runs)) for one in groups] == [("gamma=0.9", 3), ("gamma=0.99", 3)]
    assert curves.group(runs[:3])[0].label == "Toy"


def test_a_setting_that_older_runs_did_not_have_tells_nobody_apart():
    old, new, other = ({"gamma": 0.9}, {"gamma": 0.9, "new": 1}, {"gamma": 0.9, "new": 2})
    pair = curves.group([run_of([1.0], [0], agent=agent) for agent in (old, new)])
    assert [(one.label, len(one.runs)) for one in pair] == [("Toy", 2)]
    all_three = curves.group([run_of([1.0], [0], agent=agent) for agent in (old, new, other)])
    assert [one.label for one in all_three] == ["new=None", "new=1", "new=2"]


def test_groups_that_differ_in_much_go_by_their_folders():
    runs = [run_of([1.0], [0], agent={"a": n, "b": n, "c": n, "d": n}) for n in range(2)]
    for n, run in enumerate(runs):
        run.path = Path(f"runs/try{n}")
    assert [one.label for one in curves.group(runs)] == ["try0", "try1"]


def test_a_preset_speaks_for_all_that_it_sets():
    runs = [run_of([1.0], [0], preset=preset, agent={"gamma": gamma}) for preset, gamma in (("a", 0.9), ("b", 0.99))]
    assert [one.label for one in curves.group(runs)] == ["preset=a", "preset=b"]


def test_bands_cover_the_common_stretch():
    """y = x and y = 3 x on grids that differ: on 1 .. 3 the mean is 2 x, between x and 3 x."""
    one = Group("", [run_of([0.0, 3.0], [0, 3]), run_of([3.0, 6.0, 12.0], [1, 2, 4])])
    band = one.band("eval/return", "env_steps")
    np.testing.assert_allclose(band.x, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(band.mean, [2.0, 4.0, 6.0])
    assert (band.low == band.x).all() and (band.high == 3 * band.x).all()
    assert Group("", one.runs[:1]).band("eval/return", "env_steps") is None


def test_a_figure_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    figure = plot._matplotlib().figure()
    path = plot._save(figure, tmp_path / "a.png", tight=False)
    before = path.read_bytes()
    monkeypatch.setattr("dima_isaac.run.folder.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(UsageError, match=r"cannot write .*a\.png: full"):
        plot._save(plot._matplotlib().figure(), path, tight=False)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["a.png"]


def test_broken_lines_and_missing_numbers_are_skipped(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"env_steps": 1, "eval/return": null}\n{"env_steps": 2, "eval/return": 5.0}\n{"odd": 1}\n\xff\n{"env_st'
    )
    [run] = curves.load([str(tmp_path)])
    x, y = run.curve("eval/return", "env_steps")
    assert x.tolist() == [2.0] and y.tolist() == [5.0] and len(run.rows) == 2


def test_a_garbled_configuration_costs_the_other_runs_nothing(tmp_path, capsys):
    for name, config in (("good", "task: {name: Toy}"), ("torn", "task: ["), ("undated", "a: 2026-99-99")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text('{"env_steps": 2, "eval/return": 5.0}\n')
        (tmp_path / name / "config.yaml").write_text(config)
    assert [run.path.name for run in curves.load([str(tmp_path)])] == ["good"]
    assert capsys.readouterr().out.count("That run is passed over.") == 2
    with pytest.raises(CheckpointError, match=r"torn/config\.yaml cannot be read"):  # it was asked for
        curves.load([f"{tmp_path}/good", f"{tmp_path}/torn"])
    (tmp_path / "good" / "config.yaml").write_text("- 3")
    with pytest.raises(UsageError, match="nothing has been logged yet in any run that can be read"):
        curves.load([str(tmp_path)])


# ---- play --------------------------------------------------------------------------------------------------------


class Pane:
    """A window that counts what it is shown, and is closed by its user after ``life`` pictures."""

    def __init__(self, life: int = 10**6) -> None:
        self.life, self.shown, self.closed = life, 0, False

    def show(self) -> bool:
        self.shown += 1
        return self.shown <= self.life

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.closed = True


@pytest.mark.parametrize("life", [10**6, 3])
def test_training_in_a_window_is_the_same_training(monkeypatch, life):
    pane, said = Pane(life), []
    monkeypatch.setattr("dima_isaac.sim.render.Viewer", lambda engine: pane)
    monkeypatch.setattr(play, "PERIOD", 0.0)
    env, alone = toy_env(3), toy_env(3)
    env.engine.copy_env = None
    actions = [torch.rand(3, 2, 1) for _ in range(8)]
    with play.window_on(env, True, said.append):
        seen = [env.reset(), *(env.step(action) for action in actions)]
    rows = [alone.reset(), *(alone.step(action) for action in actions)]
    assert all(torch.equal(a.state, b.state) for a, b in zip(seen, rows, strict=True))
    assert pane.shown == min(life + 1, 9) and pane.closed and "training goes on" in said[0]


def test_a_window_is_refused_where_there_is_none_and_not_opened_unasked(monkeypatch):
    monkeypatch.setattr("dima_isaac.sim.render.Viewer", lambda engine: pytest.fail("nobody asked"))
    with play.window_on(toy_env(2), False):
        pass
    with pytest.raises(UsageError, match="no live viewer"), play.window_on(toy_env(2), True):
        pass


def test_play_films_real_hands(tmp_path, monkeypatch, capsys):
    out = tmp_path / "hands.gif"
    words = ["task=ShadowHandOver", "agent=random", "num_envs=2", "steps=2", "width=64", "height=64", f"out={out}"]
    if cli.main(["play", *words, "threads=1"]) == 2:
        assert "no offscreen renderer works here" in capsys.readouterr().err
        pytest.skip("no renderer on this machine")
    film = Image.open(out)
    assert film.n_frames == 3 and film.size == (128, 64)
    assert str(out) in capsys.readouterr().out
    assert len(np.unique(np.asarray(film.convert("L")))) > 10


class Painted:
    """A toy environment whose engine draws its index and the position of its first mass."""

    def __new__(cls, count: int):
        env = toy_env(count)
        env.engine.render = lambda index, width, height: np.full((height, width, 3), 50 * (index + 1), dtype=np.uint8)
        return env


def test_tiles_stay_where_they_are(tmp_path):
    frames = []
    writer = type("W", (), {"add": lambda self, frame: frames.append(frame)})()
    env = Painted(3)
    video.record(env, lambda obs: obs[:, :, :1] * 0, writer, 1, 4, (40, 30))
    assert len(frames) == 5 and frames[0].shape == (60, 80, 3)
    assert [frames[-1][y, x, 0] for y, x in ((25, 35), (25, 75), (55, 35), (55, 75))] == [50, 100, 150, 0]


def test_a_film_that_fails_never_stops_training(tmp_path):
    said: list[str] = []
    assert not video.clip(toy_env(2), lambda obs: obs[:, :, :1], tmp_path, 7, said.append)  # this engine cannot draw
    assert "training goes on" in said[0] and not list(tmp_path.iterdir())
    assert video.clip(Painted(2), lambda obs: obs[:, :, :1] * 0, tmp_path, 7, said.append)
    assert [path.stem for path in tmp_path.iterdir()] == ["step_7"]


def test_a_film_that_fails_leaves_the_one_before_it(tmp_path):
    path, frame = tmp_path / "film.gif", np.zeros((20, 20, 3), dtype=np.uint8)
    with video.Writer(path, 1e-9) as writer:  # slower than a GIF can tell
        writer.add(frame)
        writer.add(frame + 255)
    whole = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), video.Writer(path, 30.0) as writer:
        writer.add(frame)
        raise KeyboardInterrupt
    assert path.read_bytes() == whole and [*tmp_path.iterdir()] == [path]
    with pytest.raises(KeyboardInterrupt), video.Writer(tmp_path / "new" / "film.gif", 30.0):
        raise KeyboardInterrupt
    assert [*tmp_path.iterdir()] == [path]


# ---- bench -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", ["imagine", "train"])
def test_bench_ends_with_one_json_line(suite, capsys):
    words = [f"suite={suite}", "task=Toy", "engine=toy", "preset=smoke", "against=default", "num_envs=4", "threads=1"]
    assert cli.main(["bench", *TOY, *words, "seconds=0", "repeats=1", "batch=4", "horizon=2"]) == 0
    line = last_json(capsys.readouterr().out)
    assert line["suite"] == suite and line["machine"]["torch_threads"] == 1 and "torch" in line["machine"]["versions"]
    if suite == "train":
        assert sum(line["share"].values()) + line["other"] == pytest.approx(1.0) and line["env_steps"] == 64
    else:
        assert line["smoke"]["flops_per_step"] < line["default"]["flops_per_step"]
        assert "captured_over_eager" not in line["smoke"], "a CPU captures only if asked to"
        assert line["smoke"]["parameters"] == sum(line["smoke"]["parts"].values())


@pytest.mark.parametrize("suite", ["imagine", "train"])
def test_bench_counts_the_operations_of_the_published_networks(suite, capsys):
    small = ("world_model.denoiser.backbone=mlp", "train.learn.dreams=4", "train.learn.horizon=2")
    words = [f"suite={suite}", "task=Toy", "engine=toy", "preset=paper", "against=smoke", "num_envs=4", "threads=1"]
    words += ["env_steps=64", *small, "train.learn.start=16", "train.learn.behaviour_start=16", "train.learn.round=16"]
    assert cli.main(["bench", *TOY, *words, "seconds=0", "repeats=1", "batch=4", "horizon=2"]) == 0
    line = last_json(capsys.readouterr().out)
    flops = line["paper"]["flops_per_step"] if suite == "imagine" else line["limit"]["flops"]
    assert flops > 1e5


def test_bench_sets_captured_dreams_beside_eager_ones(capsys):
    words = ["suite=imagine", "task=Toy", "engine=toy", "preset=smoke", "against=default", "threads=1", "compile=true"]
    assert cli.main(["bench", *TOY, *words, "seconds=0", "repeats=1", "batch=4", "horizon=2"]) == 0
    out = capsys.readouterr().out
    both = json.loads(out.strip().splitlines()[-1])["smoke"]
    ratio = both["imagined_steps_per_s"] / both["eager_steps_per_s"]
    assert both["captured_over_eager"] == pytest.approx(ratio) and "smoke: captured dreams" in out


def test_a_multiply_add_counts_as_two_operations():
    """What the bench's counter says of a network whose operations can be counted by hand."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(3, 6))
    assert counter.get_total_flops() == 3 * 2 * (6 * 5 + 5 * 2)


# ---- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["play", "task=Toi", "agent=zero"], 2, "did you mean Toy"),
        (["play", "task=Toy", "engine=toy", "agent=zero"], 2, "cannot draw"),
        (["play", "task=Toy", "engine=toy", "agent=zero", "world=dream"], 2, "world=dream needs checkpoint"),
        (["play", "task=Toy", "engine=toy", "agent=zero", "headless=False"], 2, "this engine has no live viewer"),
        (["play", "task=Toy", "engine=toy", "agent=zero", "out=x.avi"], 2, "neither .mp4 nor .gif"),
        (["play", "task=Toy", "agent=zero", "task.fense=1"], 2, "did you mean fence"),
        (["evaluate", "checkpoint=nowhere"], 3, "there is no checkpoint nowhere"),
        (["evaluate", "checkpoint=latest"], 3, "there is no checkpoint under"),
        (["evaluate", "task=Toy", "agent=zero", "probe=True"], 2, "probe=True needs checkpoint"),
        (["train", "task=Toy", "engine=toy", "test=True"], 2, "test=True needs checkpoint"),
        (["plot", "nowhere"], 2, "nowhere is not a folder"),
        (["plot", "."], 2, "holds no run"),
        (["bench", "suite=engine"], 2, "suite=engine needs task=NAME"),
        (["bench", "suite=imagine", "task=Toy", "engine=toy", "against=papr"], 2, "did you mean paper"),
    ],
)
def test_mistakes_cost_one_sentence(words, code, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    extra = [] if words[0] == "plot" else ["threads=1"]
    assert cli.main([words[0], *TOY, *words[1:], *extra]) == code
    err = capsys.readouterr().err
    assert said in err and err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir()), "a mistake leaves nothing behind"


def test_a_wrong_task_for_a_checkpoint_is_a_checkpoint_error(runs, capsys):
    assert cli.main(["evaluate", *TOY, f"checkpoint={runs}/0", "task=ShadowHandOver", "threads=1"]) == 3
    assert "was made on task Toy, not ShadowHandOver" in capsys.readouterr().err


def test_a_checkpoint_of_a_task_elsewhere_asks_for_its_folder(runs, capsys):
    assert cli.main(["evaluate", f"checkpoint={runs}/0", "threads=1"]) == 3
    said = "was made on task Toy, which is not known here; if it is your own, add --config-dir DIR. Known: "
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("tool", TOOLS)
def test_help_and_typos_need_no_torch(tool, tmp_path):
    code = "import sys; from dima_isaac.cli import main as cli\n"
    code += f"cli.main(['{tool}', '--help']); cli.main(['{tool}', 'sead=1']);"
    code += "print([name for name in ('torch', 'numpy', 'hydra', 'matplotlib', 'mujoco') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]") and "did you mean seed?" in done.stderr
