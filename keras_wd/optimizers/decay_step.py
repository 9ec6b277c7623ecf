"""The decays of one step: what they read before it and do after it."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import keras
from keras import ops

from keras_wd import backend
from keras_wd.decays.decay import Decay
from keras_wd.ops import cautious
from keras_wd.optimizers.assignment import rounded_off
from keras_wd.optimizers.metric import StepMetric
from keras_wd.optimizers.touched import TouchedRows


class DecayStep:
    """Holds the strengths and old weights while the inner optimizer steps.

    Create it before the inner step, pass the gradients through `couple`, take
    the inner step, and assign what `shrink` returns.

    Args:
        decays: the rules by name, in the order they are applied.
        selected: the positions of the variables of each rule.
        rates: a function of a dtype, float32 or float64: the rate of each
            rule now, scalars by name.
        learning_rates: a function of a dtype and of positions: those that
            share a learning rate, and that at this step, scalar.
        variables: the variables with a gradient, by position.
        touched: the rows that the gradients of this step reach.
        metric: what the inner step divides gradients by, for decays in it.
        anchors: by name of the rule and position, what it pulls toward, or
            None for zero.
        unrounded: by position, the weights of a low-precision variable before
            they were rounded, or None.
        slots: by name of the rule and position, what a rule with `prepares`
            keeps for a variable, by name.
        iterations: the number of updates before this step.
        loss_scale: the factor the gradients still carry, or None.

    Attributes:
        slot_values: pairs of the slots of a variable and their values after
            this step, both by name.
        metric: which has to `read` what `couple` returns before the step.
    """

    def __init__(
        self,
        decays: Mapping[str, Decay],
        selected: Mapping[str, Sequence[int]],
        *,
        rates: Callable,
        learning_rates: Callable,
        variables: Mapping[int, keras.Variable],
        touched: TouchedRows,
        metric: StepMetric,
        anchors: Mapping[str, Sequence[keras.Variable | None]],
        unrounded: Sequence[keras.Variable | None],
        slots: Mapping[str, Sequence[Mapping[str, keras.Variable]]],
        iterations,
        loss_scale: float | None,
    ):
        self._variables = variables
        self._touched = touched
        self.metric = metric
        self._anchors = anchors
        # Before the inner step, while the variables are what was rounded.
        self._rests = {
            position: rounded_off(
                backend.snapshot(variable), unrounded[position]
            )
            for position, variable in variables.items()
            if unrounded[position] is not None
        }
        self._loss_scale = loss_scale
        self._coupled = []
        self._shrinking = []
        for key, rule in decays.items():
            positions = selected[key]
            if not positions:
                continue
            dtypes = {self._dtype(position) for position in positions}
            dtype = "float64" if "float64" in dtypes else "float32"
            strength = rates(dtype)[key]
            if rule.coupling == "coupled":
                self._coupled.append((key, rule, positions, strength))
                continue
            groups = [(positions, 1.0)]
            if rule.coupling == "decoupled":
                groups = learning_rates(dtype, positions)
            for group, learning_rate in groups:
                self._shrinking.append(
                    (key, rule, group, learning_rate * strength)
                )
        self._previous = {
            position: self._weights(position)
            for _, rule, positions, _ in self._shrinking
            if rule.needs_previous or rule.cautious
            for position in positions
        }
        metric.before(
            {
                position: variables[position]
                for key, rule in decays.items()
                if rule.metric is not None
                for position in selected[key]
            }
        )
        # Before the inner step, which forgets what it has added up.
        self._rows = {
            position: touched.of(position)
            for key, rule in decays.items()
            if rule.touched_rows
            for position in selected[key]
        }
        self._strengths, self.slot_values = {}, []
        for key, rule, positions, strength in self._shrinking:
            if rule.prepares:
                self._strengths.setdefault(key, {}).update(
                    (
                        position,
                        self._prepared(
                            rule, position, strength, slots[key], iterations
                        ),
                    )
                    for position in positions
                )

    def _prepared(self, rule, position, strength, slots, iterations):
        """The strength for a variable; notes the new values of its slots."""
        weights = self._previous[position]
        strength, values = rule.prepare(
            weights,
            ops.cast(strength, weights.dtype),
            iterations,
            {
                name: ops.cast(backend.snapshot(slot), weights.dtype)
                for name, slot in slots[position].items()
            },
        )
        if values:
            self.slot_values.append((slots[position], values))
        return strength

    @property
    def positions(self) -> set[int]:
        """The positions of the variables that `shrink` returns."""
        return {p for _, _, chosen, _ in self._shrinking for p in chosen}

    def couple(self, gradients: Mapping[int, object]) -> dict:
        """The gradients with those of the coupled penalties added."""
        gradients = dict(gradients)
        # The inner optimizer divides by the loss scale and adds up replicas.
        scale = (self._loss_scale or 1.0) / backend.replica_count()
        for key, rule, positions, rate in self._coupled:
            terms = rule.gradient(
                [self._from_anchor(key, p, self._weights(p)) for p in positions]
            )
            for position, term in zip(positions, terms, strict=True):
                # A sparse gradient becomes dense: every row decays.
                dense = ops.convert_to_tensor(gradients[position], sparse=False)
                term = ops.cast(scale * rate, term.dtype) * term
                if rule.touched_rows:
                    term = self._on_rows(position, term, ops.zeros_like(term))
                if position in self._rows:
                    term = self._touched.at_update(term)
                gradients[position] = dense + ops.cast(term, dense.dtype)
        return gradients

    def shrink(self) -> dict:
        """The decayed weights by position, in the dtype of computation."""
        stepped = {
            position: self._weights(position)
            for _, _, positions, _ in self._shrinking
            for position in positions
        }
        current = dict(stepped)
        for key, rule, positions, strength in self._shrinking:
            decayed = self._shrunk(key, rule, positions, strength, current)
            for position, weights in zip(positions, decayed, strict=True):
                if rule.cautious:
                    weights = cautious(
                        weights,
                        current[position],
                        self._from_anchor(key, position, stepped[position]),
                        self._from_anchor(
                            key, position, self._previous[position]
                        ),
                    )
                if rule.touched_rows:
                    weights = self._on_rows(
                        position, weights, current[position]
                    )
                current[position] = weights
        return current

    def _shrunk(self, key, rule, positions, strength, current):
        def differences(values):
            return [self._from_anchor(key, p, values[p]) for p in positions]

        weights = differences(current)
        previous = differences(self._previous) if rule.needs_previous else []
        if rule.prepares:
            shrunk = [
                rule.shrink_one(weight, before, self._strengths[key][position])
                for position, weight, before in zip(
                    positions, weights, previous, strict=True
                )
            ]
        elif rule.metric is None:
            shrunk = rule.shrink(weights, previous, strength)
        else:
            shrunk = [
                rule.shrink_one(
                    weight,
                    None,
                    ops.cast(strength, weight.dtype)
                    / ops.cast(self.metric.divided_by(position), weight.dtype),
                )
                for position, weight in zip(positions, weights, strict=True)
            ]
        if rule.anchor is None:
            return shrunk
        # What the decay changed, added to the weights: at strength zero it is
        # nothing, and a difference that became zero ends at the anchor.
        return [
            ops.where(
                ops.equal(after, 0),
                self._anchor(key, position, after.dtype),
                current[position] + (after - before),
            )
            for position, after, before in zip(
                positions, shrunk, weights, strict=True
            )
        ]

    def _on_rows(self, position, weights, others):
        return ops.where(self._rows[position], weights, others)

    def _from_anchor(self, key, position, weights):
        if self._anchors[key][position] is None:
            return weights
        return weights - self._anchor(key, position, weights.dtype)

    def _anchor(self, key, position, dtype):
        return ops.cast(backend.snapshot(self._anchors[key][position]), dtype)

    def _dtype(self, position):
        return keras.backend.standardize_dtype(self._variables[position].dtype)

    def _weights(self, position):
        """A variable's value now, with what rounding took from it."""
        value = backend.snapshot(self._variables[position])
        rest = self._rests.get(position)
        if rest is None:
            return value
        return ops.cast(value, "float32") + rest
