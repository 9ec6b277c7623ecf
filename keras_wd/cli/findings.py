"""What the numbers of a comparison say, in sentences.

The answer first: the row to take, chosen in validation. Then what is certain,
most certain first; which mechanism acted; and what the seeds do not resolve,
with how many would.
"""

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence

from keras_wd.cli import statistics
from keras_wd.cli.comparisons import MEASURES
from keras_wd.cli.comparisons import comparisons
from keras_wd.cli.grid import WORDS
from keras_wd.cli.results import Mean
from keras_wd.cli.results import Row
from keras_wd.cli.results import best_in_validation
from keras_wd.cli.results import label_of

OPTIMIZERS = {
    "sgd": "SGD",
    "momentum": "SGD with momentum",
    "adam": "Adam",
    "kfac": "K-FAC",
}


@dataclasses.dataclass(frozen=True)
class Findings:
    """Sentences, by what they are.

    Attributes:
        answer: the row to take.
        certain: what holds at 5 % for all comparisons together.
        mechanisms: by what the decay acted.
        open: what the seeds do not resolve.
        notes: sparsity, runs that were lost.
    """

    answer: Sequence[str]
    certain: Sequence[str]
    mechanisms: Sequence[str]
    open: Sequence[str]
    notes: Sequence[str]

    def __iter__(self):
        for field in dataclasses.fields(self):
            yield from getattr(self, field.name)


def findings(rows: Sequence[Row]) -> Findings:
    """What the rows of a comparison say, one row per method."""
    done = [row for row in rows if row.done]
    compared = comparisons(done)
    pairs = {}
    for one in compared:
        pairs.setdefault((id(one.row), id(one.other)), []).append(one)
    certain = [p for p in pairs.values() if any(c.is_certain for c in p)]
    certain.sort(key=_least_p)
    unsettled = [p for p in pairs.values() if p not in certain]
    unsettled.sort(key=lambda p: (_needed(p) or math.inf, _least_p(p)))
    mechanisms = []
    for optimizer in dict.fromkeys(row.optimizer for row in done):
        mechanisms += _mechanism(
            {r.method: r for r in done if r.optimizer == optimizer}
        )
    return Findings(
        _answer(done, compared),
        list(map(_certain, certain)),
        mechanisms,
        list(map(_open, unsettled)),
        [*_about_coupling(done), *_about_sparsity(done), *_about_losses(rows)],
    )


def optimizer_name(row: Row) -> str:
    """What the optimizer of a row is called in a sentence."""
    return OPTIMIZERS.get(row.optimizer, row.optimizer)


def name_of(row: Row) -> str:
    """What a row is called in a sentence."""
    if row.method == "none":
        return f"{optimizer_name(row)} without decay{_at(row)}"
    return f"{optimizer_name(row)} with {_short(row)}"


def _answer(rows, compared):
    best = best_in_validation(rows)
    if best is None:
        return []
    numbers = [
        f"test {label_of(name)} {_amount(name, best.means[name])}"
        for name in MEASURES
        if name in best.means
    ]
    sentences = [
        f"Take {name_of(best)}: best in validation, {', '.join(numbers)} "
        f"({_seeds(len(best.done))})."
    ]
    own = [c for c in compared if c.row is best and c.other.method == "none"]
    better = [c for c in own if c.is_certain and c.is_better]
    worse = [c for c in own if c.is_certain and not c.is_better]
    if better and not worse:
        what = " and ".join(label_of(c.number) for c in better)
        sentences.append(
            f"That its decay improves the test {what} is certain (see below)."
        )
    elif own and not worse:
        sentences.append(
            "That its decay is what helps is not certain with "
            f"{_seeds(own[0].difference.seeds)}."
        )
    elif worse:
        what = " and ".join(label_of(c.number) for c in worse)
        sentences.append(
            f"Beware: on the test images its {what} is certainly worse than "
            "without decay."
        )
    return sentences


def _certain(pair):
    return f"{_versus(pair)}: {_numbers(pair)}."


def _open(pair):
    sentence = f"{_versus(pair)}: {_numbers(pair)}"
    if pair[0].difference.seeds == 1:
        return f"{sentence}; a single seed proves nothing."
    needed = _needed(pair)
    if needed is None:
        if all(not c.difference.value for c in pair):
            return f"{sentence}; no difference."
        return (
            f"{sentence}; more than {statistics.MOST_SEEDS} seeds would be "
            "needed: call it no difference."
        )
    number = min(pair, key=lambda c: c.needed or math.inf).number
    return (
        f"{sentence}; about {needed} seeds would resolve the "
        f"{label_of(number)}."
    )


def _versus(pair):
    row, other = pair[0].row, pair[0].other
    certain = [c for c in pair if c.is_certain]
    better = sorted({c.is_better for c in certain})
    verdict = {
        (True,): "is better than",
        (False,): "is worse than",
        (False, True): "is better in one and worse in the other than",
        (): "cannot be told from",
    }[tuple(better)]
    number = ""
    if len(certain) == 1:
        number = f" in test {label_of(certain[0].number)}"
    return f"{name_of(row)} {verdict} {_short(other)}{number}"


def _short(row):
    if row.method == "none":
        return f"no decay{_at(row)}"
    return f"{WORDS[row.method]}{_at(row)}"


def _at(row):
    rate = "" if row.weight_decay is None else f" at {row.weight_decay:g}"
    if row.learning_rate is None:
        return rate
    return f"{rate} (learning rate {row.learning_rate:g})"


def _numbers(pair):
    parts = []
    for one in sorted(pair, key=lambda c: not c.is_certain):
        _, factor, form, unit = MEASURES[one.number]
        change = format(one.difference.value * factor, form)
        error = ""
        if one.difference.error is not None:
            error = f" ± {format(one.difference.error * factor, form[1:])}"
        p = "" if one.p is None else f", p = {one.p:.2g}"
        if one.p is not None and one.p < 1e-4:
            p = ", p < 0.0001"
        parts.append(
            f"test {label_of(one.number)} {change}{error}{unit}"
            f"{p}{' (certain)' if one.is_certain else ''}"
        )
    return "; ".join(parts)


def _amount(name, mean: Mean):
    _, factor, form, _ = MEASURES[name]
    form = form.removeprefix("+")
    unit = " %" if factor == 100 else ""
    text = format(mean.value * factor, form)
    if mean.error is None:
        return f"{text}{unit}"
    return f"{text} ± {format(mean.error * factor, form)}{unit}"


def _in_all(count):
    return "for the one seed" if count == 1 else f"for all {count} seeds"


def _seeds(count):
    return "1 seed" if count == 1 else f"{count} seeds"


def _least_p(pair):
    return min((c.p for c in pair if c.p is not None), default=math.inf)


def _needed(pair):
    return min((c.needed for c in pair if c.needed), default=None)


# Number: (name, whether decay acts by making it larger, what that means).
MECHANISMS = {
    "relative_rate": (
        "effective learning rate",
        True,
        "it keeps the weights before normalizations small, so that each step "
        "turns them further",
    ),
    "effective_damping": (
        "effective damping",
        False,
        "it keeps the weights before normalizations small, so that the "
        "damping of K-FAC does not drown the curvature",
    ),
    "jacobian_norm": (
        "Jacobian norm",
        False,
        "it makes the outputs less sensitive to the inputs",
    ),
}


def _mechanism(own: Mapping[str, Row]) -> list[str]:
    """The sentence on how the decay of an optimizer acted."""
    none = own.get("none")
    decayed = own.get("decoupled") or own.get("coupled")
    if none is None or decayed is None:
        return []
    first_order = none.optimizer != "kfac"
    changes = {}
    for number in MECHANISMS:
        if number == "relative_rate" and not first_order:
            continue  # K-FAC's is the scheduled one whatever the decay.
        ratios = _ratios(decayed.by_seed(number), none.by_seed(number))
        if ratios:
            changes[number] = ratios
    label = f"{optimizer_name(none)} with {WORDS[decayed.method]}"
    measured = "; ".join(
        f"{MECHANISMS[number][0]} {_times(ratios)}"
        for number, ratios in changes.items()
    )
    for number, ratios in changes.items():
        name, larger, meaning = MECHANISMS[number]
        if all(r > 1.1 if larger else r < 1 / 1.1 for r in ratios):
            return [
                f"{label} acted through the {name}: {meaning}. Known by "
                f"measuring both in pairs at the end: {measured} what it is "
                f"without decay, {_in_all(len(ratios))}."
            ]
    if not changes:
        return []
    return [
        f"{label}: none of the known mechanisms moved the way it should in "
        f"all seeds. Measured in pairs at the end: {measured} what it is "
        "without decay."
    ]


def _ratios(decayed, none):
    return [
        decayed[seed] / none[seed]
        for seed in sorted(set(decayed) & set(none))
        if none[seed] > 0 and decayed[seed] > 0
    ]


def _times(ratios):
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return f"{mean:.2g} times" if mean < 100 else f"{mean:.0f} times"


def _about_coupling(rows):
    coupled = {row.optimizer for row in rows if row.method == "coupled"}
    decoupled = {row.optimizer for row in rows if row.method == "decoupled"}
    if "sgd" not in decoupled or not coupled - {"sgd"}:
        return []
    return [
        "For plain SGD coupled decay is the same step as decoupled decay: it "
        "is not trained twice."
    ]


def _about_sparsity(rows):
    sparse = [row for row in rows if row.means["sparsity"].value > 0.01]
    if not sparse:
        return []
    known = all("test_accuracy" in row.means for row in rows)
    number = "test_accuracy" if known else "test_loss"
    more_is_better, factor, form, unit = MEASURES[number]

    def merit(row):
        return row.means[number].value * (1 if more_is_better else -1)

    best = max(rows, key=merit)
    row = max(sparse, key=lambda row: row.means["sparsity"].value)
    left = f"{name_of(row)} leaves {1 - row.means['sparsity'].value:.1%} of "
    change = (row.means[number].value - best.means[number].value) * factor
    if row is best:
        return [f"{left}the weights, at the best test {label_of(number)}."]
    return [
        f"{left}the weights, at a test {label_of(number)} of {change:{form}}"
        f"{unit} beside the best row."
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
                f"Of {count} runs of {name_of(row)}, {' and '.join(parts)}."
            )
    return found
