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
from keras_wd.kfac.interception import intercepted
from keras_wd.kfac.objective import Importance
from keras_wd.kfac.objective import Objective
from keras_wd.kfac.readers import Rows
from keras_wd.kfac.registration import Seen
from keras_wd.kfac.registration import run_model
from keras_wd.kfac.state import BlockState
from keras_wd.masks import mask_of
from keras_wd.masks import with_mask
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
        objective: the loss whose curvature it is.
        estimator: see `keras_wd.kfac.estimators`.
        decay: weight of the past in the averages.
        seed: where labels and signs are drawn from.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[Seen],
        state: BlockState,
        objective: Objective,
        estimator: str,
        decay: float,
        seed: keras.random.SeedGenerator,
    ):
        self._model = model
        self._blocks = {
            id(layer): index
            for index, seen in enumerate(layers)
            for layer in (seen.layer, *seen.others)
        }
        self._layers = layers
        self._state = state
        self._objective = objective
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
        order, returned = [], []

        def forward(tap):
            uses = []
            order.clear()

            def observe(layer, reader, call, inputs, in_loop):
                block = self._blocks.get(id(layer))
                if block is None:
                    return call(inputs)
                mask = _mask_of_rows(layer, inputs)
                outputs, seen = reader.run(layer, call, inputs, tap)
                uses.append((seen, mask))
                order.append(block)
                return outputs

            with intercepted(observe):
                outputs = run_model(self._model, x)
            returned[:] = [keras.tree.map_structure(lambda _: 0, outputs)]
            flat = keras.tree.flatten(outputs)
            return flat, (uses, [mask_of(output) for output in flat])

        outputs, (uses, masks), pullback = seam.tapped_vjp(forward)
        masked = map(with_mask, outputs, masks)
        shares = self._objective.shares(
            y,
            keras.tree.pack_sequence_as(returned[0], list(masked)),
            sample_weight,
        )
        passes, scale = cotangents(self._estimator, shares, outputs, self._seed)
        gradients = [pullback(vectors) for vectors in passes]
        importance = Importance(shares, shares[0].weights.shape[0])
        state = self._state
        elements = 1.0 / ops.where(scale > 0, scale, ops.ones_like(scale))
        statistics = []
        for index, seen in enumerate(self._layers):
            own = [use for use, block in enumerate(order) if block == index]
            statistics.append(
                seen.reader.statistics(
                    seen.layer,
                    state.blocks[index],
                    [uses[use][0] for use in own],
                    [[passed[use] for use in own] for passed in gradients],
                    elements,
                    state.dtypes[index],
                    [Rows(importance, uses[use][1]) for use in own],
                )
            )
        return self._average(
            statistics, first_pass, _usable(x, outputs, passes, scale)
        )

    def _average(self, statistics, first_pass, usable):
        """Move the averages; a block with a non-finite statistic waits."""
        state = self._state
        good = [
            ops.all(
                ops.stack([kronecker.all_finite(factor) for factor in factors])
            )
            for factors in statistics
        ]
        good = ops.logical_and(ops.stack(good), usable)
        counted = ops.cast(good, "float32")
        updates = seam.read(state.updates) + counted
        rates = {
            dtype: self._rates(ops.cast(updates, dtype), first_pass)
            for dtype in set(state.dtypes)
        }
        for index, factors in enumerate(statistics):
            for variable, factor in zip(
                state.factors[index], factors, strict=True
            ):
                old = seam.read(variable)
                rate = rates[state.dtypes[index]][index]
                new = old + rate * (factor - old)
                variable.assign(ops.where(good[index], new, old))
        state.updates.assign(updates)
        state.skipped.assign_add(1.0 - counted)
        return good

    def _rates(self, updates, first_pass):
        """How far every block's average moves."""
        decay = self._decay
        # A weight that makes the average free of its start; exactly 1 at first.
        past = ops.power(
            ops.cast(decay, updates.dtype), ops.maximum(updates, 2.0)
        )
        rates = ops.where(
            first_pass,
            1.0 / ops.maximum(updates, 1.0),
            (1.0 - decay) / (1.0 - past),
        )
        return ops.where(updates > 1.0, rates, ops.ones_like(rates))


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
        wide = "float64" in state.dtypes
        self._number = np.float64 if wide else np.float32
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
                        self._number(damping * factor),
                        self._number(relative),
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


def _mask_of_rows(layer, inputs):
    """Which rows of a layer's output are no padding, or None."""
    if not layer.supports_masking or not ops.is_tensor(inputs):
        return None
    return layer.compute_mask(inputs, mask_of(inputs))


def _usable(x, outputs, passes, scale):
    """Whether a batch has numbers throughout, and a weight at all.

    A fused product may turn a NaN into 0, so that the factors alone do not
    tell.
    """
    floats = [
        part
        for part in keras.tree.flatten(x)
        if keras.backend.is_float_dtype(
            keras.backend.standardize_dtype(part.dtype)
        )
    ]
    checks = [ops.logical_not(ops.any(ops.isnan(part))) for part in floats]
    checks += [kronecker.all_finite(output) for output in outputs]
    checks += [kronecker.all_finite(v) for vectors in passes for v in vectors]
    return ops.all(ops.stack([*checks, scale > 0]))
