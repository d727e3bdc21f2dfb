"""The streaming regression finds what one big regression finds."""

import torch
from torch.overrides import TorchFunctionMode

from dima_isaac.nn.ridge import Ridge


def data(rows: int, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(rows, 3, generator=rng), torch.tensor([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0]])
    return inputs, inputs @ weight + 7.0 + noise * torch.randn(rows, 2, generator=rng), weight


def test_batches_find_the_coefficients_and_the_residual():
    inputs, targets, weight = data(4000, 0.1)
    ridge = Ridge(3, 2, decay=1.0, penalty=0.0)
    for part in range(0, 4000, 100):
        ridge.update(inputs[part : part + 100], targets[part : part + 100], torch.ones(100))
    ridge.solve()
    assert torch.allclose(ridge.weight, torch.cat([weight, torch.full((1, 2), 7.0)]), atol=0.01)
    left = (ridge(inputs) - targets).square().mean(0).sqrt()
    assert torch.allclose(ridge.residual_rms, left, rtol=1e-3) and torch.allclose(
        left, torch.full((2,), 0.1), atol=0.005
    )


def test_rows_that_do_not_count_leave_no_trace():
    inputs, targets, _ = data(100, 0.1)
    counts = (torch.arange(100) < 60).float()
    some, only = Ridge(3, 2, 1.0, 1e-3), Ridge(3, 2, 1.0, 1e-3)
    some.update(inputs, targets, counts)
    only.update(inputs[:60], targets[:60], torch.ones(60))
    some.solve()
    only.solve()
    assert torch.allclose(some.weight, only.weight, atol=1e-6)


def test_old_rows_fade():
    inputs, targets, weight = data(100, 0.0)
    ridge = Ridge(3, 2, decay=0.5, penalty=1e-6)
    ridge.update(inputs, -targets, torch.ones(100))
    for _ in range(20):
        ridge.update(inputs, targets, torch.ones(100))
    ridge.solve()
    assert torch.allclose(ridge.weight[:3], weight, atol=1e-3)


def test_constant_and_doubled_inputs_are_harmless():
    inputs, targets, _ = data(50, 0.0)
    twin = torch.cat([inputs, inputs, torch.zeros(50, 1)], 1)
    ridge = Ridge(7, 2, 1.0, 1e-6)
    ridge.update(twin, targets, torch.ones(50))
    ridge.solve()
    assert torch.allclose(ridge(twin), targets, atol=1e-2)


def test_before_any_row_the_prediction_is_zero():
    ridge = Ridge(3, 2, 1.0, 1e-3)
    ridge.solve()
    assert ridge(torch.ones(1, 3)).abs().max() == 0


def test_a_poisoned_row_keeps_the_previous_solution():
    inputs, targets, _ = data(100, 0.1)
    ridge = Ridge(3, 2, 1.0, 1e-3)
    ridge.update(inputs, targets, torch.ones(100))
    ridge.solve()
    before = ridge.weight.clone()
    inputs[0] = float("nan")
    ridge.update(inputs, targets, torch.ones(100))
    ridge.solve()
    assert torch.equal(ridge.weight, before) and ridge.residual_rms.isfinite().all()


def test_equations_without_a_solution_keep_the_previous_one():
    inputs, targets, _ = data(100, 0.1)
    ridge = Ridge(3, 2, 1.0, 1e-3)
    ridge.update(inputs, targets, torch.ones(100))
    ridge.solve()
    before = ridge.weight.clone()
    ridge.gram.neg_()
    ridge.solve()
    assert torch.equal(ridge.weight, before)


def test_a_gpu_does_not_shorten_the_prediction_s_products():
    class Watch(TorchFunctionMode):
        seen = ()

        def __torch_function__(self, func, types, args=(), kwargs=None):
            if "matmul" in func.__name__ and "precision" not in func.__name__:
                self.seen += (torch.get_float32_matmul_precision(),)
            return func(*args, **(kwargs or {}))

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # as a run does
    try:
        with Watch() as watch:
            Ridge(3, 2, 1.0, 0.0)(torch.ones(4, 3))
        assert watch.seen == ("highest",) and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
