"""The default backbone: what is computed once for all reverse steps changes nothing."""

import torch
from torch.nn import functional as F

from dima_isaac.types import Dims
from dima_isaac.world_model.backbone import MlpBackbone

DIMS, HISTORY = Dims(agents=2, state=5, obs=5, action=1), 3


@torch.no_grad()
def test_split_of_the_first_layer_equals_the_layer() -> None:
    net = MlpBackbone(DIMS, HISTORY, width=16, blocks=2)
    for p in net.parameters():  # the last layer begins at zero
        p.copy_(0.3 * torch.randn(p.shape))
    history, mask = torch.randn(7, HISTORY, 5), (torch.rand(2, 7, HISTORY, 2) < 0.5).float()
    actions = torch.randn(7, HISTORY, 2, 1) * mask.unsqueeze(-1)
    noisy, noise = torch.randn(2, 7, 5), torch.randn(7)
    conditions = net.condition(history, actions, mask)
    assert len(conditions) == 2
    for stage, condition in enumerate(conditions):
        code = net.action_encoder(torch.cat([actions[stage].flatten(1), mask[stage, :, -1]], 1))
        x = net.input(torch.cat([noisy[stage], history.flatten(1), code], 1))
        for block in net.blocks:
            x = block(x, F.silu(net.noise_embedding(noise)))
        whole = net.output(F.silu(net.norm(x)))
        assert whole.abs().amax() > 0.1
        torch.testing.assert_close(net(noisy[stage], noise, condition), whole, atol=1e-5, rtol=1e-5)
