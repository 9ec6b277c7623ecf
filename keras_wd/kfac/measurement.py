"""Measuring curvature: a compiled program that runs between the steps.

It runs the model once forwards, sends the estimator's vectors backwards, and
moves the running averages by what every layer shows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.kfac.block_state import BlockState
from keras_wd.kfac.estimators import cotangents
from keras_wd.kfac.interception import intercepted
from keras_wd.kfac.moments import added
from keras_wd.kfac.objective import Importance
from keras_wd.kfac.objective import Objective
from keras_wd.kfac.readers import Rows
from keras_wd.kfac.registration import Seen
from keras_wd.kfac.registration import run_model
from keras_wd.masks import mask_of
from keras_wd.masks import with_mask
from keras_wd.ops import kronecker


class Use(NamedTuple):
    """One call of a layer: its block's number, what `run` saw, the mask."""

    block: int
    seen: object
    mask: object


def numbers_of(layers: Sequence[Seen]) -> dict[int, int]:
    """The number of the block of a layer, by the layer's id."""
    return {
        id(layer): index
        for index, seen in enumerate(layers)
        for layer in (seen.layer, *seen.others)
    }


def watched(
    model: keras.Model, blocks: dict[int, int], x, tap, training: bool
) -> tuple:
    """The outputs of the model, and every use of a layer with a block.

    Args:
        model: the model.
        blocks: see `numbers_of`.
        x: the inputs.
        tap: what the outputs of these layers pass through.
        training: see `Measurement`.
    """
    uses = []

    def observe(layer, reader, call, inputs, in_loop):
        block = blocks.get(id(layer))
        if block is None:
            return call(inputs)
        mask = _mask_of_rows(layer, inputs)
        outputs, seen = reader.run(layer, call, inputs, tap)
        uses.append(Use(block, seen, mask))
        return outputs

    with intercepted(observe):
        return run_model(model, x, training), uses


class Shown(NamedTuple):
    """What the layer of one block showed: see `Reader.statistics`."""

    seen: Sequence
    gradients: Sequence
    loss_elements: object
    dtype: str
    rows: Sequence


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
        training: whether dropout and batch normalization act as in training.
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
        training: bool = True,
    ):
        self._model = model
        self._training = training
        self._blocks = numbers_of(layers)
        self._layers = layers
        self._state = state
        self._objective = objective
        self._estimator = estimator
        self._decay = decay
        self._seed = seed
        numbers = range(len(state.blocks))
        self._program = autodiff.compiled(
            self._measure,
            reads=[
                *model.variables,
                *(v for i in numbers for v in state.bases(i)),
            ],
            writes=[
                *(v for i in numbers for v in state.averages(i)),
                state.updates,
                state.skipped,
                seed.state,
            ],
            jit_compile=bool(getattr(model, "jit_compile", True)),
        )

    def __call__(self, batch: tuple, first_pass: bool) -> np.ndarray:
        """Measure; returns which blocks had finite statistics."""
        # A number for each block, and no array: XLA makes one kernel of equal
        # blocks unless they read different places.
        good = self._program(*batch, self._rates(first_pass))
        return ops.convert_to_numpy(good)

    def _measure(self, x, y, sample_weight, rates):
        returned = []

        def forward(tap):
            outputs, uses = watched(
                self._model, self._blocks, x, tap, self._training
            )
            returned[:] = [keras.tree.map_structure(lambda _: 0, outputs)]
            flat = keras.tree.flatten(outputs)
            return flat, (uses, [mask_of(output) for output in flat])

        outputs, (uses, masks), pullback = autodiff.tapped_vjp(forward)
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
            own = [i for i, use in enumerate(uses) if use.block == index]
            shown = Shown(
                [uses[i].seen for i in own],
                [[passed[i] for i in own] for passed in gradients],
                elements,
                state.dtypes[index],
                [Rows(importance, uses[i].mask) for i in own],
            )
            block = state.blocks[index]
            found = seen.reader.statistics(seen.layer, block, *shown)
            if state.has_moments(index):
                bases = [autodiff.read(v) for v in state.inverses[index]]
                found.append(
                    seen.reader.moments(
                        seen.layer, block, *shown, block.bases(bases)
                    )
                )
            statistics.append(found)
        return self._average(
            statistics, rates, _usable(x, outputs, passes, scale)
        )

    def _average(self, statistics, rates, usable):
        """Move the averages; a block with a non-finite statistic waits."""
        state = self._state
        statistics = [
            state.kept(index, own) for index, own in enumerate(statistics)
        ]
        # A sum is finite if all it adds is, and costs one operation.
        finite = [
            ops.logical_and(ops.isfinite(added(map(ops.sum, own))), usable)
            for own in statistics
        ]
        for index, factors in enumerate(statistics):
            for variable, factor in zip(
                state.averages(index), factors, strict=True
            ):
                old = autodiff.read(variable)
                new = old + rates[index] * (factor - old)
                variable.assign(ops.where(finite[index], new, old))
        good = ops.stack(finite)
        counted = ops.cast(good, "float32")
        state.updates.assign_add(counted)
        state.skipped.assign_add(1.0 - counted)
        return good

    def _rates(self, first_pass):
        """How far every block's average moves, if it does."""
        state, decay = self._state, self._decay
        updates = ops.convert_to_numpy(autodiff.read(state.updates))
        updates = updates.astype("float64") + 1.0
        if first_pass:
            rates = 1.0 / updates
        else:
            # A weight that makes the average free of its start.
            rates = (1.0 - decay) / (1.0 - decay**updates)
        return [
            np.array(rate if count > 1.0 else 1.0, dtype)
            for rate, count, dtype in zip(
                rates, updates, state.dtypes, strict=True
            )
        ]


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
