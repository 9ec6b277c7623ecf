"""Whether the variables of a model can be the units that are named."""

import collections
from collections.abc import Mapping
from collections.abc import Sequence

import keras

from keras_wd.decays.units import HomogeneousUnits
from keras_wd.errors import did_you_mean
from keras_wd.patterns import endings
from keras_wd.patterns import matches


def positions_of(
    names: Sequence[str], variables: Sequence[keras.Variable]
) -> list[int]:
    """The positions of the variables that paths name, one each."""
    by_ending = collections.defaultdict(list)
    for position, variable in enumerate(variables):
        for ending in endings(variable.path):
            by_ending[ending].append(position)
    return [_position_of(name, by_ending, variables) for name in names]


def _position_of(path, by_ending, variables):
    found = by_ending.get(path) or [
        position
        for position, variable in enumerate(variables)
        if matches(path, variable.path)
    ]
    if len(found) == 1:
        return found[0]
    existing = [variable.path for variable in variables]
    if not found:
        raise ValueError(
            "`units` must name trainable variables of the model. Received: "
            f"{path!r}, which is none of {', '.join(existing)}"
            f"{did_you_mean(path, existing)}"
        )
    raise ValueError(
        "`units` must name one variable at a time. Received: "
        f"{path!r}, which fits {', '.join(existing[i] for i in found)}. Put "
        "more of the path in front."
    )


def check_shapes(units: HomogeneousUnits, pair: Mapping[str, list]) -> None:
    """Raise unless the weights of a pair can belong to the same units.

    Args:
        units: what the pair is.
        pair: its variables by role: "w", "v" and, where they are known,
            "bias", "inner", "after".
    """
    (w,), (v,) = pair["w"], pair["v"]
    count = w.shape[-1]
    if len(v.shape) < 2:
        raise ValueError(
            "`output_kernel` must have rows and outputs. Received: "
            f"{v.path} of shape {tuple(v.shape)}"
        )
    rows = units.positions * count * units.channels
    if v.shape[-2] != rows:
        raise ValueError(
            "`units` must pair kernels that fit: the output kernel has "
            "positions * units * channels rows. Received: "
            f"{w.path} of shape {tuple(w.shape)} with {count} units, "
            f"positions={units.positions}, channels={units.channels}, and "
            f"{v.path} of shape {tuple(v.shape)}, which has {v.shape[-2]} "
            f"rows and not {rows}."
        )
    expected = {
        "bias": count,
        "inner": count * units.channels,
        "after": v.shape[-1],
    }
    for role, size in expected.items():
        for bias in pair.get(role, ()):
            if tuple(bias.shape) != (size,):
                raise ValueError(
                    "`units` must name biases that fit their kernels. "
                    f"Received: {bias.path} of shape {tuple(bias.shape)} "
                    f"beside {w.path} and {v.path}, where it must be "
                    f"({size},)."
                )


def check_not_regularized(bias: keras.Variable) -> None:
    """Raise if a bias that balancing rescales has a penalty of its own."""
    if getattr(bias, "regularizer", None) is not None:
        _refuse_balance(f"{bias.path} has the regularizer {bias.regularizer!r}")


def check_not_decayed(bias: keras.Variable) -> None:
    """Raise for a bias that another decay of the optimizer acts on."""
    _refuse_balance(
        f"another decay of the optimizer acts on {bias.path}: leave it out "
        "there"
    )


def _refuse_balance(found):
    raise ValueError(
        "`balance` must be False where biases decay, because balancing "
        "changes their size and so their penalty. Received: balance=True, "
        f"but {found}."
    )
