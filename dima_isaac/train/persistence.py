"""Saving a run and continuing it: a table of named parts, each with how its state is taken and restored."""

from collections.abc import Callable
from typing import Any

from torch import nn

from dima_isaac.config import RunConfig
from dima_isaac.errors import CheckpointError, DivergenceError, UsageError
from dima_isaac.nn.captured import tree_leaves
from dima_isaac.run.checkpoint import Checkpoints
from dima_isaac.run.folder import RESUME, RunFolder
from dima_isaac.run.logger import Logger

Part = tuple[Callable[[], Any], Callable[[Any], Any]]
"""How a part's state is taken, and how it is restored."""
LEARNT = ("agent", "agent_optim", "world", "world_optim", "rl_games")
"""Parts whose numbers are finite as long as learning goes on."""


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
        self, cfg: RunConfig, run: RunFolder, logger: Logger, parts: dict[str, Part], actor: nn.Module
    ) -> None:
        """Keep ``parts`` in the checkpoints of ``run`` under their names; "env_steps" and "replay" are among them.

        ``actor`` is what an exported policy, which is that alone, has the weights of.
        """
        self.cfg, self.run, self.logger, self.parts, self.actor = cfg, run, logger, parts, actor
        self.checkpoints = Checkpoints(run.checkpoints, cfg, logger.note)
        self._missed = self._went_back = False
        self._saved_at: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit on a deterministic engine."""
        return {name: take() for name, (take, _) in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        for name, (_, restore) in self.parts.items():
            restore(state[name])

    def save(self, env_steps: int, final: bool = False) -> bool:
        """Save everything, so that a kill costs at most the steps since; returns whether it could be written.

        What was saved at these ``env_steps`` before is not written again: it might not succeed a second time. Where
        the run's folder is gone, the next save tries it again. If it is still gone then, or this is the ``final`` save,
        the run moves to a new folder beside it.

        Raises:
            DivergenceError: weights that are not finite; the checkpoints stay as they are.
        """
        self.logger.flush(env_steps)  # an evaluation since the last row: no continuation would make it again
        in_place = self.run.in_place()
        if in_place and self._saved_at == env_steps:
            return True
        self.check_finite(env_steps)
        if not in_place and not self._move(final):
            return False
        self._missed = False
        saved = self.checkpoints.save(env_steps, self.state_dict())
        if saved:
            self._saved_at = env_steps
        return saved

    def check_finite(self, env_steps: int) -> None:
        """Raise ``DivergenceError`` where what was learnt is not finite."""
        parts = {name: tree_leaves(self.parts[name][0]()) for name in LEARNT if name in self.parts}
        lost = [name for name, leaves in parts.items() if not all(bool(leaf.isfinite().all()) for leaf in leaves)]
        if lost:
            raise DivergenceError(
                f"there are numbers that are not finite in {' and '.join(lost)} at {env_steps:,} environment steps;"
                " they were not saved. Lower the learning rate."
            )

    def go_back(self, error: DivergenceError) -> None:
        """Continue from the newest checkpoint of this run after ``error``, once.

        The caller changes the random numbers: the same ones would lead there again.

        Raises:
            DivergenceError: ``error``, at the second call, or where there is no checkpoint.
        """
        state = None if self._went_back else self.checkpoints.newest()
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
            self.checkpoints = Checkpoints(self.run.checkpoints, self.cfg, self.logger.note)
        except (UsageError, OSError) as error:
            self.logger.note(f"checkpoint not saved: {gone} is gone; {error}")
            return False
        self.logger.note(f"{gone} is gone; the run goes on in {self.run.path}.")
        return True

    def resume(self) -> bool:
        """Continue from the checkpoint that the configuration names; False if there is none to continue from.

        An exported policy gives the actors their weights, and then the run begins.

        Raises:
            CheckpointError: torn, altered, of another task, or of other sizes than this run's.
        """
        state = self.checkpoints.restore()
        if state is None:
            self.logger.rewind(0)
            return False
        alone = "policy" in state
        try:
            if alone:
                self.actor.load_state_dict(state["policy"])
            else:
                self.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            which = self.cfg.checkpoint
            raise CheckpointError(f"checkpoint={which} does not fit this run's settings: {reason}") from error
        if alone:
            self.logger.rewind(0)
            self.logger.note("the actors begin with the weights of that policy; all else begins anew")
            return False
        env_steps = int(state["env_steps"])
        self.logger.rewind(env_steps)
        self.logger.note(f"continuing at {env_steps:,} environment steps")
        if self.cfg.checkpoint not in RESUME:  # another run's: a kill before the first save here would begin anew
            self.save(env_steps)
        return True
