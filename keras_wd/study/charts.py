"""The pictures of a comparison, as SVG."""

import io
import math
from collections.abc import Sequence

import numpy as np

from keras_wd.study.findings import WORDS
from keras_wd.study.findings import name_of
from keras_wd.study.picture import STYLE
from keras_wd.study.results import Row

COLORS = {
    "none": "#6b7280",
    "coupled": "#d1495b",
    "decoupled": "#1b6ca8",
    "lp": "#2e7d5b",
    "path_prox": "#8e44ad",
    "fixed_norm": "#b7791f",
    "auto_l2": "#0f766e",
}
MARKERS = ("o", "s", "^", "D", "v", "P")


def charts(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """(title, what it shows, SVG) of every picture there are numbers for."""
    from matplotlib import rc_context

    with rc_context({**STYLE, "svg.fonttype": "path", "axes.titlepad": 8}):
        found = [
            (
                "Test accuracy",
                "Mean over the seeds; the bars are one standard error.",
                _accuracy(rows),
            ),
            (
                "Validation loss",
                "Mean over the seeds.",
                _courses(rows, "val_loss", "cross-entropy"),
            ),
            (
                "Effective learning rate",
                "Of the directions of scale-invariant weights, as a multiple "
                "of the scheduled one: falls where weights grow, unless decay "
                "keeps them small.",
                _courses(rows, "relative_rate", "effective / scheduled"),
            ),
            (
                "Jacobian norm",
                "Mean squared norm of the derivative of the outputs by the "
                "inputs: how sensitive the function is.",
                _courses(rows, "jacobian_norm", "squared norm"),
            ),
            (
                "Effective damping",
                "Of K-FAC, for scale-invariant weights: grows with them and "
                "turns it into a first-order method.",
                _courses(rows, "effective_damping", "damping"),
            ),
            (
                "Sparsity and accuracy",
                "Share of kernel weights below 1e-13.",
                _sparsity(rows),
            ),
        ]
    return [chart for chart in found if chart[2]]


def _figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure):
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _accuracy(rows):
    from matplotlib.ticker import PercentFormatter

    rows = [row for row in rows if row.done]
    if not rows:
        return ""
    figure = _figure(8, 0.9 + 0.3 * len(rows))
    panel = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        mean = row.means["test_accuracy"]
        panel.errorbar(
            mean.value,
            place,
            xerr=mean.error,
            fmt="o",
            color=COLORS[row.method],
            capsize=3,
        )
    panel.set_yticks(range(len(rows)), [name_of(r) for r in reversed(rows)])
    panel.set_ylim(-0.6, len(rows) - 0.4)
    panel.xaxis.set_major_formatter(PercentFormatter(1.0))
    panel.set_xlabel("test accuracy")
    return _svg(figure)


def _courses(rows, log, label):
    """A panel per optimizer, a curve per method."""
    from matplotlib.ticker import MaxNLocator

    optimizers = list(
        dict.fromkeys(row.optimizer for row in rows if _moves(row.curve(log)))
    )
    if not optimizers:
        return ""
    columns = min(3, len(optimizers))
    lines = math.ceil(len(optimizers) / columns)
    figure = _figure(max(3.4 * columns, 4.5), 2.9 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    handles = {}
    for panel, optimizer in zip(panels, optimizers, strict=False):
        for row in rows:
            curve = row.curve(log)
            if row.optimizer == optimizer and curve is not None:
                (handles[row.method],) = panel.plot(
                    *curve,
                    color=COLORS[row.method],
                    marker="o" if len(curve[0]) < 4 else None,
                )
        panel.set_title(name_of(row_of(rows, optimizer)).split(" with")[0])
        panel.set_yscale("log")
        panel.set_xlabel("epoch")
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for panel in panels[len(optimizers) :]:
        panel.set_visible(False)
    panels[0].set_ylabel(label)
    figure.legend(
        handles.values(),
        [WORDS.get(method, "no decay") for method in handles],
        loc="outside lower center",
        ncols=min(4, len(handles)),
    )
    return _svg(figure)


def _moves(curve):
    """Whether a curve is more than a constant and its rounding."""
    if curve is None:
        return False
    return len(curve[1]) == 1 or np.ptp(curve[1]) > 1e-3 * abs(curve[1]).max()


def row_of(rows: Sequence[Row], optimizer: str) -> Row:
    """Some row of an optimizer, to take its name from."""
    return next(row for row in rows if row.optimizer == optimizer)


def _sparsity(rows):
    from matplotlib.ticker import PercentFormatter

    rows = [row for row in rows if row.done]
    if not any(row.means["sparsity"].value > 0.01 for row in rows):
        return ""
    figure = _figure(6.5, 3.6)
    panel = figure.subplots()
    optimizers = list(dict.fromkeys(row.optimizer for row in rows))
    for row in rows:
        mean = row.means["test_accuracy"]
        panel.errorbar(
            row.means["sparsity"].value,
            mean.value,
            yerr=mean.error,
            fmt=MARKERS[optimizers.index(row.optimizer) % len(MARKERS)],
            color=COLORS[row.method],
            capsize=3,
            label=name_of(row),
        )
    panel.xaxis.set_major_formatter(PercentFormatter(1.0))
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.set_xlabel("weights below 1e-13")
    panel.set_ylabel("test accuracy")
    panel.legend(
        loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8, frameon=False
    )
    return _svg(figure)
