"""`keras-wd compare`: which decay, how much, and what it did."""

import math
import os
import shlex
import shutil
from collections.abc import Mapping
from collections.abc import Sequence

from keras_wd.cli import command_line
from keras_wd.cli import compare_flags
from keras_wd.cli import config
from keras_wd.cli import datasets
from keras_wd.cli import distribute
from keras_wd.cli import executors
from keras_wd.cli import files
from keras_wd.cli import grid
from keras_wd.cli import history
from keras_wd.cli import html_report
from keras_wd.cli import models
from keras_wd.cli import optimizer_factory
from keras_wd.cli import report
from keras_wd.cli import results
from keras_wd.cli import search
from keras_wd.cli import worker
from keras_wd.cli.rate_schedules import numbers
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import require

REPORT, TABLE = "report.html", "runs.csv"


def main(arguments: Sequence[str]) -> int:
    """Compare as the flags say; return the exit status.

    Raises:
        UsageError: for a mistake in the flags, before anything is written.
    """
    if command_line.asks_for_help(arguments):
        print(compare_flags.help_text())
        return 0
    own, shared = compare_flags.split(arguments)
    distribute.refuse_processes()
    require("jinja2", "matplotlib", "rich", "tensorboard")
    if own.executor == "ray":
        require("ray", extra="ray")
    if own.search != "none":
        require("optuna", extra="search")
    cells = _cells(own)
    kinds = {(cell.optimizer, cell.method) for cell in cells}
    compare_flags.check_used(shared, kinds)
    settings = {cell: _settings(cell, shared) for cell in cells}
    first = settings[cells[0]]
    data = datasets.for_run(first)
    models.check(first["model"], data)
    folder = os.path.abspath(own.output_dir)
    outcomes = []
    if own.search == "none":
        _check_folder(folder, settings)
    else:
        outcomes = _search(own, shared, first["epochs"], folder)
        cells = _cells(own, outcomes)
        settings = {cell: _settings(cell, shared) for cell in cells}
    is_new = not os.path.exists(folder)
    files.make_folder(folder, "comparison")
    try:
        problems = _compute(own, settings, folder)
    except UsageError as error:
        # Unless the message sends the user to a log in it.
        if is_new and worker.LOG not in str(error):
            shutil.rmtree(folder)
        raise
    runs = [
        results.read(cell, where, problems.get(where, ""))
        for cell in cells
        for where in [results.folder_of(cell, folder)]
    ]
    results.write_table(runs, os.path.join(folder, TABLE))
    found = html_report.write(
        runs,
        os.path.join(folder, REPORT),
        title=f"Weight decay on {data.name}",
        subtitle=_subtitle(first, own, data, runs),
        command=shlex.join(["keras-wd", "compare", *arguments]),
        outcomes=outcomes,
        environment=", ".join(
            f"{name} {version}"
            for name, version in config.environment().items()
        ),
    )
    print()
    for title, sentences in (
        ("Answer", found.answer),
        ("Certain", found.certain),
        ("How it acted", found.mechanisms),
        ("Not resolved", found.open),
        ("Notes", found.notes),
    ):
        if sentences:
            print(f"{title}:")
        for sentence in sentences:
            print("\n".join(command_line.wrapped(f"- {sentence}", "  ")))
    print(
        f"\nIn {own.output_dir}: {REPORT}, {TABLE}, runs/"
        + (f", {search.TABLE}, {search.FOLDER}/" if outcomes else ""),
        flush=True,
    )
    return 0 if any(run.status == "done" for run in runs) else 1


def _cells(own, outcomes=()):
    optimizers = compare_flags.names(
        "optimizers", own.optimizers, optimizer_factory.OPTIMIZERS
    )
    methods = compare_flags.names("decays", own.decays, grid.METHODS)
    if own.search == "none":
        rates = numbers("rates", own.rates, float, 0)
        return grid.cells(optimizers, methods, rates, own.seeds)
    if not outcomes:
        # What is wrong with the flags is reported before the search.
        search.limits("rates", own.rates)
        search.limits("learning_rates", own.learning_rates)
        return grid.cells(optimizers, methods, [], own.seeds)
    return [
        grid.Cell(
            *(found.optimizer, found.method, found.best.weight_decay, seed),
            found.best.learning_rate,
        )
        for seed in range(own.seeds)
        for found in outcomes
    ]


def _settings(cell: grid.Cell, shared: Sequence[str]) -> dict:
    """The settings of one run, as `keras-wd train` has them."""
    meaningful = compare_flags.with_meaning(shared, cell.optimizer, cell.method)
    settings = config.from_command_line([*meaningful, *cell.flags])
    return {
        name: value
        for name, value in settings.items()
        if name not in ("output_dir", "resume", "config")
    }


def _check_folder(folder: str, settings: Mapping) -> None:
    """Refuse a folder whose runs are not those of this comparison."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UsageError(f"--output_dir={folder} is a file, not a folder")
    for cell, wanted in settings.items():
        run = results.folder_of(cell, folder)
        # What is damaged is reported before anything is trained.
        report.read(run)
        history.read(run)
        config.refuse_other_run(run, wanted, folder)


def _search(own, shared, epochs, folder):
    """Choose the rates; returns the outcomes, and writes them as a table."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UsageError(f"--output_dir={folder} is a file, not a folder")
    ranges = [
        search.limits("rates", own.rates),
        search.limits("learning_rates", own.learning_rates),
    ]
    searches = [
        search.Search(
            optimizer,
            method,
            search.space(optimizer, method, *ranges),
            epochs,
            own.search_budget * epochs,
            own.search_seed,
            lambda cell: _settings(cell, shared),
            folder,
        )
        for optimizer, method in dict.fromkeys(
            (cell.optimizer, cell.method) for cell in _cells(own)
        )
    ]
    first = [one.next_job() for one in searches]
    jobs = [job for job in first if job is not None]
    print(
        f"Searching for the rates of {len(searches)} methods in "
        f"{own.output_dir}, {own.search_budget * epochs} epochs for each",
        flush=True,
    )
    if jobs:
        files.make_folder(folder, "comparison")
        workers = min(own.workers, len(jobs))
        with _progress() as progress:
            search.run(
                searches,
                jobs,
                executors.EXECUTORS[own.executor],
                workers,
                progress,
            )
    outcomes = [one.outcome for one in searches]
    search.write_table(outcomes, os.path.join(folder, search.TABLE))
    for outcome in outcomes:
        print("\n".join(command_line.wrapped(str(outcome), "  ")))
    return outcomes


def _progress():
    from rich.progress import BarColumn
    from rich.progress import MofNCompleteColumn
    from rich.progress import Progress
    from rich.progress import TextColumn
    from rich.progress import TimeElapsedColumn
    from rich.progress import TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


def _compute(own, settings: Mapping, folder: str) -> dict[str, str]:
    """Do all runs that are not done; returns what was wrong, by folder.

    Raises:
        UsageError: if a method cannot be trained with this model and data,
            which a run of each that ends before its first epoch finds out.
    """
    jobs: list[executors.Job] = []
    for cell, wanted in settings.items():
        where = results.folder_of(cell, folder)
        if not os.path.exists(os.path.join(where, "summary.json")):
            jobs.append((wanted, where))
    done = len(settings) - len(jobs)
    print(
        f"{len(settings)} runs in {own.output_dir}"
        + (f", {done} of them done before" if done else ""),
        flush=True,
    )
    problems = {}
    if not jobs:
        return problems
    cell_of = {results.folder_of(cell, folder): cell for cell in settings}
    leader = results.Leader()
    missing = {job[1] for job in jobs}
    for where, cell in cell_of.items():
        if where not in missing:
            leader.add(results.read(cell, where, ""))
    compute = executors.EXECUTORS[own.executor]
    tried = {cell_of[job[1]].method: job for job in reversed(jobs)}
    trials = {job[1]: job for job in tried.values()}
    jobs = [(*job, 0) for job in trials.values()] + [
        job for job in jobs if job[1] not in trials
    ]
    with _progress() as progress:
        task = progress.add_task("training", total=len(jobs))
        for where, problem in compute(jobs, min(own.workers, len(jobs))):
            if where in trials:
                jobs.append(trials.pop(where))
                if problem:
                    raise UsageError(problem)
                continue
            name = os.path.basename(where)
            if problem:
                problems[where] = problem
                progress.console.print(f"{name}: {problem}", markup=False)
            leader.add(results.read(cell_of[where], where, problem))
            progress.update(task, advance=1, description=str(leader))
    return problems


def _subtitle(settings, own, data, runs):
    done = sum(run.status == "done" for run in runs)
    seconds = sum(run.numbers.get("seconds", 0.0) for run in runs)
    network = os.path.basename(settings["model"])
    if settings["batch_norm"]:
        network += " with batch normalization"
    return (
        f"{network}; {len(data.train)} training examples, {settings['epochs']} "
        f"epochs, batches of {settings['batch_size']}; {done} of {len(runs)} "
        f"runs complete, {_counted(own.seeds, 'seed')}, "
        f"{_counted(math.ceil(seconds / 60), 'minute')} of training"
    )


def _counted(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"
