"""The pictures of a comparison, as SVG."""

import io
from collections.abc import Sequence

import numpy as np

from keras_wd.cli.findings import name_of
from keras_wd.cli.findings import optimizer_name
from keras_wd.cli.grid import WORDS
from keras_wd.cli.picture import STYLE
from keras_wd.cli.results import Row

COLORS = {
    "none": "#6b7280",
    "coupled": "#d1495b",
    "decoupled": "#1b6ca8",
    "lp": "#2e7d5b",
    "path_norm": "#8e44ad",
    "fixed_norm": "#b7791f",
    "auto_l2": "#0f766e",
    "norm_control": "#be185d",
    "cpr": "#4d7c0f",
    "hyperball": "#7c2d12",
    "radial_brake": "#334155",
    "cautious": "#0369a1",
    "layerwise": "#6d28d9",
    "anchored": "#a16207",
    "l1": "#15803d",
    "proximal_lp": "#a21caf",
    "group_lasso": "#9f1239",
}
# Distinguishable without colour as well.
DASHES = {
    "none": ":",
    "coupled": "--",
    "decoupled": "-",
    "lp": "-.",
    "path_norm": (0, (6, 1, 1, 1, 1, 1)),
    "fixed_norm": (0, (1, 1)),
    "auto_l2": (0, (8, 2)),
    "norm_control": (0, (4, 1)),
    "cpr": (0, (4, 1, 1, 1)),
    "hyperball": (0, (2, 1)),
    "radial_brake": (0, (2, 3)),
    "cautious": (0, (10, 1)),
    "layerwise": (0, (6, 3)),
    "anchored": (0, (6, 1, 1, 1)),
    "l1": (0, (1, 3)),
    "proximal_lp": (0, (3, 1, 1, 1, 1, 1)),
    "group_lasso": (0, (3, 3, 1, 3)),
}
MARKERS = {
    "none": "o",
    "coupled": "s",
    "decoupled": "^",
    "lp": "D",
    "path_norm": "v",
    "fixed_norm": "P",
    "auto_l2": "X",
    "norm_control": "<",
    "cpr": ">",
    "hyperball": "p",
    "radial_brake": "*",
    "cautious": "h",
    "layerwise": "H",
    "anchored": "d",
    "l1": "1",
    "proximal_lp": "2",
    "group_lasso": "8",
}


def charts(rows: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """(title, what it shows, SVGs) of every picture there are numbers for."""
    from matplotlib import rc_context

    with rc_context({**STYLE, "svg.fonttype": "path", "axes.titlepad": 8}):
        found = [
            (
                "Test accuracy",
                "Mean over the seeds; the bars are one standard error.",
                _points(rows, "test_accuracy", "test accuracy"),
            ),
            (
                "Test loss",
                "Mean over the seeds; the bars are one standard error.",
                _points(rows, "test_loss", "test loss"),
            ),
            (
                "Validation loss",
                "Mean over the seeds.",
                _courses(rows, "val_loss", "loss"),
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
                "inputs: how sensitive the function is. Marks are where it "
                "was measured.",
                _courses(rows, "jacobian_norm", "squared norm"),
            ),
            (
                "Effective damping",
                "Of K-FAC, for scale-invariant weights: grows with them and "
                "turns it into a first-order method.",
                _courses(rows, "effective_damping", "damping"),
            ),
            (
                "Sparsity",
                "Share of kernel weights below 1e-13, and what it costs.",
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


def _points(rows, number, label):
    from matplotlib.ticker import MaxNLocator
    from matplotlib.ticker import PercentFormatter

    rows = [row for row in rows if number in row.means]
    if not rows:
        return []
    figure = _figure(6.2, 0.9 + 0.3 * len(rows))
    panel = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        mean = row.means[number]
        panel.errorbar(
            mean.value,
            place,
            xerr=mean.error,
            fmt=MARKERS[row.method],
            color=COLORS[row.method],
            capsize=3,
        )
    panel.set_yticks(range(len(rows)), [name_of(r) for r in reversed(rows)])
    panel.set_ylim(-0.6, len(rows) - 0.4)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    if number.endswith("accuracy"):
        panel.xaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        panel.ticklabel_format(axis="x", useOffset=False)
    panel.set_xlabel(label)
    return [_svg(figure)]


def _courses(rows, log, label):
    """A panel per optimizer, a curve per method."""
    from matplotlib.ticker import MaxNLocator

    optimizers = list(
        dict.fromkeys(row.optimizer for row in rows if _moves(row.curve(log)))
    )
    panels = []
    for optimizer in optimizers:
        own = [row for row in rows if row.optimizer == optimizer]
        figure = _figure(3.6, 3.1)
        panel = figure.subplots()
        for row in own:
            curve = row.curve(log)
            if curve is None:
                continue
            epochs, values = curve
            # A line between measurements that lie apart is no measurement.
            apart = len(epochs) < 4 or np.diff(epochs).max() > 1
            panel.plot(
                epochs,
                values,
                color=COLORS[row.method],
                linestyle=DASHES[row.method],
                marker=MARKERS[row.method] if apart else None,
                markersize=4,
                label=WORDS.get(row.method, "no decay"),
            )
        panel.set_title(optimizer_name(own[0]))
        low, high = panel.dataLim.intervaly
        if high > 5 * low > 0:
            panel.set_yscale("log")
        else:
            panel.ticklabel_format(axis="y", useOffset=False)
        panel.set_xlabel("epoch")
        panel.set_ylabel(label)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.legend(fontsize=8)
        panels.append(_svg(figure))
    return panels


def _moves(curve):
    """Whether a curve is more than a constant and its rounding."""
    if curve is None:
        return False
    return len(curve[1]) == 1 or np.ptp(curve[1]) > 1e-3 * abs(curve[1]).max()


def _sparsity(rows):
    from matplotlib.ticker import MaxNLocator
    from matplotlib.ticker import PercentFormatter

    rows = [row for row in rows if row.done]
    if not any(row.means["sparsity"].value > 0.01 for row in rows):
        return []
    number = "test_accuracy"
    if not all(number in row.means for row in rows):
        number = "test_loss"
    panels = []
    for optimizer in dict.fromkeys(row.optimizer for row in rows):
        figure = _figure(3.6, 3.1)
        panel = figure.subplots()
        own = [row for row in rows if row.optimizer == optimizer]
        for row in own:
            mean = row.means[number]
            panel.errorbar(
                row.means["sparsity"].value,
                mean.value,
                yerr=mean.error,
                fmt=MARKERS[row.method],
                color=COLORS[row.method],
                capsize=3,
                label=WORDS.get(row.method, "no decay"),
            )
        panel.set_title(optimizer_name(own[0]))
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.xaxis.set_major_formatter(PercentFormatter(1.0))
        if number == "test_accuracy":
            panel.yaxis.set_major_formatter(PercentFormatter(1.0))
        panel.set_xlabel("weights below 1e-13")
        panel.set_ylabel(number.replace("_", " "))
        panel.legend(fontsize=8)
        panels.append(_svg(figure))
    return panels
