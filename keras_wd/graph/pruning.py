"""Networks made smaller to a budget, by how much their units matter."""

import keras

from keras_wd.errors import check_count
from keras_wd.errors import check_number
from keras_wd.graph.compaction import report_of
from keras_wd.graph.compaction import without_dead_units
from keras_wd.graph.compaction_report import Report
from keras_wd.graph.importance import Importance
from keras_wd.graph.litert import check_litert
from keras_wd.graph.pruning_plan import MAX_RATIO
from keras_wd.graph.pruning_plan import Plan
from keras_wd.graph.pruning_plan import check_budget
from keras_wd.graph.pruning_plan import count_within
from keras_wd.graph.rebuild import rebuild
from keras_wd.graph.saving import savable
from keras_wd.graph.sizes import milliseconds
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
    max_ratio: float | None = None,
) -> keras.Model | tuple[keras.Model, Report]:
    """A smaller network without the units that matter least.

    Units that go together (the branches of a residual join, a unit and its
    gate) are one class with one score. The classes with the lowest scores are
    masked, so that nothing reads them, until the budget is kept; those that
    nothing reads already are counted first. `compact` takes them out. The
    result computes exactly what the model computes with these units masked.
    What `compact` has to leave whole stays. Inside of layers of other
    classes, as those of KerasHub, units are scored and masked with the others
    where `compact` can make the layer smaller; a budget of multiply-adds
    leaves these layers as they are, since theirs are not counted.

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
            shape (window, rows, units) that returns a number per unit. Units
            of an embedding are its columns; of attention, its heads, with all
            weights into queries, keys and values, and its outputs. What goes
            together has the mean of its members for "magnitude" and a
            function, and the sum for the others; the path of a product is
            the geometric mean of those of its factors.
        round_to: layers keep a multiple of this many units, or all of them.
        data: `(x, y)` for "taylor": a batch for the loss of the compiled
            model.
        report: also return the `Report` of `compact`.
        x: see `compact`; a latency budget is measured on it as well.
        batch_size: see `compact`.
        litert: see `compact`.
        max_ratio: no layer loses a larger share of its units, in (0, 1]; 0.9
            for None, or `ratio` if that is larger. One order over all layers
            may otherwise take nearly all of the one whose scores are lowest,
            and leave a stage of a network with one channel. Units that nothing
            reads go in any case.

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
    round_to = check_count("round_to", round_to)
    followed = () if name == "multiply_adds" else None
    max_ratio = check_max_ratio(max_ratio, ratio)
    plan = Plan(model, importance, round_to, data, max_ratio, followed)
    plan.check()
    if name == "ratio":
        removed = plan.lowest(round(budget * len(plan.order)))
    elif name == "multiply_adds":
        check_budget(plan, budget)
        removed = plan.lowest(count_within(plan, budget))
    else:
        removed = _within_latency(plan, budget, x, batch_size)
    masked = plan.masked(removed)
    smaller = model
    if removed.any():
        smaller = without_dead_units(masked, x)
        smaller = savable(model, smaller, masked, x)
    if not report:
        return smaller
    return smaller, report_of(model, smaller, masked, x, batch_size, litert)


def check_max_ratio(max_ratio: float | None, ratio: float | None) -> float:
    """The largest share of a layer that may go; raise if that is too little."""
    if max_ratio is None:
        return max(MAX_RATIO, ratio or 0.0)
    max_ratio = check_number("max_ratio", max_ratio, above=0)
    if not (ratio or 0.0) <= max_ratio <= 1:
        raise ValueError(
            "`max_ratio` must be at most 1 and at least `ratio`. Received: "
            f"max_ratio={max_ratio}, ratio={ratio}"
        )
    return max_ratio


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

    low, high = 0, plan.most
    best = plan.lowest(high)
    if not best.any() or share(best) > budget:
        raise ValueError(
            "`latency` must be what the layers that can shrink allow. "
            f"Received: latency={budget}, which was not reached when all "
            f"units that can be removed were.{plan.advice}"
        )
    for _ in range(_MEASUREMENTS):
        middle = (low + high) // 2
        removed = plan.lowest(middle)
        if removed.any() and share(removed) <= budget:
            best, high = removed, middle
        else:
            low = middle
    return best
