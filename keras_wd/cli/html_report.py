"""The report of a comparison: one HTML file that needs nothing else."""

import base64
import dataclasses
import pathlib
from collections.abc import Sequence

from keras_wd.cli import search
from keras_wd.cli.charts import charts
from keras_wd.cli.files import replacing
from keras_wd.cli.findings import Findings
from keras_wd.cli.findings import findings
from keras_wd.cli.grid import WORDS
from keras_wd.cli.results import Row
from keras_wd.cli.results import Run
from keras_wd.cli.results import best_in_validation
from keras_wd.cli.results import chosen
from keras_wd.cli.results import own_metrics
from keras_wd.cli.results import rows
from keras_wd.cli.search import Outcome

_TEMPLATE = pathlib.Path(__file__).with_name("report.html.j2")
# Name of a number: (heading, format, format of its standard error).
_NUMBERS = {
    "val_accuracy": ("validation accuracy", ".2%", ".2%"),
    "test_accuracy": ("test accuracy", ".2%", ".2%"),
    "test_loss": ("test loss", ".4f", ".4f"),
    "sparsity": ("weights below 1e-13", ".1%", ".1%"),
    "weight_norm": ("weight norm", ".1f", ".1f"),
    "jacobian_norm": ("Jacobian norm²", ".3g", ".2g"),
    "relative_rate": ("effective / scheduled rate", ".3g", ".1g"),
    "seconds": ("seconds", ".0f", ""),
}


def write(
    runs: Sequence[Run],
    path: str,
    title: str,
    subtitle: str,
    command: str,
    environment: str,
    outcomes: Sequence[Outcome] = (),
) -> Findings:
    """Write the report; returns its findings.

    Args:
        runs: all runs of the comparison.
        path: of the HTML file.
        title: its heading.
        subtitle: a line below it.
        command: that repeats the comparison.
        environment: versions, in a line.
        outcomes: of the search for the rates, if there was one.
    """
    import jinja2

    environment_of_templates = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined
    )
    template = environment_of_templates.from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    )
    every = rows(runs)
    best = chosen(every)
    found = findings(best)
    found = dataclasses.replace(
        found, notes=[*found.notes, *search.notes(outcomes)]
    )
    text = template.render(
        title=title,
        subtitle=subtitle,
        findings=found,
        several_rates=len(every) > len(best),
        header=[
            *("optimizer", "decay", "rate"),
            *(["learning rate"] if outcomes else []),
            *(heading for heading, *_ in _shown(best).values()),
            "runs",
        ],
        table=_table(best),
        charts=[
            {
                "title": name,
                "caption": caption,
                "panels": [
                    base64.b64encode(svg.encode()).decode() for svg in svgs
                ],
            }
            for name, caption, svgs in charts(best)
        ],
        runs=[_run(run) for run in runs],
        outcomes=outcomes,
        trials=[
            _trial(outcome, trial)
            for outcome in outcomes
            for trial in outcome.trials
        ],
        command=command,
        environment=environment,
    )
    with replacing(path) as draft:
        pathlib.Path(draft).write_text(text, encoding="utf-8")
    return found


def _shown(best):
    """What the table shows: name, heading and formats of each number."""
    own = own_metrics([run for row in best for run in row.done])
    numbers = dict(_NUMBERS)
    seconds = numbers.pop("seconds")
    for name in own:
        numbers[name] = (_heading(name), ".4g", ".2g")
    numbers["seconds"] = seconds
    return {
        name: format_
        for name, format_ in numbers.items()
        if any(name in row.means for row in best)
    }


def _heading(name):
    split, _, metric = name.partition("_")
    split = {"val": "validation"}.get(split, split)
    return f"{split} {metric.replace('_', ' ')}"


def _table(best: Sequence[Row]) -> list[dict]:
    top = best_in_validation(best)
    shown = _shown(best)
    table = []
    for row in best:
        rates = [_rate(row.weight_decay)]
        if row.learning_rate is not None:
            rates.append(_rate(row.learning_rate))
        cells = [
            *map(_text, (row.optimizer, WORDS.get(row.method, "none"), *rates)),
            *(
                _cell(row.means.get(name), *formats)
                for name, (_, *formats) in shown.items()
            ),
            _text(_ended(row)),
        ]
        table.append({"cells": cells, "best": row is top})
    return table


def _rate(rate):
    return "–" if rate is None else f"{rate:g}"


def _cell(mean, form, error_form):
    if mean is None:
        return _text("–")
    error = ""
    if mean.error is not None and error_form:
        error = format(mean.error, error_form)
    return {"text": format(mean.value, form), "error": error}


def _text(text):
    return {"text": text, "error": ""}


def _ended(row):
    if not row.lost:
        return str(len(row.done))
    return f"{len(row.done)} of {len(row.done) + len(row.lost)}"


def _trial(outcome, trial):
    merit = "failed" if trial.failed else f"{trial.merit[0]:.2%}"
    if len(trial.merit) == 1 and not trial.failed:
        merit = f"loss {-trial.merit[0]:.4f}"
    return {
        "name": f"{outcome.optimizer} {outcome.method} {trial.number}",
        "chosen": trial is outcome.best,
        "learning_rate": _rate(trial.learning_rate),
        "weight_decay": _rate(trial.weight_decay),
        "epochs": trial.epochs,
        "merit": merit,
    }


def _run(run: Run) -> dict:
    def number(name, form):
        value = run.numbers.get(name)
        return "–" if value is None else format(value, form)

    return {
        "name": run.cell.name,
        "ended": run.status + (f": {run.problem}" if run.problem else ""),
        "test": number("test_accuracy", ".2%"),
        "loss": number("test_loss", ".4f"),
        "validation": number("val_accuracy", ".2%"),
        "seconds": number("seconds", ".1f"),
    }
