"""Which weights belong to the same units, named by their paths."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import keras

from keras_wd.errors import check_count


@keras.saving.register_keras_serializable("keras_wd.decays")
@dataclasses.dataclass(frozen=True)
class HomogeneousUnits:
    """The units between two layers that only homogeneous operations join.

    Unit i reads its inputs with the weights `w_i` (a column of the input
    kernel) and a bias, and acts on what follows through `v_i` (rows of the
    output kernel). Scaling `w_i` and its biases by c > 0 and `v_i` by 1/c
    changes nothing. `keras_wd.graph.homogeneous_units` finds such pairs in
    Sequential and Functional models; for other models name them yourself.

    All weights are given by path, or by an end of it that no other variable
    has: `"hidden/kernel"`.

    Args:
        input_kernel: `(..., units)`: a kernel of a Dense or convolution
            layer, or the scale `gamma` of a batch normalization.
        output_kernel: `(..., rows, outputs)` with
            `rows = positions * units * channels`.
        input_bias: `(units,)`, or None.
        output_bias: the bias added after the output kernel, or None.
        inner_biases: biases between the two kernels, `(units * channels,)`
            each, such as those of depthwise convolutions.
        positions: how often the units are repeated along the rows; the size
            of an image that is flattened in between.
        channels: how many neighbouring rows a unit has at each position; the
            `depth_multiplier` of a depthwise convolution in between.
        biases_before: None if these units stand alone. Otherwise only
            homogeneous operations lead here from the output kernel of the
            pair before this one in the list, and this names the biases of the
            layers in between, possibly none: `()`.

    Raises:
        ValueError: if an argument is of the wrong kind.

    >>> from keras_wd import decays
    >>> decays.HomogeneousUnits(
    ...     "hidden/kernel", "output/kernel", input_bias="hidden/bias"
    ... ).kernels
    ('hidden/kernel', 'output/kernel')
    """

    input_kernel: str
    output_kernel: str
    input_bias: str | None = None
    output_bias: str | None = None
    inner_biases: tuple[str, ...] = ()
    positions: int = 1
    channels: int = 1
    biases_before: tuple[str, ...] | None = None

    def __post_init__(self):
        for name in ("input_kernel", "output_kernel"):
            _check_path(name, getattr(self, name))
        for name in ("input_bias", "output_bias"):
            if getattr(self, name) is not None:
                _check_path(name, getattr(self, name))
        _check_paths(self, "inner_biases")
        if self.biases_before is not None:
            _check_paths(self, "biases_before")
        for name in ("positions", "channels"):
            number = check_count(name, getattr(self, name))
            object.__setattr__(self, name, number)

    @property
    def kernels(self) -> tuple[str, str]:
        """The paths of the two kernels."""
        return self.input_kernel, self.output_kernel

    def get_config(self) -> dict:
        """Plain Python."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(self)
            for value in [getattr(self, field.name)]
        }

    @classmethod
    def from_config(cls, config: dict) -> "HomogeneousUnits":
        """The inverse of `get_config`."""
        return cls(**config)


def check_units(units: Sequence, name: str = "units") -> list[HomogeneousUnits]:
    """Return `units` as a list of pairs, or raise.

    Args:
        units: `HomogeneousUnits`, or dictionaries of their arguments.
        name: of the argument.
    """
    if not isinstance(units, list | tuple) or not units:
        raise ValueError(
            f"`{name}` must be a list of pairs of layers with at least one in "
            "it, as graph.homogeneous_units(model) returns. Received: "
            f"{name}={units!r}. graph.explain(model) says why layers have no "
            "partner."
        )
    units = [_one_pair(pair, name) for pair in units]
    if units[0].biases_before is not None:
        raise ValueError(
            f"`{name}` must begin with a pair that stands alone. Received: "
            f"biases_before={units[0].biases_before!r} in the first pair, "
            "which has no pair before it."
        )
    return units


def chains(units: Sequence[HomogeneousUnits]) -> list[list[int]]:
    """The positions of pairs, grouped into rows that can be balanced."""
    rows = []
    for position, pair in enumerate(units):
        if pair.biases_before is None:
            rows.append([])
        rows[-1].append(position)
    return rows


def list_roles(
    units: Sequence[HomogeneousUnits], rescales: bool, balance: bool
) -> list[tuple[int, str, str]]:
    """(pair, role, path) of every weight that a step on pairs acts on.

    Roles are "w" and "v" for the kernels and, if the step rescales them,
    "bias" and "inner" for biases within a pair; in a row of pairs that is
    balanced also "after" for the one behind `v` and "before" for those in
    front of `w`.
    """
    roles = []
    for row in chains(units):
        balanced = rescales and balance and len(row) > 1
        for number in row:
            pair = units[number]
            named: list[tuple[str, str | None]]
            named = [("w", pair.input_kernel), ("v", pair.output_kernel)]
            if rescales:
                named += [("bias", pair.input_bias)]
                named += [("inner", path) for path in pair.inner_biases]
            if balanced:
                named += [("after", pair.output_bias)]
                named += [("before", path) for path in pair.biases_before or ()]
            roles += [
                (number, role, path) for role, path in named if path is not None
            ]
    return roles


def _one_pair(pair, name):
    if isinstance(pair, HomogeneousUnits):
        return pair
    if isinstance(pair, Mapping):
        try:
            return HomogeneousUnits(**pair)
        except TypeError as error:
            raise ValueError(
                f"`{name}` must be dictionaries of the arguments of "
                f"HomogeneousUnits. Received: {dict(pair)!r}: {error}"
            ) from error
    raise ValueError(
        f"`{name}` must be a list of HomogeneousUnits. Received: {pair!r} in "
        f"{name}."
    )


def _check_path(name, path):
    if not isinstance(path, str) or not all(path.split("/")):
        raise ValueError(
            f"`{name}` must be the path of a weight such as 'hidden/kernel'. "
            f"Received: {name}={path!r}"
        )


def _check_paths(units, name):
    given = getattr(units, name)
    if not isinstance(given, list | tuple):
        raise ValueError(
            f"`{name}` must be a list of paths. Received: {name}={given!r}"
        )
    for path in given:
        _check_path(name, path)
    object.__setattr__(units, name, tuple(given))
