"""The learning rates and decays that a comparison compares, searched for."""

import csv
import dataclasses
import math
import os
from collections.abc import Callable
from collections.abc import Sequence

from keras_wd.cli import checkpoint
from keras_wd.cli import config
from keras_wd.cli import executors
from keras_wd.cli import grid
from keras_wd.cli import halving
from keras_wd.cli import history
from keras_wd.cli import optimizer_factory
from keras_wd.cli.files import replacing
from keras_wd.cli.grid import Cell
from keras_wd.cli.halving import Space
from keras_wd.cli.halving import Trial
from keras_wd.cli.rate_schedules import numbers
from keras_wd.cli.usage_errors import UsageError

TABLE, FOLDER = "search.csv", "search"
# No seed that anybody compares: what is chosen owes nothing to its luck.
FIRST_SEED = 10**6
# How far from the usual rates, on both sides.
LEARNING_RATES, DECAYS = 10, 30
_NEAR = 1.2  # the end of a range, as a factor


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the search of an optimizer with a decay found.

    Attributes:
        optimizer, method: as in a `Cell`.
        space: what was searched.
        trials: what was tried.
    """

    optimizer: str
    method: str
    space: Space
    trials: Sequence[Trial]

    @property
    def best(self) -> Trial:
        return halving.best(list(self.trials))

    @property
    def epochs(self) -> int:
        """What was spent."""
        return sum(trial.epochs for trial in self.trials)

    @property
    def budgets(self) -> dict[int, int]:
        """How many trials were trained at least so long, by epochs."""
        reached = sorted({trial.epochs for trial in self.trials} - {0})
        return {
            epochs: sum(trial.epochs >= epochs for trial in self.trials)
            for epochs in reached
        }

    def __str__(self) -> str:
        counts = ", ".join(
            f"{count} to epoch {epochs}"
            for epochs, count in self.budgets.items()
        )
        best = self.best
        decay = best.weight_decay
        rates = f"learning rate {best.learning_rate:g}" + (
            "" if decay is None else f", decay {decay:g}"
        )
        return (
            f"{self.optimizer} {self.method}: {rates}, of {len(self.trials)} "
            f"trials ({counts}; {self.epochs} epochs in all)"
        )


def notes(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence for every rate chosen at the end of its range."""
    found = []
    for one in outcomes:
        best = one.best
        for flag, name, limits, rate in (
            (
                "learning_rates",
                "learning rate",
                one.space.learning_rate,
                best.learning_rate,
            ),
            ("rates", "rate", one.space.weight_decay, best.weight_decay),
        ):
            if limits is None or rate is None:
                continue
            low, high = limits
            if low * _NEAR < rate < high / _NEAR:
                continue
            found.append(
                f"The {name} of {one.optimizer} {one.method}, {rate:g}, is at "
                f"an end of what was searched, {low:.3g} to {high:.3g}: a "
                f"wider range may have better ones (--{flag})."
            )
    return found


def space(
    optimizer: str,
    method: str,
    rates: Sequence[float],
    learning_rates: Sequence[float],
) -> Space:
    """What is searched for an optimizer and a method.

    Args:
        optimizer: its name.
        method: a key of `grid.METHODS`.
        rates: lowest and highest of the decay; none for the usual ones.
        learning_rates: lowest and highest; none for the usual ones.
    """
    usual = optimizer_factory.OPTIMIZERS[optimizer].learning_rate
    (decay,) = grid.rates_of(optimizer, method, [])
    low_high = _range(learning_rates, usual, LEARNING_RATES)
    if decay is None:
        return Space(low_high, None, (_inside(usual, low_high), None))
    limits = _range(rates, decay, DECAYS)
    first = (_inside(usual, low_high), _inside(decay, limits))
    return Space(low_high, limits, first)


def limits(flag: str, text: str | None) -> list[float]:
    """The lowest and the highest of a flag; empty if it is not set.

    Raises:
        UsageError: if they are no such pair.
    """
    found = numbers(flag, text, float, 0)
    if found and not (len(found) == 2 and 0 < found[0] < found[1]):
        raise UsageError(
            f"--{flag} must be the lowest and the highest with --search=asha, "
            f"as in 0.001,0.1, above 0. Received: --{flag}={text}"
        )
    return found


def _range(given, usual, factor):
    return tuple(given) or (usual / factor, usual * factor)


def _inside(rate, limits):
    """The rate, or the middle of limits that leave it out."""
    low, high = limits
    return rate if low <= rate <= high else math.sqrt(low * high)


class Search:
    """The search of one optimizer with one method.

    Attributes:
        name: for messages.
        budget: epochs it may spend.
        spent: epochs so far.
        folder: of its trials.
        outcome: once it is complete.

    What was trained before is read from its folder, so that a search that is
    started again takes the same course.

    Args:
        optimizer: its name.
        method: a key of `grid.METHODS`.
        space: what is searched.
        epochs: of a whole run.
        budget: of all trials, in epochs.
        seed: decides what is tried.
        settings_of: the settings of a run of a `Cell`.
        folder: of the comparison.
    """

    def __init__(
        self,
        optimizer: str,
        method: str,
        space: Space,
        epochs: int,
        budget: int,
        seed: int,
        settings_of: Callable[[Cell], dict],
        folder: str,
    ):
        self.name = f"{optimizer} {method}"
        self.budget = budget
        self.spent = 0
        self._output_dir = folder
        self._key = (optimizer, method)
        self._space = space
        self._seed = FIRST_SEED + seed
        self._settings_of = settings_of
        self.folder = os.path.join(folder, FOLDER, f"{optimizer}-{method}")
        self._stages = halving.trials(space, epochs, budget, seed)
        self._stage: halving.Stage | None = None
        self.outcome: Outcome | None = None

    def next_job(self, problem: str = "") -> executors.Job | None:
        """What to train now; None when the search is complete.

        Args:
            problem: what was wrong with the job before.
        """
        while True:
            try:
                if self._stage is None:
                    self._stage = next(self._stages)
                trial, until = self._stage
                folder = self._folder_of(trial)
                settings = self._settings_of(self._cell(trial))
                config.refuse_other_run(folder, settings, self._output_dir)
                merit = _merit(folder, until)
                if merit is None and not problem:
                    return settings, folder, until
                problem = ""
                self.spent += until - trial.epochs
                self._stage = self._stages.send(merit or (math.nan,))
            except StopIteration as end:
                self._finish(end.value)
                return None

    def _cell(self, trial):
        return Cell(
            *self._key, trial.weight_decay, self._seed, trial.learning_rate
        )

    def _folder_of(self, trial):
        return os.path.join(self.folder, f"trial-{trial.number:03d}")

    def _finish(self, trials):
        self.outcome = Outcome(*self._key, self._space, trials)
        for trial in trials:
            checkpoint.remove(self._folder_of(trial))


def _merit(folder, epochs):
    """What a trial gave after so many epochs; None if it is not so far."""
    rows = history.read(folder)[:epochs]
    last = rows[-1] if rows else {}
    numbers = [last.get(name, 0.0) for name in ("loss", "val_loss")]
    if not all(map(math.isfinite, numbers)):
        return (math.nan,)
    if len(rows) < epochs:
        return None
    if "val_accuracy" in last:
        return last["val_accuracy"], -last["val_loss"]
    return (-last["val_loss"],)


def run(
    searches: Sequence[Search],
    jobs: list[executors.Job],
    compute: Callable,
    workers: int,
    progress,
) -> None:
    """Go on with searches until they are complete.

    Args:
        searches: one for each optimizer and method.
        jobs: the next of each that has one.
        compute: an executor.
        workers: for it.
        progress: of `rich`, which shows it.
    """
    by_folder = {one.folder: one for one in searches}
    task = progress.add_task(
        "searching, in epochs", total=sum(one.budget for one in searches)
    )

    def show():
        # What a search cannot spend any more counts as spent.
        progress.update(
            task,
            completed=sum(
                one.budget if one.outcome else min(one.spent, one.budget)
                for one in searches
            ),
        )

    show()
    for where, problem in compute(jobs, workers):
        one = by_folder[os.path.dirname(where)]
        if problem:
            name = f"{one.name}, {os.path.basename(where)}"
            progress.console.print(f"{name}: {problem}", markup=False)
        job = one.next_job(problem)
        if job is not None:
            jobs.append(job)
        show()


def write_table(outcomes: Sequence[Outcome], path: str) -> None:
    """A line per trial, as CSV."""
    with replacing(path) as draft:
        with open(draft, "w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(
                [
                    "optimizer",
                    "method",
                    "trial",
                    "learning_rate",
                    "weight_decay",
                    "epochs",
                    "val_accuracy",
                    "val_loss",
                    "status",
                ]
            )
            for outcome in outcomes:
                for trial in outcome.trials:
                    lines.writerow(_line(outcome, trial))


def _line(outcome, trial):
    decay = "" if trial.weight_decay is None else trial.weight_decay
    merit = ["", ""]
    if not trial.failed:
        merit = [*trial.merit[:-1], -trial.merit[-1]]
        merit = [""] * (2 - len(merit)) + merit
    status = "stopped" if trial.epochs < outcome.best.epochs else "complete"
    if trial.failed:
        status = "failed"
    if trial is outcome.best:
        status = "chosen"
    return [
        *(outcome.optimizer, outcome.method, trial.number),
        *(trial.learning_rate, decay, trial.epochs, *merit, status),
    ]
