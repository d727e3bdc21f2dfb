"""Saving a run and continuing it: a table of named parts, each with how its state is taken and restored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dima_isaac import ranks
from dima_isaac.config import RunConfig
from dima_isaac.errors import CheckpointError, DivergenceError, UsageError
from dima_isaac.nn.captured import tree_leaves
from dima_isaac.run.checkpoint import Checkpoints
from dima_isaac.run.folder import RESUME, RunFolder, has_begun
from dima_isaac.run.logger import Logger
from dima_isaac.run.plan import changes, listed
from dima_isaac.run.segments import columns

Part = tuple[Callable[[], Any], Callable[[Any], Any]]
"""How a part's state is taken, and how it is restored."""
LEARNT = ("agent", "agent_optim", "world", "world_optim", "rl_games")
"""Parts whose numbers are finite as long as learning goes on."""
_ENVIRONMENTS = ("env", "step", "explorer", "pool")
_OWN = ("generator", "running")
"""What differs between ranks: these parts, and these entries of other parts; and the replay's rows."""


def attribute(owner: object, name: str) -> Part:
    """One attribute of ``owner``."""
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


def state(owner: Any) -> Part:
    """The ``state_dict`` of ``owner``."""
    return owner.state_dict, owner.load_state_dict


def optim_state(owner: Any) -> Part:
    """The ``optim_state`` of ``owner``."""
    return owner.optim_state, owner.load_optim_state


class Persistence:
    """The parts of a run, saved together and restored together: all that a continuation needs."""

    def __init__(
        self,
        cfg: RunConfig,
        run: RunFolder,
        logger: Logger,
        parts: dict[str, Part],
        load_policy: Callable[[dict[str, Any]], object],
        begin: Callable[[], object],
    ) -> None:
        """Keep ``parts`` in the checkpoints of ``run`` under their names; "env_steps" is among them.

        ``load_policy`` takes the weights of an exported policy, which has nothing else. ``begin`` starts new episodes:
        where nothing is restored, and after another number of ranks than today's.
        """
        self.cfg, self.run, self.logger, self.parts, self.begin = cfg, run, logger, parts, begin
        self.load_policy = load_policy
        self.checkpoints = Checkpoints(run.checkpoints, cfg, logger.note)
        self._missed = self._went_back = False
        self._saved_at: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit on a deterministic engine."""
        return {name: take() for name, (take, _) in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the ``state_dict`` of any number of ranks."""
        of_ranks = state.get("ranks", [{}])  # a single process saves no differences between ranks
        if ranks.rank() < len(of_ranks):
            own = of_ranks[ranks.rank()]
        else:  # streams that were never drawn from stay as they were seeded
            own = {name: {key: torch.empty(0) for key in part} for name, part in _own(state).items()}
        state = {name: {**part, **own[name]} if name in own else part for name, part in state.items()}
        if "replay" in state:
            rows = columns(state["replay"]).items()
            state["replay"] |= {name: column.chunk(ranks.count(), 1)[ranks.rank()] for name, column in rows}
        same = len(of_ranks) == ranks.count()
        for name, (_, restore) in self.parts.items():
            if same or name not in _ENVIRONMENTS:
                restore(state[name])
        if not same:
            self.begin()

    def save(self, env_steps: int, final: bool = False) -> bool:
        """Save everything, so that a kill costs at most the steps since; returns whether it could be written.

        What was saved at these ``env_steps`` before is not written again: it might not succeed a second time. Where
        the run's folder is gone, the next save tries it again. If it is still gone then, or this is the ``final`` save,
        the run moves to a new folder beside it.

        Rank 0 saves what all ranks share and, as ``ranks``, what each has of its own. Once one has died, the one
        that gets the run's folder saves without that.

        Raises:
            DivergenceError: weights that are not finite; the checkpoints stay as they are.
        """
        if ranks.lost() and not self.run.take_over():
            return False
        if ranks.lost() and (self.checkpoints.folder / f"step_{env_steps}.pt").exists():  # another one has saved it
            return True
        self.logger.flush(env_steps)  # an evaluation since the last row: no continuation would make it again
        in_place = ranks.from_first(self.run.in_place)
        if in_place and self._saved_at == env_steps:
            return True
        self.check_finite(env_steps)
        path = ranks.from_first(lambda: self.run.path if in_place or self._move(final) else None)
        if path is None:
            return False
        if path != self.run.path:
            self._use(path)
        self._missed = False
        state = self.state_dict()
        if ranks.count() > 1:
            state["ranks"] = [] if ranks.lost() else ranks.gathered(_own(state))
        saved = self.checkpoints.save(env_steps, state)
        if saved:
            self._saved_at = env_steps
        return saved

    def _use(self, path: Path) -> None:
        self.run.path = path
        self.checkpoints = Checkpoints(self.run.checkpoints, self.cfg, self.logger.note)

    def check_finite(self, env_steps: int) -> None:
        """Raise ``DivergenceError`` where what was learnt is not finite; it is the same on all ranks."""
        parts = {name: tree_leaves(self.parts[name][0]()) for name in LEARNT if name in self.parts}
        lost = [name for name, leaves in parts.items() if not all(bool(leaf.isfinite().all()) for leaf in leaves)]
        lost = ranks.from_first(lambda: lost)
        if lost:
            raise DivergenceError(
                f"there are numbers that are not finite in {' and '.join(lost)} at {env_steps:,} environment steps;"
                " they were not saved. Lower the learning rate."
            )

    def go_back(self, error: DivergenceError) -> None:
        """Continue from the newest checkpoint of this run after ``error``, once.

        The caller changes the random numbers: the same ones would lead there again.

        Raises:
            DivergenceError: ``error``, at the second call, or where there is no checkpoint or this rank has left.
        """
        state = None if self._went_back or ranks.lost() else ranks.after_first(self.checkpoints.newest)
        if state is None:
            raise error
        self._went_back, self._saved_at = True, None
        self.load_state_dict(state)
        self.logger.rewind(int(state["env_steps"]))
        self.logger.note(f"{error} Going back to {state['env_steps']:,} environment steps, this once.")

    def _move(self, now: bool) -> bool:
        """Go on in a new folder ``now`` or at the second call; returns whether the run has one."""
        gone = self.run.path
        if not now and not self._missed:
            self.logger.note(f"checkpoint not saved: {gone} is gone. Unless it is back at the next one, the run moves.")
            self._missed = True
            return False
        try:
            self.run.move_beside(self.cfg)
            self.logger.move()
            self._use(self.run.path)
        except (UsageError, OSError) as error:
            self.logger.note(f"checkpoint not saved: {gone} is gone; {error}")
            return False
        self.logger.note(f"{gone} is gone; the run goes on in {self.run.path}.")
        return True

    def resume(self) -> None:
        """Continue from the checkpoint that the configuration names, or begin.

        An exported policy gives the actors their weights, where the learner takes such, and then the run begins.

        Raises:
            CheckpointError: torn, altered, of another task, or of other sizes than this run's.
        """
        state = ranks.after_first(self.checkpoints.restore)  # which may set damaged files aside
        if state is None:
            if has_begun(self.run.path):
                self.logger.note("there is no checkpoint: the run begins anew, and its metrics with it")
            self.logger.rewind(0)
            self.begin()
            return
        alone = "policy" in state
        try:
            if alone:
                self.load_policy(state["policy"])
            else:
                self.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            # what decides which weights there are, and of what sizes
            keys = ("algo", "task.", "agent.") if alone else ("algo", "task.", "agent.", "world_model.", "num_envs")
            made = {key: pair for key, pair in changes(state["config"], self.cfg).items() if key.startswith(keys)}
            reason = (
                f"it was made with other settings ({listed(made)})." if made else " ".join(str(error).split())[:300]
            )
            raise CheckpointError(f"checkpoint={self.cfg.checkpoint} does not fit this run: {reason}") from error
        env_steps = 0 if alone else int(state["env_steps"])
        if ranks.from_first(lambda: env_steps) != env_steps:
            raise CheckpointError(f"rank {ranks.rank()} sees another checkpoint than rank 0; share the run's folder.")
        self.logger.rewind(env_steps)
        if alone:
            self.logger.note("the actors begin with the weights of that policy; all else begins anew")
            self.begin()
        else:
            self.logger.note(f"continuing at {env_steps:,} environment steps")
        if self.cfg.checkpoint not in RESUME:  # another run's: a kill before the first save here would begin anew
            self.save(env_steps)


def _own(state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What only this rank has of ``state``, without the replay's rows."""
    parts = {name: part for name, part in state.items() if isinstance(part, dict)}
    return {
        name: {key: value for key, value in part.items() if name in _ENVIRONMENTS or key in _OWN}
        for name, part in parts.items()
    }
