"""What the numbers of a comparison say, in sentences.

A difference of two means counts as real if it is larger than two standard
errors of the difference; with one seed there is no standard error, and
nothing is said to be real.
"""

import math
from collections.abc import Sequence

from keras_wd.study.results import Mean
from keras_wd.study.results import Row

WORDS = {
    "coupled": "coupled decay",
    "decoupled": "decoupled decay",
    "lp": "p-norm decay",
    "path_prox": "PathProx",
    "auto_l2": "AutoL2",
    "fixed_norm": "weights of fixed norm",
}


def findings(rows: Sequence[Row]) -> list[str]:
    """Sentences about the rows of a comparison, one row per method."""
    optimizers = list(dict.fromkeys(row.optimizer for row in rows))
    by_key = {(row.optimizer, row.method): row for row in rows if row.done}
    found = []
    best = _best(list(by_key.values()))
    if best is not None:
        found.append(
            f"The highest mean test accuracy is {_percent(_accuracy(best))}, "
            f"by {name_of(best)}."
        )
    for optimizer in optimizers:
        own = {
            row.method: row
            for row in by_key.values()
            if row.optimizer == optimizer
        }
        found += _about_accuracy(optimizer, own)
        found += _about_mechanisms(optimizer, own)
    found += _about_sparsity(list(by_key.values()))
    found += _about_losses(rows)
    return found


def name_of(row: Row) -> str:
    """What a row is called in a sentence."""
    optimizer = {"sgd": "SGD", "adam": "Adam", "kfac": "K-FAC"}.get(
        row.optimizer, row.optimizer
    )
    if row.method == "none":
        return f"{optimizer} without decay"
    rate = "" if row.weight_decay is None else f" at {row.weight_decay:g}"
    return f"{optimizer} with {WORDS[row.method]}{rate}"


def _accuracy(row):
    return row.means["test_accuracy"]


def _best(rows):
    return max(rows, key=lambda row: _accuracy(row).value, default=None)


def _percent(mean: Mean) -> str:
    text = f"{mean.value:.2%}"
    return text if mean.error is None else f"{text} ± {mean.error:.2%}"


def difference(a: Mean, b: Mean) -> tuple[float, float | None]:
    """`a - b` and its standard error."""
    if a.error is None or b.error is None:
        return a.value - b.value, None
    return a.value - b.value, math.hypot(a.error, b.error)


def _verdict(a: Mean, b: Mean) -> tuple[str, str]:
    """ "higher", "lower" or "no different", and the numbers."""
    change, error = difference(a, b)
    points = f"{abs(change) * 100:.2f} points"
    if error is None:
        return "unknown", f"by {points} with a single seed"
    numbers = f"{points}, standard error {error * 100:.2f}"
    if abs(change) <= 2 * error or not change:
        return "no different", numbers
    return ("higher" if change > 0 else "lower"), numbers


def _about_accuracy(optimizer, own):
    found = []
    none = own.get("none")
    decayed = _best([own[m] for m in WORDS if m in own])
    if none is not None and decayed is not None:
        verdict, numbers = _verdict(_accuracy(decayed), _accuracy(none))
        start = f"{name_of(decayed)}, the best of its rows,"
        if verdict == "no different":
            found.append(
                f"{start} cannot be told from {name_of(none)} in test "
                f"accuracy (a difference of {numbers})."
            )
        elif verdict == "unknown":
            found.append(
                f"{start} differs from {name_of(none)} {numbers}: run more "
                "seeds to know whether that is chance."
            )
        else:
            found.append(
                f"{start} is {verdict} in test accuracy than {name_of(none)} "
                f"({numbers})."
            )
    if {"coupled", "decoupled"} <= set(own):
        verdict, numbers = _verdict(
            _accuracy(own["decoupled"]), _accuracy(own["coupled"])
        )
        if verdict in ("higher", "lower"):
            found.append(
                f"Decoupled decay is {verdict} than coupled decay for "
                f"{name_of(own['decoupled']).split(' with')[0]} ({numbers})."
            )
        elif verdict == "no different":
            found.append(
                f"For {name_of(own['decoupled']).split(' with')[0]} coupled "
                "and decoupled decay cannot be told apart (a difference of "
                f"{numbers})."
            )
    return found


def _about_mechanisms(optimizer, own):
    """How decay acted: learning rate, Jacobian, damping."""
    found = []
    none = own.get("none")
    decayed = own.get("decoupled") or own.get("coupled")
    if none is None or decayed is None:
        return found
    label = name_of(decayed).split(" with")[0]
    for log, what in (
        ("relative_rate", "effective learning rate"),
        ("effective_damping", "effective damping"),
    ):
        ratios = [_course(row, log) for row in (none, decayed)]
        if None not in ratios and not _only_schedule(log, own):
            found.append(
                f"{label}: over the run, its schedule apart, the {what} went "
                f"to {_times(ratios[0])} its first value without decay and "
                f"to {_times(ratios[1])} with {WORDS[decayed.method]}."
            )
    ends = [row.means.get("jacobian_norm") for row in (none, decayed)]
    if None not in ends and ends[0].value > 0:
        ratio = ends[1].value / ends[0].value
        found.append(
            f"{label}: the squared norm of the input-output Jacobian ended "
            f"at {ends[0].value:.3g} without decay and at {ends[1].value:.3g} "
            f"with {WORDS[decayed.method]} ({_times(ratio)})."
        )
    return found


def _course(row, log):
    curve = row.curve(log)
    if curve is None or not curve[1][0] > 0:
        return None
    return float(curve[1][-1] / curve[1][0])


def _only_schedule(log, own):
    """K-FAC's effective rate is the scheduled one whatever the decay."""
    return log == "relative_rate" and all(
        row.optimizer == "kfac" for row in own.values()
    )


def _times(ratio):
    return f"{ratio:.2g} times" if ratio < 100 else f"{ratio:.0f} times"


def _about_sparsity(rows):
    sparse = [row for row in rows if row.means["sparsity"].value > 0.01]
    if not sparse:
        return ["No method removed more than 1 % of the weights."]
    best = _best(rows)
    near = [
        row
        for row in sparse
        if _verdict(_accuracy(row), _accuracy(best))[0] != "lower"
    ] or sparse
    row = max(near, key=lambda row: row.means["sparsity"].value)
    change, _ = difference(_accuracy(row), _accuracy(best))
    return [
        f"{name_of(row)} leaves {1 - row.means['sparsity'].value:.1%} of the "
        f"weights, {abs(change) * 100:.2f} points below the best accuracy."
        if change < 0
        else f"{name_of(row)} leaves {1 - row.means['sparsity'].value:.1%} of "
        "the weights, at the best accuracy of all."
    ]


def _about_losses(rows):
    found = []
    for row in rows:
        if row.lost:
            diverged = sum(run.status == "diverged" for run in row.lost)
            failed = len(row.lost) - diverged
            parts = [f"{diverged} diverged"] if diverged else []
            parts += [f"{failed} failed"] if failed else []
            count = len(row.lost) + len(row.done)
            found.append(
                f"Of {count} runs of {name_of(row)} {' and '.join(parts)}."
            )
    return found
