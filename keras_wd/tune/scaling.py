"""The weight decay of a larger run from that of a smaller one."""

import math
from typing import NamedTuple

from keras_wd.errors import check_choice
from keras_wd.errors import check_number


class ScaledDecay(NamedTuple):
    """What to train the other run with.

    Attributes:
        weight_decay: the decoupled rate, times the learning rate per step.
        learning_rate: the peak learning rate it goes with.

    >>> from keras_wd import tune
    >>> decay, learning_rate = tune.ScaledDecay(0.1, 1e-3)
    """

    weight_decay: float
    learning_rate: float


def _timescale(batch, examples, width, given):
    return batch / examples / given, given


def _square_root_of_batch(batch, examples, width, given):
    return math.sqrt(batch) / examples, math.sqrt(batch)


def _width(batch, examples, width, given):
    return width, 1 / width


def _square_root_of_width(batch, examples, width, given):
    return math.sqrt(width), 1 / width


# By rule: the factors of decay and learning rate, and what may differ.
_RULES = {
    "timescale": (
        _timescale,
        {"batch_size", "examples", "new_learning_rate"},
    ),
    "square_root_of_batch": (
        _square_root_of_batch,
        {"batch_size", "examples"},
    ),
    "width": (_width, {"width"}),
    "square_root_of_width": (_square_root_of_width, {"width"}),
}


def scale_weight_decay(
    weight_decay: float,
    learning_rate: float,
    *,
    rule: str,
    batch_size: tuple[float, float] | None = None,
    examples: tuple[float, float] | None = None,
    width: tuple[float, float] | None = None,
    new_learning_rate: float | None = None,
) -> ScaledDecay:
    """Decay and learning rate for another batch, data set or width.

    With B the batch size, N the training examples of one epoch (or the tokens
    of a single pass), d the width, each "from, to", lr the learning rate:

        "timescale"             decay ~ B / (lr N), lr as you say
        "square_root_of_batch"  decay ~ sqrt(B) / N, lr ~ sqrt(B)
        "width"                 decay ~ d, lr ~ 1 / d
        "square_root_of_width"  decay ~ sqrt(d), lr ~ 1 / d

    AdamW's weights are an average over the last `1 / (lr decay)` updates, and
    "timescale" keeps that number, as a share of an epoch, B / (lr decay N).
    "square_root_of_batch" is the same with the learning rate that Adam's
    noise asks for. Under mu-P the learning rate of a kernel falls with the
    width; "width" then keeps what a step takes off the weights, lr decay
    (`coupling="independent"` does so by itself). To change several things,
    scale several times.

    Where the sources disagree: whether the learning rate should follow the
    batch (Bergsma et al. leave it and let decay ~ B; nanochat lets it grow
    with the root), and whether decay follows the width (Wang and Aitchison;
    Kosson et al.) or its root (Fan et al., who match the largest singular
    values of normalized layers). All of them speak of AdamW, most of them of
    language models trained for about one pass.

    Convention: decoupled decay, `w <- w - lr * decay * w` per step.

    Args:
        weight_decay: of the run that went well, >= 0.
        learning_rate: its peak learning rate, > 0.
        rule: one of the four above.
        batch_size: `(from, to)`, examples per step.
        examples: `(from, to)`, examples per epoch.
        width: `(from, to)`, inputs of the kernels that are scaled.
        new_learning_rate: of the other run, for "timescale"; None for the
            same.

    Raises:
        ValueError: if an argument is out of range, the rule has no place for
            it, or nothing changes.

    >>> from keras_wd import tune
    >>> tune.scale_weight_decay(
    ...     0.1, 1e-3, rule="timescale", examples=(50_000, 200_000)
    ... )
    ScaledDecay(weight_decay=0.025, learning_rate=0.001)
    >>> tune.scale_weight_decay(0.1, 1e-3, rule="width", width=(256, 1024))
    ScaledDecay(weight_decay=0.4, learning_rate=0.00025)

    Source: Wang and Aitchison, 2024, "How to set AdamW's weight decay as you
    scale model and dataset size" (timescale, width); Bergsma et al., 2025,
    "Power Lines" (timescale); Kosson et al., 2025, "Weight Decay may matter
    more than muP for Learning Rate Transfer in Practice" (width); Fan et al.,
    2025, "Robust Layerwise Scaling Rules by Proper Weight Decay Tuning"
    (square_root_of_width); nanochat (square_root_of_batch).
    """
    weight_decay = check_number("weight_decay", weight_decay, minimum=0)
    learning_rate = check_number("learning_rate", learning_rate, above=0)
    factors, places = _RULES[check_choice("rule", rule, _RULES)]
    given = {
        "batch_size": batch_size,
        "examples": examples,
        "width": width,
        "new_learning_rate": new_learning_rate,
    }
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in places:
            fitting = [r for r, (_, others) in _RULES.items() if name in others]
            raise ValueError(
                f"`{name}` is not used by the rule {rule!r}. Received: "
                f"{name}={given[name]!r}. Use rule={fitting[0]!r}, after this "
                "one if both change."
            )
    if not given:
        raise ValueError(
            f"One of {', '.join(sorted(places))} must be given for "
            f"rule={rule!r}: otherwise nothing changes. Received: none of them."
        )
    if new_learning_rate is None:
        new_learning_rate = learning_rate
    check_number("new_learning_rate", new_learning_rate, above=0)
    decay_factor, rate_factor = factors(
        _ratio("batch_size", batch_size),
        _ratio("examples", examples),
        _ratio("width", width),
        new_learning_rate / learning_rate,
    )
    return ScaledDecay(weight_decay * decay_factor, learning_rate * rate_factor)


def _ratio(name, pair):
    if pair is None:
        return 1.0
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(
            f"`{name}` must be two numbers, (from, to). "
            f"Received: {name}={pair!r}"
        )
    before, after = (check_number(name, value, above=0) for value in pair)
    return after / before
