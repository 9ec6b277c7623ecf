"""The course of a run as a picture of four panels."""

import math
from collections.abc import Sequence

SPARSE = "#2e7d5b"
QUIET = "#6b7280"
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#9ca3af",
    "axes.grid": True,
    "axes.labelcolor": "#374151",
    "axes.prop_cycle": "cycler('color', ['#1b6ca8', '#d1495b'])",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 22,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.size": 9.5,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "xtick.color": "#374151",
    "ytick.color": "#374151",
}


def draw(
    rows: Sequence[dict[str, float]],
    path: str,
    title: str,
    test_accuracy: float | None,
) -> None:
    """Draw loss, accuracy, weights and rates over the epochs as PNG.

    Args:
        rows: the logs of the epochs, as in `history.csv`.
        path: where the picture goes.
        title: what was trained.
        test_accuracy: after the last epoch, or None if it is not finite.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with rc_context(STYLE):
        figure = Figure(figsize=(10, 7), dpi=150, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
        figure.suptitle(
            title,
            x=0.018,
            ha="left",
            fontsize=13,
            fontweight="bold",
            parse_math=False,  # A file may have dollars in its name.
        )
        panels = figure.subplots(2, 2, sharex=True)
        epochs = [row["epoch"] + 1 for row in rows]
        _loss(panels[0, 0], epochs, rows)
        _accuracy(panels[0, 1], epochs, rows, test_accuracy)
        _weights(panels[1, 0], epochs, rows)
        _rates(panels[1, 1], epochs, rows)
        for panel in panels[1]:
            panel.set_xlabel("epoch")
            panel.xaxis.set_major_locator(
                MaxNLocator(8, integer=True, steps=[1, 2, 5, 10])
            )
        panels[0, 0].set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        figure.savefig(path, format="png")


def _line(panel, epochs, rows, name, **style):
    """A curve, with dots where there are too few epochs for a line."""
    marker = "o" if len(epochs) <= 3 else None
    values = [row.get(name, math.nan) for row in rows]
    return panel.plot(epochs, values, marker=marker, **style)[0]


def _loss(panel, epochs, rows):
    panel.set_title("Loss")
    _line(panel, epochs, rows, "loss", label="training")
    _line(panel, epochs, rows, "val_loss", label="validation")
    panel.set_yscale("log")
    if "accuracy" in rows[0]:
        panel.set_ylabel("cross-entropy")
    _legend(panel)


def _accuracy(panel, epochs, rows, test_accuracy):
    from matplotlib.ticker import PercentFormatter

    if "accuracy" not in rows[0]:
        panel.set_title("Mean absolute error")
        _line(panel, epochs, rows, "mean_absolute_error", label="training")
        _line(
            panel, epochs, rows, "val_mean_absolute_error", label="validation"
        )
        return _legend(panel)
    panel.set_title("Accuracy")
    _line(panel, epochs, rows, "accuracy", label="training")
    _line(panel, epochs, rows, "val_accuracy", label="validation")
    if test_accuracy is not None:
        panel.axhline(
            test_accuracy,
            color=QUIET,
            linestyle=(0, (4, 3)),
            linewidth=1.2,
            label=f"test {test_accuracy:.1%}",
        )
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    return _legend(panel)


def _weights(panel, epochs, rows):
    from matplotlib.ticker import PercentFormatter

    panel.set_title("Weights")
    _line(
        panel,
        epochs,
        rows,
        "sparsity",
        color=SPARSE,
        label="below 1e-13",
    )
    panel.fill_between(
        epochs,
        [row["zeros"] for row in rows],
        color=SPARSE,
        alpha=0.18,
        linewidth=0,
        label="zero",
    )
    panel.set_ylim(0, 1)
    panel.set_ylabel("share of the kernel weights")
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    norm = _second_axis(panel, "norm")
    _line(norm, epochs, rows, "weight_norm", color=QUIET, linestyle="--")
    norm.set_ylim(bottom=0)
    _legend(panel, (QUIET, "norm (right)"))


def _rates(panel, epochs, rows):
    panel.set_title("Rates")
    panel.set_ylabel("learning rate")
    _line(panel, epochs, rows, "learning_rate", label="learning rate")
    panel.set_ylim(bottom=0)
    if "weight_decay" not in rows[0]:
        return _legend(panel)
    decay = _second_axis(panel, "weight decay")
    _line(decay, epochs, rows, "weight_decay", color=QUIET, linestyle="--")
    decay.set_ylim(bottom=0)
    return _legend(panel, (QUIET, "weight decay (right)"))


def _second_axis(panel, label):
    second = panel.twinx()
    second.spines["right"].set_visible(True)
    second.set_ylabel(label, color=QUIET)
    second.tick_params(colors=QUIET)
    second.grid(False)
    second.margins(y=0.15)
    return second


def _legend(panel, *entries):
    """The labels of the panel and of lines on its second axis, above it."""
    from matplotlib.lines import Line2D

    handles, labels = panel.get_legend_handles_labels()
    for color, label in entries:
        handles.append(Line2D([], [], color=color, linestyle="--"))
        labels.append(label)
    panel.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=len(handles),
        borderaxespad=0.3,
        borderpad=0,
        columnspacing=1.2,
        handlelength=1.4,
        handletextpad=0.5,
    )
