"""A decay of the products of the weights along a path."""

from collections.abc import Container
from collections.abc import Mapping
from collections.abc import Sequence

import keras
from keras import ops

from keras_wd.decays.decay import Decay
from keras_wd.decays.unit_checks import check_not_decayed
from keras_wd.decays.unit_checks import check_not_regularized
from keras_wd.decays.unit_checks import check_shapes
from keras_wd.decays.unit_checks import positions_of
from keras_wd.decays.units import HomogeneousUnits
from keras_wd.decays.units import chains
from keras_wd.decays.units import check_units
from keras_wd.decays.units import list_roles
from keras_wd.errors import check_flag
from keras_wd.ops.paths import balancing_factors
from keras_wd.ops.paths import input_norms
from keras_wd.ops.paths import normalizing_factors
from keras_wd.ops.paths import output_norms
from keras_wd.ops.paths import path_norm
from keras_wd.ops.paths import repeat_channels
from keras_wd.ops.paths import scale_outputs
from keras_wd.ops.paths import threshold_factors
from keras_wd.ops.paths import unit_factors
from keras_wd.schedules import Rate
from keras_wd.where import trainable_variables


@keras.saving.register_keras_serializable("keras_wd.decays")
class PathNorm(Decay):
    """Proximal step on the paths through units: exact zeros, unit by unit.

    For unit i of a pair of layers with input weights `w_i` and output weights
    `v_i` (`homogeneous_units` says which), after each update:

        balance    v <- v * g / PN, where the pairs follow each other
        normalize  w_i <- w_i / |w_i|, and the biases of the unit likewise
        threshold  v_i <- v_i * max(1 - s / |v_i|, 0)

    Here `PN = sum_i |w_i| |v_i|` is the path norm of a pair and g the
    geometric mean of those of a row of pairs; the biases after each pair grow
    with it, so that the function stays the same. `|w_i|` is at least 1e-6 in
    the division, and a unit without input weights is left alone. Units with
    `v_i = 0` contribute nothing: `keras_wd.graph.compact` removes them.

    Penalty: `rate * sum over pairs of PN` (Euclidean norms, not squared). It
    has the same minima as weight decay, `(rate / 2) * sum (|w_i|^2 +
    |v_i|^2)`, and this step finds the sparse ones.

    Convention: `s = learning_rate * rate` (`"decoupled"`) or `s = rate`
    (`"independent"`). `"coupled"` adds the gradient of the penalty,
    `rate * |v_i| w_i / |w_i|` to that of w and likewise for v (0 for a norm
    of 0); nothing is normalized, balanced or exactly zero then.

    Normalizing as released is a projection and changes the function, most of
    all at the first step; `absorb=True` multiplies `v_i` by `|w_i|` first,
    which keeps it, and is sparser at the same rate but less stable at large
    steps. At rate or learning rate zero nothing happens at all, so that a
    schedule may start or end there.

    With momentum or Adam: the step rescales weights and not the moments of
    their gradients, so for a few steps the inner optimizer moves them by what
    fitted their old scale. And momentum moves a zero again at the next step,
    which the threshold undoes only if the movement is smaller than s. Plain
    SGD has neither effect.

    Args:
        weight_decay: the rate, a number >= 0, or a schedule or function of
            iterations.
        units: the pairs, as `keras_wd.graph.homogeneous_units(model)` returns
            them, or a list of `HomogeneousUnits` of your own.
        balance: make the path norms of pairs that follow each other equal.
            Refused where biases are regularized: it changes their size.
        absorb: the function-preserving variant.
        coupling: `"decoupled"`, `"independent"` or `"coupled"`.
        name: the name of the rate in logs.

    Raises:
        ValueError: if an argument is out of range; when the optimizer is
            built, if a path of `units` has no variable or several, or the
            shapes of a pair do not fit.

    >>> import keras
    >>> from keras_wd import decays, graph, optimizers
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, "relu", name="hidden"),
    ...     keras.layers.Dense(2, name="output"),
    ... ])
    >>> optimizer = optimizers.WeightDecay(
    ...     keras.optimizers.SGD(0.1),
    ...     decays.PathNorm(1e-3, graph.homogeneous_units(model)),
    ... )

    Source: Yang et al., 2022, "PathProx: A Proximal Gradient Algorithm for
    Weight Decay Regularized Deep Neural Networks", algorithm 1 and the
    released code.
    """

    needs_previous = False

    def __init__(
        self,
        weight_decay: Rate,
        units: Sequence[HomogeneousUnits | Mapping],
        balance: bool = True,
        absorb: bool = False,
        coupling: str = "decoupled",
        name: str | None = None,
    ):
        super().__init__(weight_decay, coupling=coupling, name=name)
        self.units = check_units(units)
        self.balance = check_flag("balance", balance)
        self.absorb = check_flag("absorb", absorb)
        if absorb and coupling == "coupled":
            raise ValueError(
                "`absorb` must be False with coupling='coupled', which does "
                "not rescale weights. Received: absorb=True"
            )
        self._roles = list_roles(
            self.units, coupling != "coupled", self.balance
        )

    def select(self, variables: Sequence[keras.Variable]) -> list[int]:
        """Positions of the weights of all pairs, and of their biases."""
        selected = {}
        names = [path for _, _, path in self._roles]
        for path, position in zip(
            names, positions_of(names, variables), strict=True
        ):
            if position in selected:
                raise ValueError(
                    "`units` must be disjoint: no weight may have two roles. "
                    f"Received: {path!r} and {selected[position]!r}, which "
                    f"are both {variables[position].path}."
                )
            selected[position] = path
        return list(selected)

    def check(self, variables: Sequence[keras.Variable]) -> None:
        pairs = self._by_role(variables)
        for units, pair in zip(self.units, pairs, strict=True):
            check_shapes(units, pair)
        for position in self._balanced_biases(range(len(variables))):
            check_not_regularized(variables[position])

    def check_beside(
        self,
        positions: Sequence[int],
        others: Container[int],
        variables: Sequence[keras.Variable],
    ) -> None:
        """Refuse to balance biases that another decay acts on."""
        for position in self._balanced_biases(positions):
            if position in others:
                check_not_decayed(variables[position])

    def _balanced_biases(self, positions):
        """The positions of biases, if there are pairs to balance."""
        if self.balance and any(len(row) > 1 for row in chains(self.units)):
            for (_, role, _), position in zip(
                self._roles, positions, strict=True
            ):
                if role not in ("w", "v"):
                    yield position

    def restrict(
        self, positions: Sequence[int], reached: Container[int]
    ) -> list[int]:
        """All positions; a pair is rescaled as a whole or not at all."""
        missing = sum(position not in reached for position in positions)
        if missing:
            raise ValueError(
                "`units` must name weights that all have a gradient. "
                f"Received: {missing} of {len(positions)} without one in this "
                "step. Leave out the pairs of layers that the loss does not "
                "depend on."
            )
        return list(positions)

    def shrink(self, weights: list, previous: list, strength) -> list:
        strength = ops.cast(strength, weights[0].dtype)
        pairs = self._by_role(weights)
        for row in chains(self.units):
            self._shrink_row(row, pairs, strength)
        return self._in_order(pairs)

    def _shrink_row(self, row, pairs, strength):
        """Rescale the pairs of a row; replaces the tensors in `pairs`."""

        def gated(factors):
            return ops.where(strength > 0, factors, 1.0)

        norms = [self._norms(number, pairs[number]) for number in row]
        scales = [1.0] * len(row)
        if self.balance and len(row) > 1:
            scales = balancing_factors([path_norm(a, b) for a, b in norms])
        incoming = 1.0
        for number, (a, b), scale in zip(row, norms, scales, strict=True):
            pair, units = pairs[number], self.units[number]
            shrink = normalizing_factors(a)
            length = scale / shrink if self.absorb else scale
            grow = length * threshold_factors(b * length, strength)
            (w,), (v,) = pair["w"], pair["v"]
            pair["w"] = [w * gated(shrink)]
            pair["v"] = [
                scale_outputs(v, gated(grow), units.positions, units.channels)
            ]
            within = gated(incoming * shrink)
            repeated = repeat_channels(within, units.channels)
            outgoing = incoming * scale
            for role, factor in (
                ("bias", within),
                ("inner", repeated),
                ("before", gated(incoming)),
                ("after", gated(outgoing)),
            ):
                if role in pair:
                    pair[role] = [bias * factor for bias in pair[role]]
            incoming = outgoing

    def gradient(self, weights: list) -> list:
        pairs = self._by_role(weights)
        for number, pair in enumerate(pairs):
            units = self.units[number]
            a, b = self._norms(number, pair)
            (w,), (v,) = pair["w"], pair["v"]
            pair["w"] = [w * unit_factors(a, b)]
            pair["v"] = [
                scale_outputs(
                    v, unit_factors(b, a), units.positions, units.channels
                )
            ]
            for role in set(pair) - {"w", "v"}:
                pair[role] = [ops.zeros_like(bias) for bias in pair[role]]
        return self._in_order(pairs)

    def penalty(self, weights: list):
        pairs = self._by_role(weights)
        return sum(
            path_norm(*self._norms(number, pair))
            for number, pair in enumerate(pairs)
        )

    def value(self, model: keras.Model | Sequence[keras.Variable]) -> float:
        """The sum of all path norms of a model, which the rate multiplies.

        Args:
            model: a built model, or its trainable variables.
        """
        variables = trainable_variables(model)
        weights = [variables[i].value for i in self.select(variables)]
        return float(ops.convert_to_numpy(self.penalty(weights)))

    def _norms(self, number, pair):
        """`|w_i|` and `|v_i|` of a pair."""
        units = self.units[number]
        (w,), (v,) = pair["w"], pair["v"]
        return input_norms(w), output_norms(v, units.positions, units.channels)

    def _by_role(self, items: Sequence) -> list[dict[str, list]]:
        """What belongs to each pair, by role."""
        pairs = [{} for _ in self.units]
        for (number, role, _), item in zip(self._roles, items, strict=True):
            pairs[number].setdefault(role, []).append(item)
        return pairs

    def _in_order(self, pairs) -> list:
        """The inverse of `_by_role`."""
        waiting = [
            {role: iter(items) for role, items in pair.items()}
            for pair in pairs
        ]
        return [next(waiting[number][role]) for number, role, _ in self._roles]

    def get_config(self) -> dict:
        config = super().get_config()
        del config["where"]
        return {
            **config,
            "units": [pair.get_config() for pair in self.units],
            "balance": self.balance,
            "absorb": self.absorb,
        }
