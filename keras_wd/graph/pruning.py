"""Networks made smaller to a budget, by how much their units matter."""

import operator

import keras
import numpy as np

from keras_wd.errors import check_count
from keras_wd.errors import check_number
from keras_wd.graph.channel_analysis import ChannelAnalysis
from keras_wd.graph.compaction import compact
from keras_wd.graph.compaction import report_of
from keras_wd.graph.compaction_report import Report
from keras_wd.graph.edits import without_rows
from keras_wd.graph.importance import Importance
from keras_wd.graph.importance import scores
from keras_wd.graph.litert import check_litert
from keras_wd.graph.rebuild import rebuild
from keras_wd.graph.sizes import milliseconds
from keras_wd.graph.sizes import multiply_adds as count_of_multiply_adds
from keras_wd.graph.sizes import multiply_adds_of
from keras_wd.graph.structure import read
from keras_wd.graph.verify import examples

_BUDGETS = ("ratio", "multiply_adds", "latency")
_IMPORTANCE = ("path", "magnitude", "batch_norm", "taylor")
_MEASUREMENTS = 6


def prune(
    model: keras.Model,
    ratio: float | None = None,
    multiply_adds: float | None = None,
    latency: float | None = None,
    importance: Importance = "path",
    round_to: int = 8,
    data: object = None,
    report: bool = False,
    x: object = None,
    batch_size: int | None = 256,
    litert: bool = False,
) -> keras.Model | tuple[keras.Model, Report]:
    """A smaller network without the units that matter least.

    Units that go together (the branches of a residual join, a unit and its
    gate) are one class with one score. The classes with the lowest scores are
    masked, so that nothing reads them, until the budget is kept; those that
    nothing reads already are counted first. `compact` takes them out. The
    result computes exactly what the model computes with these units masked.
    What `compact` has to leave whole stays.

    Args:
        model: a built Sequential or Functional model. It is not changed.
        ratio: the share of the units that may go to remove, in [0, 1).
        multiply_adds: what may remain, as a share of the model's if it is at
            most 1, else as their number for one example.
        latency: what may remain, as a share of the model's, of the time to
            predict a batch; measured on this machine.
        importance: "path": the norm of the weights into a unit, times what
            normalizations scale it by, times the norm of those out of it.
            "magnitude": the norm of the weights into it, beside the mean of
            its layer. "batch_norm": the scales of its batch normalizations.
            "taylor": the change of the loss without it, to first order, on
            `data`. Or a function of a layer and its kernel as an array of
            shape (window, rows, units) that returns a number per unit. What
            goes together has the mean of its members for "magnitude" and a
            function, and the sum for the others.
        round_to: layers keep a multiple of this many units, or all of them.
        data: `(x, y)` for "taylor": a batch for the loss of the compiled
            model.
        report: also return the `Report` of `compact`.
        x: see `compact`; a latency budget is measured on it as well.
        batch_size: see `compact`.
        litert: see `compact`.

    Returns:
        The new model, not compiled; with `report=True`, the pair of it and
        the report.

    Raises:
        ValueError: unless there is one budget, or if it cannot be kept, or
            no unit of the model may go; with `litert=True` as `compact`.

    >>> import keras
    >>> from keras_wd import graph
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(32, "relu", name="hidden"),
    ...     keras.layers.Dense(2),
    ... ])
    >>> graph.prune(model, ratio=0.5).get_layer("hidden").units
    16

    Sources: Molchanov et al., 2019, "Importance Estimation for Neural Network
    Pruning", equation 8, for "taylor"; Liu et al., 2017, "Learning Efficient
    Convolutional Networks through Network Slimming", for "batch_norm".
    """
    budgets = dict(zip(_BUDGETS, (ratio, multiply_adds, latency), strict=True))
    given = [name for name, value in budgets.items() if value is not None]
    if len(given) != 1:
        said = ", ".join(f"{k}={v!r}" for k, v in budgets.items())
        raise ValueError(
            "`ratio`, `multiply_adds` or `latency` must be given, one of "
            f"them. Received: {said}"
        )
    (name,) = given
    budget = check_number(name, budgets[name], minimum=0)
    if name == "ratio" and budget >= 1:
        raise ValueError(f"`ratio` must be below 1. Received: ratio={budget}")
    check_importance(importance)
    check_litert(litert, report)
    plan = Plan(model, importance, check_count("round_to", round_to), data)
    plan.check()
    if name == "ratio":
        removed = plan.lowest(round(budget * len(plan.order)))
    elif name == "multiply_adds":
        removed = plan.lowest(count_within(plan, budget))
    else:
        removed = _within_latency(plan, budget, x, batch_size)
    masked = plan.masked(removed)
    smaller = compact(masked, x=x) if removed.any() else model
    if not report:
        return smaller
    return smaller, report_of(model, smaller, masked, x, batch_size, litert)


def check_importance(importance: Importance) -> Importance:
    """Return what scores units, or raise."""
    is_function = callable(importance) and not isinstance(importance, type)
    is_name = isinstance(importance, str) and importance in _IMPORTANCE
    if is_function or is_name:
        return importance
    raise ValueError(
        f"`importance` must be one of {', '.join(_IMPORTANCE)}, or a "
        f"function. Received: importance={importance!r}"
    )


class Plan:
    """Which classes of units of a model can go, in what order.

    Attributes:
        order: the labels that stand for the classes, first those that nothing
            reads, then the least important.
    """

    def __init__(self, model, importance, round_to, data):
        self.model = model
        self.graph = read(model)
        self.analysis = ChannelAnalysis(self.graph, {})
        self._roots = self.analysis.classes.roots()
        self._round_to = round_to
        found = scores(model, self.analysis, importance, data)
        free = np.zeros(len(self._roots), dtype=bool)
        for made in self.analysis.made:
            free[self._roots[made]] = True
        free[list(self.analysis.classes.reasons())] = False
        free &= np.isfinite(found)
        labels = np.flatnonzero(free)
        used = self._read_by_something()
        self._scores = np.where(used, found, -np.inf)
        self.order = labels[np.argsort(self._scores[labels], kind="stable")]

    def check(self) -> None:
        """Raise if no unit may go."""
        if not len(self.order):
            raise ValueError(
                "`model` must have units that can be removed. Received: "
                f"model={self.model.name!r} without any. "
                "keras_wd.graph.compact(model, report=True) says why; inside "
                "of layers of other classes, only dead units are removed."
            )

    def _read_by_something(self):
        """By label that stands for a class, whether a row of it is not 0."""
        used = np.zeros(len(self._roots), dtype=bool)
        for weighted in self.analysis.weighted:
            rows = (weighted.kernel != 0).any(axis=(0, 2))
            used[self._roots[weighted.read.labels[rows]]] = True
        return used

    def lowest(self, count: int) -> np.ndarray:
        """By label, whether it goes with so many classes, rounded."""
        removed = np.zeros(len(self._roots), dtype=bool)
        removed[self.order[:count]] = True
        changed = True
        while changed:
            changed = False
            for made in self.analysis.made:
                classes = np.unique(self._roots[made])
                counts = np.bincount(
                    np.searchsorted(classes, self._roots[made])
                )
                gone = removed[classes]
                left = int(counts[~gone].sum())
                wanted = -(-max(left, 1) // self._round_to) * self._round_to
                wanted = min(wanted, len(made))
                back = classes[gone]
                back = back[np.argsort(-self._scores[back], kind="stable")]
                for label in back:
                    if left >= wanted:
                        break
                    removed[label] = False
                    left += int((self._roots[made] == label).sum())
                    changed = True
        return removed[self._roots]

    def masked(self, removed: np.ndarray) -> keras.Model:
        """The model with nothing that reads the units that go."""
        return rebuild(self.model, without_rows(self.analysis, removed))

    def share(self, removed: np.ndarray) -> float:
        """Of the classes that can go, how many go."""
        return float(removed[self.order].mean())

    def masks(
        self, removed: np.ndarray
    ) -> list[tuple[keras.Variable, np.ndarray]]:
        """Variables of the model, and True where they read no such unit."""
        operations = {s.path: s.operation for s in self.graph.steps}
        found = without_rows(
            self.analysis, removed, lambda v: np.ones(v.shape, bool)
        )
        return [
            (operator.attrgetter(name)(operations[path]), mask)
            for path, edit in found.items()
            for name, mask in edit.arrays.items()
            if not mask.all()
        ]

    def pruned(self, removed: np.ndarray) -> keras.Model:
        """The smaller model, verified."""
        return compact(self.masked(removed))


def count_within(plan: Plan, budget: float, done: float = 1.0) -> int:
    """How many classes go until few enough multiply-adds remain.

    Args:
        plan: in which order they go.
        budget: what may remain, as a share of the model's if it is at most 1.
        done: the share of the way there, in [0, 1].

    Raises:
        ValueError: if the model has no fixed number of them, or too many
            remain when all classes that can go do.
    """
    whole = count_of_multiply_adds(plan.graph)
    if whole is None:
        raise ValueError(
            "`multiply_adds` must be of a model whose inputs have fixed "
            "sizes. Received: one that has not; give `ratio` instead."
        )
    target = budget * whole if budget <= 1 else budget
    target = whole - done * (whole - target)
    low, high = 0, len(plan.order)

    def enough(count):
        left = _estimate(plan, plan.lowest(count))
        return left <= target

    if not enough(high):
        least = _estimate(plan, plan.lowest(high))
        raise ValueError(
            "`multiply_adds` must be what the layers that can shrink allow. "
            f"Received: multiply_adds={budget}, but {least:,} of {whole:,} "
            "remain when all units that can be removed are."
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def _estimate(plan, removed):
    """The multiply-adds without some units."""
    total = count_of_multiply_adds(plan.graph)
    share = {}
    for weighted in plan.analysis.weighted:
        rows = (~removed[weighted.read.labels]).mean()
        units = (~removed[weighted.made]).mean()
        share.setdefault(weighted.step, []).append(rows * units)
    for along in plan.analysis.along:
        if len(along.read.labels):
            kept = (~removed[along.read.labels]).mean()
            share.setdefault(along.step, []).append(kept)
    for step, shares in share.items():
        whole = multiply_adds_of(plan.graph, step)
        total -= whole * (1 - float(np.mean(shares)))
    return round(total)


def _within_latency(plan, budget, x, batch_size):
    if budget > 1:
        raise ValueError(
            "`latency` must be a share of the model's, at most 1. Received: "
            f"latency={budget}"
        )
    if x is None and batch_size is None:
        raise ValueError(
            "`latency` must be measured on a batch. Received: x=None, "
            "batch_size=None"
        )
    whole = rebuild(plan.model, {})
    batch = x
    if batch is None:
        batch = examples(plan.model, plan.graph, batch_size)

    def share(removed):
        times = milliseconds(
            {"whole": whole, "smaller": plan.pruned(removed)}, batch
        )
        return times["smaller"] / times["whole"]

    low, high = 0, len(plan.order)
    best = plan.lowest(high)
    if not best.any() or share(best) > budget:
        raise ValueError(
            "`latency` must be what the layers that can shrink allow. "
            f"Received: latency={budget}, which was not reached when all "
            "units that can be removed were."
        )
    for _ in range(_MEASUREMENTS):
        middle = (low + high) // 2
        removed = plan.lowest(middle)
        if removed.any() and share(removed) <= budget:
            best, high = removed, middle
        else:
            low = middle
    return best
