"""What every training loop of ours does around its learning: act, store, evaluate, log, save, stop."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar, TypeVar

import torch

from dima_isaac import ranks
from dima_isaac.agent.explore import Explorer
from dima_isaac.agent.learner import Learner, build_learner
from dima_isaac.config import RunConfig, per_rank
from dima_isaac.envs.vec_env import VecEnv
from dima_isaac.errors import CheckpointError, DivergenceError, SimulationError, WorkerError
from dima_isaac.nn.captured import Captured
from dima_isaac.replay.ring import ReplayBuffer
from dima_isaac.run.folder import RunFolder, steps_in
from dima_isaac.run.logger import Logger
from dima_isaac.run.signals import Interrupted, Signals, interruptible
from dima_isaac.training.clock import Ratio, Schedule
from dima_isaac.training.evaluate import Evaluator, add_environment_metrics
from dima_isaac.training.persistence import Part, Persistence, attribute, optim_state, state
from dima_isaac.types import Step
from dima_isaac.world_model.config import Precision

T = TypeVar("T")

MAX_NONFINITE = 10  # rows in a row with a non-finite loss before the run gives up


class TrainingLoop(ABC):
    """Owns environments, agents and replay; a subclass defines what is learned from them, and when (``learn``).

    Methods of subclasses without a docstring are documented here.
    """

    agent: Learner
    losses: ClassVar[tuple[str, ...]]
    """Metrics that are finite as long as learning goes on."""

    def __init__(self, cfg: RunConfig, run: RunFolder, env: VecEnv, eval_env: VecEnv, logger: Logger, signals: Signals):
        """Build the learners for ``env``, and continue from the checkpoint that ``cfg`` names, if it names one.

        With several ranks ``env`` is this one's share of the environments that ``cfg`` names, and ``self.cfg`` its
        share of the work.

        Raises:
            CheckpointError: that checkpoint is damaged or does not fit.
        """
        self.cfg, self.run_folder, self.logger, self.signals = per_rank(cfg, ranks.count()), run, logger, signals
        seed = ranks.seed(cfg.seed)
        self.env, self.eval_env, self.device = env, eval_env, torch.device(cfg.rl_device)
        dims, clip_actions = env.spec.dims, cfg.world_model.clip_actions
        bf16 = cfg.world_model.precision is Precision.bf16
        self.agent = build_learner(
            self.cfg.agent, env.task, self.device, clip_actions=clip_actions, bf16=bf16, seed=seed + 1
        )
        self.replay = ReplayBuffer(self.cfg.replay, dims, env.num_envs, self.device, seed=seed + 2)
        self.explorer = Explorer(cfg.agent.explore, dims, env.num_envs, self.device, seed=seed + 3)
        self.schedule = Schedule(cfg.train, self.updates())
        self.evaluator = Evaluator(cfg, run, eval_env, logger)
        self.env_steps = 0  # of all ranks
        self.stop: str | None = None  # the signal that any rank has received
        self._nonfinite = 0
        self.step: Step
        self.persistence = Persistence(cfg, run, logger, self.parts(), self.agent.load_policy, self.begin)
        self.persistence.resume()
        if cfg.compile is True:
            self.capture()

    @abstractmethod
    def updates(self) -> dict[str, Ratio]:
        """How many updates of each kind are due, by name."""

    @abstractmethod
    def learn(self) -> None:
        """Whatever is due after a step of all environments; called again after ``Interrupted``, the rest of it."""

    def captured(self) -> list[tuple[object, tuple[str, ...]]]:
        """Objects and their methods that may be played as graphs."""
        return [(self.agent, self.agent.captured)]

    def generators(self) -> tuple[torch.Generator, ...]:
        """Of every draw that ``captured`` methods make."""
        return (self.agent.generator,)

    def parts(self) -> dict[str, Part]:
        """What a checkpoint holds of a run."""
        return {
            "env_steps": attribute(self, "env_steps"),
            "evaluations": attribute(self.evaluator, "evaluations"),
            "schedule": state(self.schedule),
            "agent": state(self.agent),
            "agent_optim": optim_state(self.agent),
            "explorer": state(self.explorer),
            "env": state(self.env),
            "step": (lambda: vars(self.step), self._load_step),
            "replay": state(self.replay),
        }

    def _load_step(self, columns: dict[str, torch.Tensor]) -> None:
        self.step = Step(**{name: column.to(self.device) for name, column in columns.items()})

    def begin(self) -> None:
        """Start new episodes in all environments, of numbers that no episode of the run has had."""
        self.step = self.env.reset(self.env_steps + 1)

    def run(self) -> None:
        """Train until the step budget is spent or a signal asks for an end.

        Raises:
            CheckpointError: the state at the end could not be saved.
            DivergenceError: losses or weights were not finite, again after going back to the newest checkpoint.
            WorkerError: the environments or another rank are lost; what was learnt is saved.
        """
        for _ in self.steps():
            pass

    def steps(self) -> Generator[None, None, None]:
        """As ``run``, pausing after every step of all environments; what was learnt is saved if that is left early."""
        try:
            try:
                saved = yield from self.to_the_end()
            except DivergenceError as error:
                self.go_back(error)
                saved = yield from self.to_the_end()
        except (WorkerError, GeneratorExit):
            ranks.leave()
            self.save(final=True)
            raise
        with suppress(Interrupted):  # after the save: a continuation evaluates by its own schedule
            if not self.stopping():
                self.evaluate()
                self.log_metrics()
        if not saved:
            raise CheckpointError(
                f"the run stopped at {self.env_steps:,} environment steps and could not be saved there."
                f" Make room, then: {self.run_folder.resume_command}"
                + ("" if steps_in(self.run_folder.checkpoints) else " (from the beginning: nothing could be saved)")
            )

    def to_the_end(self) -> Generator[None, None, bool]:
        """Train and save; returns whether it could be saved."""
        try:
            yield from self.loop()
        except SimulationError:
            ranks.leave()
            self.persistence.check_finite(self.env_steps)  # weights that are not make actions that are not
            raise
        return self.save(final=True)

    def go_back(self, error: DivergenceError) -> None:
        """Continue from the newest checkpoint with other random numbers, once.

        Raises:
            DivergenceError: ``error``, where that is not possible.
        """
        self.persistence.go_back(error)
        for number, generator in enumerate(self.generators(), ranks.seed(self.cfg.seed) + self.env_steps):
            generator.manual_seed(number)
        self._nonfinite = 0
        if self.cfg.compile is True:
            self.capture()

    def loop(self) -> Iterator[None]:
        """Act and learn, with evaluations and checkpoints in between."""
        schedule = self.schedule
        with suppress(Interrupted):
            if self.unfinished():
                self.finish_round()
            while self.env_steps < self.cfg.max_env_steps and not self.stopping():
                if schedule.evaluation_due.pending(self.env_steps):
                    self.evaluate()
                    schedule.evaluation_due(self.env_steps)
                self.collect()
                self.finish_round()
                yield

    def unfinished(self) -> bool:
        """Whether the run was left in the middle of a round, of which updates are still due."""
        agent = self.schedule.updates_due.get("agent")
        due = self.schedule.learning_due.pending(self.env_steps) or (agent and agent.pending(self.env_steps))
        return self.env_steps > 0 and bool(due)

    def finish_round(self) -> None:
        """What follows a step of all environments."""
        self.learn()
        if self.schedule.checkpoint_due(self.env_steps):
            self.save()

    def due(self, name: str) -> Iterator[None]:
        """Once for each update of this kind that is due, which then counts as done.

        Raises:
            Interrupted: a signal asks for an end; the others are still due.
        """
        ratio = self.schedule.updates_due[name]
        while left := ratio.pending(self.env_steps):
            self.check_signals()
            yield
            ratio.done += 1
            self.logger.progress(f"{self.env_steps:>11,} steps, learning: {left - 1:,} {name} updates left")

    def check_signals(self) -> None:
        """Raise ``Interrupted`` on all ranks if a signal asks one of them for an end."""
        if self.stopping():
            raise Interrupted

    @contextmanager
    def undone_by_signals(self) -> Iterator[None]:
        """The body changes nothing but random streams; a signal raises ``Interrupted`` in it and takes them back.

        The body exchanges nothing with other ranks, which are asked after it. Not in graphs: a capture must not be left
        halfway.
        """
        if self.cfg.compile is True:
            yield
            return
        streams = {stream: stream.get_state() for stream in (*self.generators(), self.replay.generator)}
        interrupted = self.signals.raises = True
        try:
            if not self.signals.stop:  # one that came before ``raises`` was set
                yield
                interrupted = False
        except Interrupted:
            pass
        finally:
            self.signals.raises = False
        if ranks.count() > 1:
            interrupted = self.stopping()
        if interrupted:
            for stream, state_before in streams.items():
                stream.set_state(state_before)
            raise Interrupted

    def on_first(self, work: Callable[[], object]) -> None:
        """``work`` on rank 0, for which the others wait.

        Raises:
            Interrupted: on all ranks, where a signal to rank 0 ended it.
        """

        def completed() -> bool:
            with suppress(Interrupted):
                work()
                return True
            return False

        if not ranks.from_first(completed):
            raise Interrupted

    def stopping(self) -> bool:
        """Whether any rank has received a signal: all stop after the same step."""
        self.stop = ranks.agreed(self.signals.stop)
        return self.stop is not None

    def collect(self) -> None:
        """Act once in every environment and store the row acted on."""
        step = self.step
        self.agent.track(step)
        action, _ = self.agent.act(step.obs)
        action = self.explorer(action, step.first)
        if self.cfg.world_model.clip_actions:
            action = action.clamp(-1.0, 1.0)
        self.step = self.env.step(action)  # before the row is stored: if this raises, a continuation would store it too
        self.replay.add(step, action)
        self.env_steps += self.env.num_envs * ranks.count()

    def evaluate(self) -> None:
        """Run deterministic episodes on separate environments; training's random numbers stay untouched."""
        number, mode = self.evaluator.evaluations + 1, interruptible(self.signals, self.agent.mode)
        self.on_first(lambda: self.evaluator.evaluate(mode, self.env_steps))
        self.evaluator.evaluations = number  # on the other ranks, too

    def log_metrics(self) -> dict[str, float | None]:
        """Write one row of metrics and return it: the only place in the loop where numbers reach the host.

        Raises:
            DivergenceError: a loss was not finite in each of the last ``MAX_NONFINITE`` rows that have losses.
        """
        add_environment_metrics(self.logger, self.env)
        row = self.logger.write(self.env_steps)
        losses = [name for name in self.losses if name in row]
        lost = [name for name in losses if row[name] is None]
        if losses:
            self._nonfinite = self._nonfinite + 1 if lost else 0
        if self._nonfinite >= MAX_NONFINITE:
            raise DivergenceError(
                f"{' and '.join(lost)} stayed non-finite for {MAX_NONFINITE} rounds; no update was made from them, and"
                f" {self.run_folder.checkpoints / 'last.pt'} is from before or during them. Lower the learning rate."
            )
        return row

    def capture(self) -> None:
        """From now on play the updates as graphs, with the same results (``compile``)."""
        for owner, names in self.captured():
            for name in names:
                vars(owner).pop(name, None)  # an earlier graph, whose optimiser states are no longer used
                setattr(owner, name, Captured(getattr(owner, name), self.generators))

    def save(self, final: bool = False) -> bool:
        """Save everything a continuation needs, for the last time if ``final``; returns whether it could be written."""
        return self.persistence.save(self.env_steps, final)
