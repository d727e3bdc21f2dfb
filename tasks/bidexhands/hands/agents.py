"""Which agent holds which actions of the hands."""

import torch
from torch import Tensor

from dima_isaac.errors import UsageError
from dima_isaac.tasks.bidexhands.hands.hand import ACTUATED, PARTS
from dima_isaac.tasks.bidexhands.hands.placement import HANDS


class Agents:
    """N agents, equally many of each hand, that hold at most A actions each."""

    def __init__(self, parts: list[list[int]], base: int) -> None:
        """``parts`` lists, for each agent of one hand, its parts of the hand; part 0 holds the ``base`` actions, too.

        Raises:
            UsageError: not every part is handed out exactly once.
        """
        if sorted(part for own in parts for part in own) != list(range(len(PARTS))) or not all(parts):
            raise UsageError(
                f"hand_agent_index={parts} must hand out parts 0 to 5 exactly once, as [[0,1,2,3,4,5]] (one agent "
                "per hand), [[0],[1,2,3,4,5]] (two) or [[0],[1],[2],[3],[4],[5]] (six)"
            )
        of_part = [[base + ACTUATED.index(joint) for joint in part] for part in PARTS]
        of_part[0] = [*range(base), *of_part[0]]
        held = [[slot for part in own for slot in of_part[part]] for own in parts]
        per_hand = base + len(ACTUATED)
        self.names = tuple(f"{hand}/{k}" if len(held) > 1 else hand for hand in HANDS for k in range(len(held)))
        self.action = torch.full((len(self.names), max(map(len, held))), -1)
        """(N, A) int64: each agent's actions as indices of both hands' actions (2 * per_hand,), -1 for padding."""
        for agent in range(len(self.names)):
            side, k = divmod(agent, len(held))
            self.action[agent, : len(held[k])] = side * per_hand + torch.tensor(held[k])
        self.used = self.action >= 0  # (N, A)
        self._source: Tensor | None = self.action.flatten().argsort()[-2 * per_hand :]  # padding comes first
        if torch.equal(self._source, torch.arange(len(self._source))):
            self._source = None

    def to(self, device: torch.device) -> None:
        """Move what ``by_hand`` needs."""
        self._source = None if self._source is None else self._source.to(device)

    def by_hand(self, action: Tensor) -> Tensor:
        """Actions (E, N, A) as (E, 2, per hand)."""
        flat = action.flatten(1)
        ordered = flat if self._source is None else flat.index_select(1, self._source)
        return ordered.unflatten(1, (len(HANDS), -1))
