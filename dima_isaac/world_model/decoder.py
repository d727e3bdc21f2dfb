"""State to observations: the task's exact view, or a learned one through a discrete bottleneck (published)."""

from __future__ import annotations

from torch import Tensor, nn

from dima_isaac.nn.mlp import mlp
from dima_isaac.types import Dims, Metrics
from dima_isaac.world_model.config import DecoderConfig
from dima_isaac.world_model.paper.quantise import VectorQuantiser


class LearnedDecoder(nn.Module):
    """z -> tokens -> codes -> all agents' observations."""

    def __init__(self, cfg: DecoderConfig, dims: Dims) -> None:
        super().__init__()
        self.cfg, self.shape = cfg, (dims.agents, dims.obs)
        self.bottleneck = VectorQuantiser(cfg.codes, cfg.token_dim, cfg.ema)
        size = cfg.tokens * cfg.token_dim
        self.encoder = mlp([dims.state, cfg.width, cfg.width, size], nn.GELU)
        self.decoder = mlp([size, cfg.width, cfg.width, dims.agents * dims.obs], nn.GELU)

    def forward(self, z: Tensor) -> Tensor:
        """z (..., D) -> observations (..., N, O), hard codes."""
        return self._decode(z)[0]

    def _decode(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.encoder(z).unflatten(-1, (self.cfg.tokens, -1))
        codes, commitment, used = self.bottleneck(tokens)
        return self.decoder(codes.flatten(-2)).unflatten(-1, self.shape), commitment, used

    def loss(self, z: Tensor, obs: Tensor) -> tuple[Tensor, Metrics]:
        """Mean absolute error plus the weighted commitment; the codebook learns on the side (in training mode)."""
        guess, commitment, used = self._decode(z)
        miss = (guess - obs).abs().mean()
        metrics = {"world/decoder": miss.detach(), "world/codes": used}
        return miss + self.cfg.commitment * commitment, metrics
