"""The published decoder, state to observations: an autoencoder through an EMA codebook (van den Oord et al. 2017)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dima_isaac import ranks
from dima_isaac.nn.layers import mlp
from dima_isaac.nn.optim import Optimiser
from dima_isaac.types import Dims, Metrics

WIDTH, TOKENS, TOKEN_DIM, CODES = 256, 12, 64, 256
DECAY, SMOOTHING = 0.995, 1e-5  # of the codebook's moving averages; Laplace smoothing of its counts
COMMITMENT = 10.0  # weight of the commitment loss


class VqDecoder(nn.Module):
    """z -> tokens -> codes -> all agents' observations."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.shape = (dims.agents, dims.obs)
        self.quantiser = VectorQuantiser(CODES, TOKEN_DIM, DECAY)
        self.encoder = mlp([dims.state, WIDTH, WIDTH, TOKENS * TOKEN_DIM], nn.GELU)
        self.decoder = mlp([TOKENS * TOKEN_DIM, WIDTH, WIDTH, dims.agents * dims.obs], nn.GELU)

    def forward(self, z: Tensor) -> Tensor:
        """z (..., D) -> observations (..., N, O), hard codes."""
        return self._decode(z)[0]

    def _decode(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.encoder(z).unflatten(-1, (TOKENS, -1))
        codes, commitment, used = self.quantiser(tokens)
        return self.decoder(codes.flatten(-2)).unflatten(-1, self.shape), commitment, used

    def loss(self, z: Tensor, obs: Tensor) -> tuple[Tensor, Metrics]:
        """Mean absolute error plus the weighted commitment; in training mode the codebook is updated as well."""
        decoded, commitment, used = self._decode(z)
        error = (decoded - obs).abs().mean()
        metrics = {"world/decoder": error.detach(), "world/codes": used}
        return error + COMMITMENT * commitment, metrics

    def optimiser(self) -> Optimiser:
        """AdamW with decay on every parameter."""
        return Optimiser(self, lr=3e-4, weight_decay=0.01, clip=10.0, decay_all=True)


class VectorQuantiser(nn.Module):
    """The nearest of ``codes`` vectors, which follow the tokens by exponential moving averages, not by gradients.

    Unused codes are never replaced, as published: for thousands of updates the one that happens to lie nearest to the
    tokens takes them all.
    """

    codebook: Tensor
    size: Tensor
    total: Tensor

    def __init__(self, codes: int, dim: int, decay: float, smoothing: float = SMOOTHING) -> None:
        super().__init__()
        self.decay, self.smoothing = decay, smoothing
        codebook = torch.empty(codes, dim)
        nn.init.kaiming_uniform_(codebook)
        self.register_buffer("codebook", codebook)
        # no tokens to begin with: the codes that the first batch leaves out are thrown far away, and come back through
        # the tokens as their totals decay
        self.register_buffer("size", torch.zeros(codes))
        self.register_buffer("total", codebook.clone())

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens (..., dim) -> codes with a straight-through gradient, commitment loss, fraction of codes in use.

        In training mode, with gradients enabled, the codebook is updated after it was used.
        """
        flat = tokens.flatten(0, -2)
        learning = self.training and torch.is_grad_enabled()
        index = torch.cdist(flat.detach().float(), self.codebook).argmin(-1)
        # not one_hot, which reads its argument's values on a CPU
        hit = (index.unsqueeze(-1) == torch.arange(self.codebook.shape[0], device=index.device)).to(flat.dtype)
        chosen = self.codebook[index].view_as(tokens)
        if learning:
            self._update(flat.detach(), hit)
        commitment = F.mse_loss(tokens, chosen)
        used = (hit.sum(0) > 0).float().mean()
        return tokens + (chosen - tokens).detach(), commitment, used

    @torch.no_grad()
    def _update(self, flat: Tensor, hit: Tensor) -> None:
        """Move the averages towards tokens ``flat`` (M, dim) of all ranks, whose codes ``hit`` (M, codes) names."""
        sizes, totals = ranks.total(hit.sum(0), hit.T @ flat)
        self.size.lerp_(sizes, 1.0 - self.decay)
        self.total.lerp_(totals, 1.0 - self.decay)
        number = self.size.sum()
        smooth = (self.size + self.smoothing) / (number + self.size.shape[0] * self.smoothing) * number
        self.codebook.copy_(self.total / smooth.unsqueeze(1))
