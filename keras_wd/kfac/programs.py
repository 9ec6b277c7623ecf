"""The two compiled programs of K-FAC: measuring curvature, inverting it.

Both run between training steps, so that the step itself only multiplies with
inverses. Measuring runs the model once forwards, sends the estimator's
vectors backwards, and moves the running averages; inverting reads them.
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_wd.backend import curvature as seam
from keras_wd.kfac.estimators import cotangents
from keras_wd.kfac.estimators import metrics_of
from keras_wd.kfac.interception import intercepted
from keras_wd.kfac.losses import OutputLoss
from keras_wd.kfac.losses import loss_elements
from keras_wd.kfac.losses import total_loss
from keras_wd.kfac.registration import Seen
from keras_wd.kfac.registration import run_model
from keras_wd.kfac.state import BlockState
from keras_wd.ops import kronecker

# Damping of an inversion and of its repetitions: a factor on the damping, and
# a part of the mean curvature besides.
ATTEMPTS = ((1.0, 0.0), (10.0, 1e-6), (100.0, 1e-5), (1000.0, 1e-4))


class Measurement:
    """Curvature of one batch of one model into the running averages.

    Args:
        model: the model.
        layers: what was registered, one per block.
        state: the averages.
        losses: of the outputs; None where the estimator needs none.
        estimator: see `keras_wd.kfac.estimators`.
        decay: weight of the past in the averages.
        seed: where labels and signs are drawn from.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[Seen],
        state: BlockState,
        losses: Sequence[OutputLoss] | None,
        estimator: str,
        decay: float,
        seed: keras.random.SeedGenerator,
    ):
        self._model = model
        self._blocks = {id(seen.layer): i for i, seen in enumerate(layers)}
        self._layers = layers
        self._state = state
        self._losses = losses
        self._estimator = estimator
        self._decay = decay
        self._seed = seed
        self._program = seam.compiled(
            self._measure,
            reads=model.variables,
            writes=[*state.averages, seed.state],
            jit_compile=bool(getattr(model, "jit_compile", True)),
        )

    def __call__(self, batch: tuple, first_pass: bool) -> np.ndarray:
        """Measure; returns which blocks had finite statistics."""
        good = self._program(*batch, ops.convert_to_tensor(first_pass))
        return ops.convert_to_numpy(good)

    def _measure(self, x, y, sample_weight, first_pass):
        order = []

        def forward(tap):
            seen_inputs = []
            order.clear()

            def observe(layer, reader, call, inputs, in_loop):
                block = self._blocks.get(id(layer))
                if block is None:
                    return call(inputs)
                outputs, seen = reader.run(layer, call, inputs, tap)
                seen_inputs.append(seen)
                order.append(block)
                return outputs

            with intercepted(observe):
                outputs = run_model(self._model, x)
            if self._estimator == "empirical":
                outputs = [self._empirical(outputs, y, sample_weight)]
            return outputs, seen_inputs

        outputs, seen_inputs, pullback = seam.tapped_vjp(forward)
        passes, elements = self._vectors(outputs, x, sample_weight)
        gradients = [pullback(vectors) for vectors in passes]
        state = self._state
        statistics = []
        for index, seen in enumerate(self._layers):
            uses = [use for use, block in enumerate(order) if block == index]
            statistics.append(
                seen.reader.statistics(
                    seen.layer,
                    state.blocks[index],
                    [seen_inputs[use] for use in uses],
                    [[passed[use] for use in uses] for passed in gradients],
                    elements,
                    state.dtypes[index],
                )
            )
        return self._average(statistics, first_pass)

    def _empirical(self, outputs, y, sample_weight):
        """The summed loss, whose gradients are those of single examples."""
        count = len(outputs)
        value = total_loss(
            self._losses,
            keras.tree.flatten(y),
            outputs,
            _per_output(sample_weight, count),
        )
        self._elements = loss_elements(outputs[0])
        return value * self._elements

    def _vectors(self, outputs, x, sample_weight):
        if self._estimator == "empirical":
            return [[ops.ones_like(outputs[0])]], self._elements
        metrics = metrics_of(self._estimator, self._losses, len(outputs))
        vectors = cotangents(
            self._estimator,
            metrics,
            outputs,
            _per_output(sample_weight, len(outputs)),
            self._seed,
        )
        return vectors, loss_elements(outputs[0])

    def _average(self, statistics, first_pass):
        """Move the averages; a block with a non-finite statistic waits."""
        state = self._state
        good = [
            ops.all(
                ops.stack([kronecker.all_finite(factor) for factor in factors])
            )
            for factors in statistics
        ]
        good = ops.stack(good)
        counted = ops.cast(good, "float32")
        updates = seam.read(state.updates) + counted
        decay = self._decay
        # A weight that makes the average free of its start; exactly 1 at first.
        past = ops.power(decay, ops.maximum(updates, 2.0))
        rates = ops.where(
            first_pass,
            1.0 / ops.maximum(updates, 1.0),
            (1.0 - decay) / (1.0 - past),
        )
        rates = ops.where(updates > 1.0, rates, ops.ones_like(rates))
        for index, factors in enumerate(statistics):
            for variable, factor in zip(
                state.factors[index], factors, strict=True
            ):
                old = seam.read(variable)
                rate = ops.cast(rates[index], old.dtype)
                new = old + rate * (factor - old)
                variable.assign(ops.where(good[index], new, old))
        state.updates.assign(updates)
        state.skipped.assign_add(1.0 - counted)
        return good


class Inversion:
    """The damped inverses of the running averages.

    An inverse that is not finite, or of a matrix that is not positive
    definite, is tried again with more damping (see `ATTEMPTS`); if that does
    not help either, the last good inverse stays. Both are counted.

    Args:
        state: averages and inverses.
        jit_compile: compile with XLA.
    """

    def __init__(self, state: BlockState, jit_compile: bool):
        self._state = state
        self._program = seam.compiled(
            self._invert,
            reads=state.averages,
            writes=state.inverted,
            jit_compile=jit_compile,
        )

    def __call__(self, damping: float) -> np.ndarray:
        """Invert; returns which blocks have a new inverse."""
        done = np.zeros(len(self._state.blocks), dtype=bool)
        for attempt, (factor, relative) in enumerate(ATTEMPTS):
            usable = self._program(
                *map(
                    ops.convert_to_tensor,
                    (
                        np.float32(damping * factor),
                        np.float32(relative),
                        ~done,
                        attempt > 0,
                        attempt + 1 == len(ATTEMPTS),
                    ),
                )
            )
            done |= ops.convert_to_numpy(usable)
            if done.all():
                break
        return done

    def _invert(self, damping, relative, wanted, again, last):
        state = self._state
        flags = []
        for index, block in enumerate(state.blocks):
            factors = [seam.read(f) for f in state.factors[index]]
            dtype = factors[0].dtype
            inverses, usable = block.invert(
                factors,
                ops.cast(damping, dtype),
                ops.cast(relative, dtype),
                seam.cholesky,
            )
            usable = ops.logical_and(usable, wanted[index])
            flags.append(usable)
            for variable, inverse in zip(
                state.inverses[index], inverses, strict=True
            ):
                old = seam.read(variable)
                variable.assign(ops.where(usable, inverse, old))
        usable = ops.stack(flags)
        tried = ops.cast(wanted, "float32")
        found = ops.cast(usable, "float32")
        state.inversions.assign_add(found)
        state.retries.assign_add(tried * ops.cast(again, "float32"))
        state.failures.assign_add((tried - found) * ops.cast(last, "float32"))
        return usable


def _per_output(sample_weight, count):
    if sample_weight is None:
        return [None] * count
    weights = keras.tree.flatten(sample_weight)
    return weights * count if len(weights) == 1 else weights
