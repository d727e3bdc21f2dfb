"""A ring of rows (T, E, .) on the simulator's device: states only, since observations are a function of them.

Every environment writes one row per tick. A window is T consecutive rows of one environment, aligned at its
end; what lies before the start of the last row's episode, or before the oldest row kept, is zeroed and not valid.
"""

import torch
from torch import Tensor

from dima_isaac.replay.config import ReplayConfig
from dima_isaac.types import Dims, Step, Transitions, Window, restore_generator

WEIGHTS = (0.7, 0.1, 0.1, 0.1)  # probability mass of the newest to the oldest quarter of what is stored (DIMA's)


class ReplayBuffer:
    """``add(step, action)`` every tick, ``sample(batch, length) -> Window`` for every update."""

    def __init__(self, cfg: ReplayConfig, dims: Dims, num_envs: int, device: torch.device, seed: int = 0) -> None:
        """Allocate ``cfg.capacity // num_envs`` rows per environment on ``device``."""
        self.rows = max(2, cfg.capacity // num_envs)
        self.num_envs, self.device = num_envs, device
        shape = (self.rows, num_envs)
        self.state = torch.zeros(*shape, dims.state, device=device)
        self.action = torch.zeros(*shape, dims.agents, dims.action, device=device)
        self.reward = torch.zeros(shape, device=device)
        self.first = torch.zeros(shape, dtype=torch.bool, device=device)
        self.last = torch.zeros(shape, dtype=torch.bool, device=device)
        self.terminal = torch.zeros(shape, dtype=torch.bool, device=device)
        self._columns = ("state", "action", "reward", "first", "last", "terminal")
        self._added = 0  # rows ever written; the next one goes to _added % rows
        self._oldest = 0  # number of the first row that was not lost with a damaged file
        self._edges = torch.tensor(WEIGHTS).cumsum(0).to(device)  # mass up to the end of each quarter
        self.generator = torch.Generator(device).manual_seed(seed)

    @property
    def size(self) -> int:
        """Rows kept of every environment."""
        return min(self._added - self._oldest, self.rows)

    def add(self, step: Step, action: Tensor) -> None:
        """Write one row: the state, what led to it, and the action (E, N, A) taken in it."""
        row = self._added % self.rows
        self.state[row] = step.state
        self.action[row] = action
        self.reward[row] = step.reward
        self.first[row] = step.first
        self.last[row] = step.last
        self.terminal[row] = step.terminal
        self._added += 1

    def sample(self, batch: int, length: int, generator: torch.Generator | None = None) -> Window:
        """``batch`` windows of ``length`` rows, their ends drawn by age and uniformly over environments.

        A ``generator`` of the caller's leaves the replay's own untouched, so that measurements do not change training.
        """
        generator = generator or self.generator
        age = draw_ages(batch, self.size, self._edges, generator)
        env = torch.randint(self.num_envs, (batch,), device=self.device, generator=generator)
        return self.gather(age, env, length)

    def transitions(self, batch: int, steps: int, gamma: float) -> Transitions:
        """``batch`` transitions over ``steps`` control steps, or fewer where the episode or the replay ends before.

        They start anywhere, uniformly. Rows that are the last of their episode lead nowhere and are not ``counted``.
        """
        u = torch.rand(batch, device=self.device, generator=self.generator)
        age = min(1, self.size - 1) + (u * (self.size - 1)).long()
        env = torch.randint(self.num_envs, (batch,), device=self.device, generator=self.generator)

        def row(after: int) -> Tensor:
            return (self._added - 1 - (age - after).clamp_min(0)) % self.rows

        going = ~self.last[row(0), env]  # whether step j + 1 exists
        counted, end = going, row(0)
        reward, discount = torch.zeros(batch, device=self.device), torch.ones(batch, device=self.device)
        for j in range(1, steps + 1):
            at = row(j)
            going = going & (age >= j) & ~self.first[at, env]
            reward = reward + discount * self.reward[at, env] * going
            discount = torch.where(going, gamma * discount * ~self.terminal[at, env], discount)
            end = torch.where(going, at, end)
            counted = counted & going if j == 1 else counted
            going = going & ~self.last[at, env]
        return Transitions(
            self.state[row(0), env], self.action[row(0), env], reward, discount, self.state[end, env], counted
        )

    def newest(self, rows: int, length: int) -> Window:
        """The windows that end in the newest ``rows`` rows of every environment, (rows * E, length, ...)."""
        age = torch.arange(min(rows, self.size), device=self.device)
        env = torch.arange(self.num_envs, device=self.device)
        ages, envs = torch.meshgrid(age, env, indexing="ij")
        return self.gather(ages.flatten(), envs.flatten(), length)

    def gather(self, age: Tensor, env: Tensor, length: int) -> Window:
        """The windows that end ``age`` (B,) rows before the newest one, in environments ``env`` (B,)."""
        back = torch.arange(length - 1, -1, -1, device=self.device)
        ages = age.unsqueeze(1) + back  # (B, T)
        row = (self._added - 1 - ages) % self.rows
        flat = row * self.num_envs + env.unsqueeze(1)
        first = self.first.view(-1)[flat]
        # A row belongs to the last row's episode if no episode starts after it within the window.
        starts_after = first.flip(1).cumsum(1).flip(1) - first.long()
        valid = (starts_after == 0) & (ages < self.size)

        def column(values: Tensor) -> Tensor:
            rows = values.view(self.rows * self.num_envs, *values.shape[2:])[flat]
            keep = valid.view(*valid.shape, *[1] * (rows.dim() - 2))
            return rows * keep if rows.is_floating_point() else rows & keep

        state, action, reward = column(self.state), column(self.action), column(self.reward)
        return Window(state, action, reward, column(self.terminal), valid, column(self.last))

    def state_dict(self) -> dict[str, Tensor | int]:
        """The rows kept, in ring order, how many were ever written, and the random state."""
        rows = {name: getattr(self, name)[: self._added] for name in self._columns}
        counters = {"rows": self.rows, "added": self._added, "size": self.size}
        return {**rows, **counters, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict) -> None:
        """Continue from ``state_dict``. On another kind of device the random stream starts anew.

        Raises:
            ValueError: the rows were written with other sizes.
        """
        if int(state["rows"]) != self.rows:
            raise ValueError(f"the replay holds {state['rows']} rows per environment, this run {self.rows}")
        for name in self._columns if int(state["size"]) else ():
            mine, theirs = getattr(self, name), state[name]
            if theirs.shape[1:] != mine.shape[1:]:
                rows, ours = tuple(theirs.shape[1:]), tuple(mine.shape[1:])
                raise ValueError(f"replay column '{name}' has rows {rows}, this run {ours}")
            mine[: theirs.shape[0]] = theirs.to(self.device)
        self._added = int(state["added"])
        self._oldest = self._added - int(state["size"])
        restore_generator(self.generator, state["generator"])


def draw_ages(batch: int, size: int, edges: Tensor, generator: torch.Generator) -> Tensor:
    """Ages (B,) in [0, ``size``), 0 the newest row; ``edges`` is the cumulative mass up to the end of each quarter.

    Quarters have equal lengths up to rounding. With fewer rows than quarters the draw is uniform.
    """
    quarters = edges.shape[0]
    u = torch.rand(2, batch, device=edges.device, generator=generator)
    if size < quarters:
        return (u[0] * size).long().clamp_max(size - 1)
    quarter = torch.bucketize(u[0] * edges[-1], edges).clamp_max(quarters - 1)
    return ((quarter + u[1]) * (size / quarters)).long().clamp_max(size - 1)
