"""The world model as a whole: its steps, its sizes, its context, and continuing bit for bit."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dima_isaac.schema import leaves
from dima_isaac.types import Dims
from dima_isaac.world_model import target as targets
from dima_isaac.world_model.config import DecoderKind, OptimConfig, Reveal, RewardConfig, TargetKind, WorldModelConfig
from dima_isaac.world_model.denoiser import Denoiser
from dima_isaac.world_model.karras import SIGMA_DATA
from dima_isaac.world_model.paper.decoder import VqDecoder
from dima_isaac.world_model.reward import RewardModel
from dima_isaac.world_model.world_model import WorldModel
from tests.world_model.worlds import DIMS, Linear, build, paper, small, view, without_regression

GAMES = {  # agents, state, obs, action; denoiser, reward and decoder parameters as published
    "HalfCheetah-2x3": (Dims(2, 17, 19, 3), 14_090_065, 8_440_066, 540_198),
    "HalfCheetah-3x2": (Dims(3, 17, 20, 2), 14_090_065, None, None),
    "HalfCheetah-6x1": (Dims(6, 17, 23, 1), 14_090_577, None, None),
    "Ant-2x4": (Dims(2, 111, 113, 4), 14_126_511, 8_464_386, 612_578),
    "Ant-4x2": (Dims(4, 111, 115, 2), 14_126_511, None, 672_716),
    "Pen": (Dims(2, 417, 218, 26), 14_249_953, 8_548_354, 744_884),
    "BottleCap": (Dims(2, 420, 221, 26), 14_251_108, None, 747_194),
}


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", GAMES)
def test_published_sizes(name):
    dims, denoiser, reward, decoder = GAMES[name]
    with torch.device("meta"):
        world = MetaWorld(dims)
    assert size(world.denoiser) == denoiser
    assert reward in (None, size(world.reward))
    assert decoder in (None, size(world.decoder))


class MetaWorld:
    """The three networks of the paper preset without their weights."""

    def __init__(self, dims: Dims) -> None:
        cfg = paper()
        self.denoiser = Denoiser(cfg, dims)
        self.reward = RewardModel(cfg.reward, dims, cfg.precision)
        self.decoder = VqDecoder(dims)


def test_published_parts_have_their_published_sizes():
    with torch.device("meta"):
        denoiser = MetaWorld(Dims(2, 17, 19, 3)).denoiser
    net, actions = denoiser.backbone, denoiser.backbone.action_encoder
    tokens = size(actions.token) + actions.agent_embedding.numel() + actions.time_embedding.numel()
    assert tokens == 68_096 and size(actions) - tokens == 11_806_656
    assert size(net.cond) == 131_584 and size(net.unet) == 2_076_992
    assert size(net.input) + size(net.norm) + size(net.output) == 6_737


def test_the_yaml_of_the_paper_preset_says_the_same():
    omegaconf = pytest.importorskip("omegaconf")
    path = Path(__file__).parents[2] / "cfg" / "preset" / "paper.yaml"
    schema = omegaconf.OmegaConf.structured(WorldModelConfig)
    merged = omegaconf.OmegaConf.merge(schema, omegaconf.OmegaConf.load(path).world_model)
    assert omegaconf.OmegaConf.to_object(merged) == paper()


def test_there_are_few_settings():
    assert len(list(leaves(WorldModelConfig()))) <= 38


def taught(
    cfg: WorldModelConfig, updates: int = 0, last_action_index: Tensor | None = None, regression: bool = True
) -> tuple[WorldModel, Linear]:
    world, game = build(cfg, last_action_index=last_action_index), Linear()
    if not regression:
        without_regression(world)
    world.track(game.window(256, 6).state)
    for _ in range(updates):
        world.update_dynamics(game.window(64, world.window))
    return world, game


def test_continuing_is_bit_for_bit(monkeypatch):
    monkeypatch.setattr(targets, "SOLVE_EVERY", 3)
    cfg = small()

    def round_(world: WorldModel, game: Linear) -> list[Tensor]:
        out = [world.update_dynamics(game.window(16, 6))["world/denoise"] for _ in range(4)]
        out.append(world.update_reward(game.window(16, 2))["world/reward"])
        return [*out, world.step(world.context(game.window(16, 3)), torch.zeros(16, 2, 2)).state]

    world, game = taught(cfg, updates=4)
    world.update_reward(game.window(16, 2))
    weights = {k: v.clone() for k, v in world.state_dict().items()}
    optim, rng = copied(world), game.rng
    draws = rng.get_state()
    first = round_(world, game)

    other = build(cfg, seed=99)
    other.load_state_dict(weights)
    other.load_optim_state(optim)
    rng.set_state(draws)
    assert all(torch.equal(a, b) for a, b in zip(first, round_(other, game), strict=True))


def copied(world: WorldModel) -> dict:
    """The optimisers' state through a file that may hold tensors and numbers only."""
    file = io.BytesIO()
    torch.save(world.optim_state(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.slow
def test_the_published_model_also_continues_bit_for_bit():
    cfg = paper()
    cfg.reward.width = 32
    world, game = taught(cfg, updates=1)

    def round_(world: WorldModel) -> list[Tensor]:
        game.rng.manual_seed(3)
        window = game.window(2, world.window)
        metrics = {**world.update_dynamics(window), **world.update_reward(game.window(2, world.reward_window))}
        return [*metrics.values(), *world.update_decoder(window.state[:, 0]).values()]

    round_(world)
    weights, optim = {k: v.clone() for k, v in world.state_dict().items()}, copied(world)
    first, other = round_(world), build(cfg, seed=99)
    other.load_state_dict(weights)
    other.load_optim_state(optim)
    assert all(torch.equal(a, b) for a, b in zip(first, round_(other), strict=True))


@pytest.mark.parametrize("target", list(TargetKind))
def test_a_step_keeps_shapes_and_rolls_the_history(target):
    world, game = taught(small(target=target), updates=2)
    before = world.context(game.window(5, 3))
    action = 2.0 * torch.ones(5, 2, 2)
    after = world.step(before, action)
    assert vars(before).keys() == vars(after).keys()
    assert all(getattr(after, k).shape == v.shape for k, v in vars(before).items())
    assert torch.equal(after.x[:, :2], before.x[:, 1:]) and torch.equal(after.action[:, 0], before.action[:, 1])
    assert torch.equal(after.action[:, 1], action.clamp(-1, 1))
    assert torch.equal(after.x[:, 2], world.target.x(after.state))


def test_a_generator_decides_the_step():
    world, game = taught(small(), updates=2)
    context, action = world.context(game.window(5, 3)), torch.zeros(5, 2, 2)
    dreams = [world.step(context, action, torch.Generator().manual_seed(seed)).state for seed in (1, 1, 2)]
    assert torch.equal(dreams[0], dreams[1]) and not torch.equal(dreams[0], dreams[2])


def test_copied_actions_are_exact():
    last_action_index = torch.tensor([[2, -1], [3, -1]])
    world, game = taught(small(), updates=2, last_action_index=last_action_index)
    after = world.step(world.context(game.window(5, 3)), torch.full((5, 2, 2), -3.0))
    assert (after.state[:, 2:] == -1.0).all()


@pytest.mark.slow
@pytest.mark.parametrize("regression", [False, True])
def test_imagined_states_beat_repeating_the_last_one_at_every_step(regression):
    world, game = taught(small(reveal=Reveal.joint, error_scale=0.0), updates=250, regression=regression)
    window = game.window(256, 11)
    context = world.context(window.rows(0, 3))
    still = context.state
    for h in range(8):
        context = world.step(context, window.action[:, 2 + h])
        true = window.state[:, 3 + h]
        miss, repeat = (context.state - true).square().mean().sqrt(), (still - true).square().mean().sqrt()
        assert miss < 0.35 * repeat, (h, miss, repeat)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reveal", "steps", "low", "high"),
    [("joint", 0, 0.75, 1.25), ("cumulative", 0, 0.6, 1.25), ("joint", 1, 0.75, 1.25)],
)
def test_every_agents_action_moves_the_imagined_state_as_it_moves_the_true_one(reveal, steps, low, high):
    world, game = taught(small(reveal=Reveal[reveal], steps=steps), updates=250, regression=False)
    window = game.window(512, 3)
    context, action = world.context(window), window.action[:, -1].clamp(-0.5, 0.5)
    base = world.step(context, action, torch.Generator().manual_seed(0)).state
    for agent in range(2):
        moved = action.clone()
        moved[:, agent] += 0.5
        dreamt = world.step(context, moved, torch.Generator().manual_seed(0)).state - base
        true = game.step(context.state, moved) - game.step(context.state, action)
        ratio = (dreamt.square().mean() / true.square().mean()).sqrt()
        assert low < ratio < high, (agent, ratio)


def test_without_diffusion_nothing_but_held_out_errors_is_random():
    def steps(count: int) -> list[Tensor]:
        world, game = taught(small(reveal=Reveal.joint, steps=count), updates=2)
        context, action = world.context(game.window(64, 3)), torch.zeros(64, 2, 2)
        return [world.step(context, action, torch.Generator().manual_seed(n), errors=False).state for n in range(2)]

    def losses(count: int) -> list[Tensor]:
        world, game = taught(small(reveal=Reveal.joint, steps=count), updates=2)
        window, out = game.window(64, world.window), []
        for seed in range(2):
            world.generator.manual_seed(seed)
            out.append(world._dynamics_loss(window))
        return out

    for drawn in (steps, losses):
        assert torch.equal(*drawn(1)) and not torch.equal(*drawn(4))


@pytest.mark.slow
def test_a_sequential_model_does_not_see_every_agent_and_the_regression_does():
    def total(regression: bool) -> float:
        world, game = taught(small(), updates=200, regression=regression)
        window = game.window(512, 3)
        context, action = world.context(window), window.action[:, -1].clamp(-0.5, 0.5)
        base = world.step(context, action, torch.Generator().manual_seed(0)).state
        ratios = []
        for agent in range(2):
            moved = action.clone()
            moved[:, agent] += 0.5
            dreamt = world.step(context, moved, torch.Generator().manual_seed(0)).state - base
            true = game.step(context.state, moved) - game.step(context.state, action)
            ratios.append(((dreamt * true).mean() / true.square().mean()).item())
        return sum(ratios)

    assert total(False) < 1.6 and 1.8 < total(True) < 2.2  # 2 = both agents seen in full


def test_reward_and_end_are_learnt_and_predicted_in_parallel():
    cfg = small()
    cfg.reward.optim = OptimConfig(lr=3e-3)
    world, game = taught(cfg)
    losses = []
    for _ in range(300):
        window = game.window(128, 2)
        window.terminal = window.state.mean(-1) > 0.3
        losses.append(world.update_reward(window))
    assert losses[-1]["world/reward"] < 0.05 * losses[0]["world/reward"]
    assert losses[-1]["world/end"] < 0.5 * losses[0]["world/end"]
    window = game.window(64, 6)
    reward, cont = world.predict_reward(window.state, window.action[:, :-1])
    assert reward.shape == cont.shape == (64, 5)
    assert (reward - window.reward[:, 1:]).abs().mean() < 0.1
    ends = window.state[:, 1:].mean(-1)
    assert cont[ends > 0.6].mean() < 0.2 and cont[ends < 0.0].mean() > 0.8
    one = world.predict_reward(window.state[:, 2:4], window.action[:, 2:3])
    assert torch.allclose(one[0][:, 0], reward[:, 2], atol=1e-5)


def test_the_published_reward_of_a_step_depends_on_no_later_state_or_action():
    cfg = paper()
    cfg.reward.width = 32
    world, game = taught(cfg)
    window = game.window(4, world.reward_window)
    state, action = window.state.clone(), window.action[:, :-1].clone()
    state[:, 6:] += 1.0
    action[:, 6:] += 1.0
    before, after = world.predict_reward(window.state, window.action[:, :-1]), world.predict_reward(state, action)
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one[:, :6], other[:, :6], atol=1e-6)
        assert (one[:, 6:] - other[:, 6:]).abs().amax(1).min() > 1e-6


@pytest.mark.slow
def test_a_learned_decoder_learns_the_view():
    world, game = taught(small(decoder=DecoderKind.vq))
    losses = [world.update_decoder(game.window(256, 1).state[:, 0])["world/decoder"] for _ in range(150)]
    assert losses[-1] < 0.8 * losses[0]
    state = game.window(8, 1).state[:, 0]
    assert (world.observe(state) - view(DIMS)(state)).abs().mean() < 0.5


def step(world: WorldModel, context, errors: bool = True) -> Tensor:
    """The state after one step under zero actions, always with the same noise."""
    action = torch.zeros(context.state.shape[0], 2, 2)
    return world.step(context, action, torch.Generator().manual_seed(0), errors).state


def test_imagination_uses_the_averaged_denoiser_and_as_much_of_it_as_held_out_steps_bear_out():
    world, game = taught(small(), updates=60)
    context = world.context(game.window(8, world.history))

    def shake(module: torch.nn.Module) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.5)

    before = step(world, context)
    shake(world.denoiser)
    assert torch.equal(step(world, context), before), "the weights in training are not used"
    shake(world.ema_denoiser)
    assert not torch.allclose(step(world, context), before)
    world.held_out.gain.zero_()
    linear = step(world, context)
    shake(world.ema_denoiser)
    assert torch.equal(step(world, context), linear) and not torch.allclose(linear, before), "the regression alone"


def test_an_update_of_the_reward_model_shortens_its_columns_and_moves_the_average():
    world = build(replace(small(), reward=RewardConfig(width=16, sparsity=1e9, ema=0.5)))
    before = [weight.clone() for weight in world.reward.average.parameters()]
    world.update_reward(Linear().window(64, world.reward_window))
    assert not world.reward.net.net[0].weight.any() and world.reward.net.net[0].bias.any()
    assert not any(torch.equal(*pair) for pair in zip(before, world.reward.average.parameters(), strict=True))


def test_imagined_steps_err_as_the_model_erred_on_held_out_steps():
    sure, game = taught(small(error_scale=0.0))
    world, _ = taught(small(error_scale=0.5))
    context = world.context(game.window(64, world.history))
    assert torch.equal(step(sure, context), step(world, context)), "no errors yet"
    world.held_out.errors.copy_(torch.tensor([0.2, 0.0, 0.0, -0.4]))
    spread = world.target.change_scale()[1]
    expected = 0.5 * torch.tensor([0.2, 0.0, 0.0, -0.4]) * spread / SIGMA_DATA
    torch.testing.assert_close(step(world, context) - step(sure, context), expected.expand(64, 4), atol=1e-5, rtol=1e-4)
    assert torch.equal(step(sure, context), step(world, context, errors=False)), "a probe asks for the prediction"


@pytest.mark.parametrize("kind", TargetKind)
def test_only_the_published_target_has_first_states_as_targets(kind):
    """Windows that hold nothing but the first state of an episode: a prediction of x from no history at all."""
    world = build(small(target=kind, reveal=Reveal.joint))
    window = Linear().window(64, world.window)
    window.valid[:, :-1] = False
    loss = float(world.update_dynamics(window)["world/denoise"])
    assert loss > 0.1 if kind is TargetKind.state else loss == 0.0


def test_without_an_error_scale_nothing_is_held_out():
    world, game = taught(small(error_scale=0.0))
    assert world.held_out is None and world.update_held_out(game.window(8, world.history + 1)) == {}


@pytest.mark.slow
def test_held_out_errors_are_those_that_an_imagined_step_would_have_made():
    world, game = taught(small(), updates=200, regression=False)
    window = game.window(4_096, world.history + 1)
    window.state[:, -1, 2] += 0.3  # a jump that nothing predicts
    world.update_held_out(window)
    error = SIGMA_DATA * 0.3 / world.target.change_scale()[1][2]
    assert abs(world.held_out.errors[:, 2].mean() - error) < 0.1 * error
    assert world.held_out.errors[:, [0, 1, 3]].mean().abs() < 0.1 * error
    window.valid[:, :-1] = False  # no action led to the last rows
    world.update_held_out(window)
    assert world.held_out.errors.eq(0).all()


def test_what_is_held_out_by_hand(monkeypatch):
    """Of the steps that an action led to, the likeliest prediction beside what came."""
    world, game = taught(small())
    window, temperatures = game.window(6, world.history + 1), []
    window.valid[:2, :-1] = False
    prediction, given = torch.randn(6, 4), {}

    def sample(context, actions, temperature, generator):
        temperatures.append(temperature)
        return prediction

    monkeypatch.setattr(world, "_sample", sample)
    monkeypatch.setattr(world.held_out, "update", lambda *args: given.update(zip("pocud", args, strict=True)) or {})
    world.update_held_out(window)
    assert temperatures == [0.0] and torch.equal(given["p"], prediction)
    torch.testing.assert_close(given["o"], world.target.normalised_change(window.state[:, -2], window.state[:, -1]))
    assert given["c"].tolist() == [False, False, True, True, True, True]


def test_output_only_dimensions_take_whole_errors_and_nothing_depends_on_them():
    force = torch.tensor([False, False, False, True])
    world, game = build(small(error_scale=0.5), output_only=force), Linear()
    world.track(game.window(256, 6).state)
    for _ in range(60):
        window = game.window(64, world.window)
        window.state[..., 3] = torch.randn(64, world.window, generator=game.rng)  # no step predicts it
        world.update_dynamics(window)
    unseen = game.window(4_096, world.history + 1)
    unseen.state[..., 3] = torch.randn(4_096, world.history + 1, generator=game.rng)
    world.update_held_out(unseen)
    context = world.context(unseen.rows(0, world.history))
    assert step(world, context, errors=False)[:, 3].std() < 0.5
    assert 0.9 < step(world, context)[:, 3].std() < 1.1, "a whole error"
    other = unseen.state.clone()
    other[..., 3] += 9.0
    one, two = (world.predict_reward(state, unseen.action[:, :-1]) for state in (unseen.state, other))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    explained = []  # where the output-only dimension lands says nothing of the denoiser
    for _ in range(2):
        world.held_out.gain.fill_(1.0)
        world.generator.manual_seed(0)
        explained.append(world.update_held_out(unseen)["world/explained"])
        unseen.state[:, -1, 3] += 9.0
    assert explained[0] == explained[1]


def test_loss_weights_follow_the_value_in_units_of_the_target():
    world, _ = taught(small(), updates=2)
    gradient = torch.tensor([0.0, 4.0, 1.0, 9.0])  # (dV/dx)^2
    for _ in range(100):
        world.weigh_by_value(gradient)
    per_y = gradient * world.target.dx_dy() ** 2
    torch.testing.assert_close(world.loss_weights.value, per_y / per_y.mean(), rtol=1e-3, atol=1e-3)
    even, _ = taught(small(value_weight=0.0))
    even.weigh_by_value(gradient)
    assert even.loss_weights.value.eq(1).all()


def test_the_model_gets_actions_as_the_environment_takes_them():
    """In a step and for the reward: clipped, since environments clip; a replay's are already."""
    world, game = taught(small())
    window = game.window(8, world.history + 2)
    wild = 3.0 * torch.randn(window.action.shape)
    tame = wild.clamp(-1.0, 1.0)
    start, rng = world.context(window.rows(0, world.history)), torch.Generator()
    one, other = (world.step(start, action[:, 0], rng.manual_seed(0)) for action in (wild, tame))
    assert torch.equal(one.action, other.action) and torch.equal(one.state, other.state)
    states = window.state
    for mine, theirs in zip(
        world.predict_reward(states, wild[:, 1:]), world.predict_reward(states, tame[:, 1:]), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_without_temperature_all_samples_are_alike():
    world, game = taught(small(reveal=Reveal.joint))
    context, actions = world.context(game.window(8, world.history)), torch.zeros(8, world.history, 2, 2)
    one, other = (world._sample(context, actions, 0.0, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert torch.equal(one, other)
