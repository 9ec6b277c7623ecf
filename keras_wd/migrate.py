"""Bringing a decay over from other code."""

from collections.abc import Callable
from collections.abc import Sequence

import keras

from keras_wd import decays
from keras_wd import regularizers
from keras_wd import where
from keras_wd.errors import check_choice
from keras_wd.errors import check_number

__all__ = ["convert_weight_decay", "from_regularizers"]


def __dir__():
    return __all__


# How each convention's number becomes the decoupled rate of keras_wd, and
# back. The functions take the number, the learning rate and p.
_CONVENTIONS: dict[str, tuple[Callable, Callable]] = {
    "keras_wd": (lambda x, lr, p: x, lambda x, lr, p: x),
    "keras": (lambda x, lr, p: x, lambda x, lr, p: x),
    "pytorch": (lambda x, lr, p: x, lambda x, lr, p: x),
    "independent": (lambda x, lr, p: x / lr, lambda x, lr, p: x * lr),
    "tensorflow_addons": (lambda x, lr, p: x / lr, lambda x, lr, p: x * lr),
    "adamw_paper": (lambda x, lr, p: x / lr, lambda x, lr, p: x * lr),
    "keras_regularizer": (lambda x, lr, p: 2 * x, lambda x, lr, p: x / 2),
    "padam": (lambda x, lr, p: x * p, lambda x, lr, p: x / p),
}
_NEEDS_LEARNING_RATE = ("independent", "tensorflow_addons", "adamw_paper")


def convert_weight_decay(
    value: float,
    source: str,
    target: str = "keras_wd",
    *,
    learning_rate: float | None = None,
    p: float | None = None,
) -> float:
    """The same strength of decay in another convention.

    With `w` a weight, lr the learning rate and r the converted number:

        "keras_wd", "keras", "pytorch"    w <- w - lr r w        r
        "independent", "tensorflow_addons",
        "adamw_paper"                     w <- w - r w           r / lr
        "keras_regularizer"               loss + r sum w^2       2 r
        "padam" (the authors' lambda_p)   loss + r sum |w|^p     r p

    The last column is the rate in keras_wd. `"keras_regularizer"` is a coupled
    penalty: the number keeps its meaning with `coupling="coupled"`. In the
    published loop of AdamW `r` is multiplied by the schedule's factor, so
    give the peak learning rate, and the schedule to the optimizer.

    Args:
        value: the number to convert, >= 0.
        source: the convention it is written in.
        target: the convention wanted.
        learning_rate: the peak learning rate, where either convention does
            not multiply by it.
        p: the exponent, where either convention is `"padam"`.

    Raises:
        ValueError: if a convention is unknown or an argument is missing.

    >>> from keras_wd import migrate
    >>> round(migrate.convert_weight_decay(
    ...     1e-4, "tensorflow_addons", learning_rate=1e-3), 6)
    0.1
    >>> migrate.convert_weight_decay(0.01, "keras_regularizer")
    0.02
    """
    value = check_number("value", value, minimum=0)
    check_choice("source", source, _CONVENTIONS)
    check_choice("target", target, _CONVENTIONS)
    named = (source, target)
    if any(name in _NEEDS_LEARNING_RATE for name in named):
        learning_rate = check_number("learning_rate", learning_rate, above=0)
    if "padam" in named:
        p = check_number("p", p, above=0)
    to_rate, _ = _CONVENTIONS[source]
    _, from_rate = _CONVENTIONS[target]
    return from_rate(to_rate(value, learning_rate, p), learning_rate, p)


def from_regularizers(
    model: keras.Model, coupling: str = "coupled"
) -> list[decays.Decay]:
    """The regularizers of a model's weights as decays that do the same.

    `coupling="coupled"` keeps the training as it was (the penalty leaves the
    reported loss). Any other coupling applies the same penalties decoupled.
    Build the model again without its regularizers before using the decays:
    both together would count twice.

    Reads `L1`, `L2` and `L1L2` of Keras and `Lp` and `GroupLasso` of
    keras_wd; `keras.regularizers.L2(c)` is `c * sum w^2` and becomes
    `L2(2 * c)`. Variables with equal regularizers share a decay.

    Args:
        model: a built model.
        coupling: the coupling of the decays.

    Returns:
        A list of decays for `WeightDecay`; empty if nothing is regularized.

    Raises:
        ValueError: if the model is not built or a regularizer has no
            equivalent decay; the message names the variables.

    >>> import keras
    >>> from keras_wd import migrate
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(2, kernel_regularizer="l2", name="head"),
    ... ], name="m")
    >>> [decay.weight_decay for decay in migrate.from_regularizers(model)]
    [0.02]
    """
    check_choice("coupling", coupling, decays.Decay.couplings)
    variables = where.trainable_variables(model)
    grouped: dict[tuple, list[keras.Variable]] = {}
    unknown = []
    for variable in variables:
        regularizer = getattr(variable, "regularizer", None)
        if regularizer is None:
            continue
        parts = _as_decays(regularizer)
        if parts is None:
            unknown.append(f"{variable.path} ({type(regularizer).__name__})")
            continue
        for part in parts:
            grouped.setdefault(part, []).append(variable)
    if unknown:
        raise ValueError(
            "`model` must use regularizers that have an equivalent decay "
            "(L1, L2, L1L2, Lp, GroupLasso). Received: "
            f"{', '.join(unknown)}. Leave these on their layers, or subclass "
            "`keras_wd.decays.Decay`."
        )
    return [
        _decay(part, where.paths_of(chosen, variables), coupling)
        for part, chosen in grouped.items()
    ]


def _as_decays(regularizer) -> Sequence[tuple] | None:
    """(class, rate, extra argument) of each penalty; None if unknown."""
    kind = type(regularizer)
    if kind is keras.regularizers.L2:
        return _nonzero((decays.L2, 2 * float(regularizer.l2), None))
    if kind is keras.regularizers.L1:
        return _nonzero((decays.L1, float(regularizer.l1), None))
    if kind is keras.regularizers.L1L2:
        return _nonzero(
            (decays.L1, float(regularizer.l1), None),
            (decays.L2, 2 * float(regularizer.l2), None),
        )
    if kind is regularizers.Lp:
        return _nonzero((decays.Lp, regularizer.weight_decay, regularizer.p))
    if kind is regularizers.GroupLasso:
        return _nonzero(
            (decays.GroupLasso, regularizer.weight_decay, regularizer.axis)
        )
    return None


def _nonzero(*parts):
    return [part for part in parts if part[1] > 0]


def _decay(part, selection, coupling):
    kind, rate, argument = part
    arguments = () if argument is None else (argument,)
    return kind(rate, *arguments, where=selection, coupling=coupling)
