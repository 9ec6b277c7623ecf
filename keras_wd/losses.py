"""The compiled loss of a model, term by term.

`compile` takes losses, targets and weights by name, as lists, nested, for some
outputs only; which of them meet is Keras's decision and has no public name.
So Keras is asked: a model without layers, compiled with losses that write down
what they are called with, computes its loss once on placeholders.
"""

import dataclasses
import math
import threading
import warnings
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wd.masks import mask_of

# Keras's wrapper of functions, which has no public name.
_FunctionLoss = keras.losses.MeanSquaredError.__base__
_CROSSENTROPY = ("crossentropy", "ce")
# The same as the function with its defaults, but of a class that says which.
_CLASSES = {
    keras.losses.binary_crossentropy: keras.losses.BinaryCrossentropy,
    keras.losses.categorical_crossentropy: keras.losses.CategoricalCrossentropy,
    keras.losses.mean_squared_error: keras.losses.MeanSquaredError,
    keras.losses.sparse_categorical_crossentropy: (
        keras.losses.SparseCategoricalCrossentropy
    ),
}


@dataclasses.dataclass(frozen=True)
class OutputLoss:
    """The loss of one output of a model.

    Args:
        loss: the Keras loss.
        weight: what the output's loss is multiplied with.
        output: the position of the output among the flattened outputs.
    """

    loss: keras.losses.Loss
    weight: float
    output: int

    @property
    def settings(self) -> dict:
        """The loss's arguments, such as `from_logits` and `reduction`."""
        settings = {"reduction": self.loss.reduction}
        if isinstance(self.loss, _FunctionLoss):
            if type(self.loss) is _FunctionLoss:
                return settings
            # Keras 3.15 leaves `axis` out of the configuration of a class.
            settings.update(_FunctionLoss.get_config(self.loss))
        settings.update(self.loss.get_config())
        return settings


@dataclasses.dataclass(frozen=True)
class Term(OutputLoss):
    """The loss of one output, and what it is called with.

    Args:
        target: the labels; None where Keras passes none.
        prediction: the output, with its mask if it has one.
        sample_weight: of the output; None for ones.
    """

    target: Any
    prediction: Any
    sample_weight: Any

    @property
    def mask(self):
        """The prediction's mask, or None."""
        return mask_of(self.prediction)

    def value(self):
        """`weight * loss`, as Keras adds it up: float32."""
        value = self.loss(self.target, self.prediction, self.sample_weight)
        return self.weight * ops.cast(value, "float32")

    def element_weights(self, shape: Sequence[int] | None = None):
        """The c in `loss = sum c * values`, without `weight`.

        `values` is what the loss's `call` returns: the loss of every element
        (an example, a token, a pixel). The weights and masks are in c, and
        what the reduction divides by. A padded or ignored element has 0.

        Args:
            shape: of the values; that of the prediction without its last
                axis if None. A loss that is one number already has the
                shape ().

        Returns:
            The c of this shape, float64 for such a prediction and float32
            for any other.
        """
        if shape is None:
            shape = self.prediction.shape[:-1]
        return _element_weights(self, tuple(shape))


def weights_of_classes(class_weight: Mapping, y, sample_weight=None):
    """The weights of examples that `fit` makes of `class_weight`.

    Args:
        class_weight: weights by class number; a class that is not there has
            one.
        y: class numbers, (examples,) or (examples, 1), or one-hot rows.
        sample_weight: has to be None.

    Raises:
        ValueError: if there are labels of several outputs or none, or
            `sample_weight` too.
    """
    if sample_weight is not None:
        raise ValueError(
            "`class_weight` must not be given with `sample_weight`. "
            "Received: both. Multiply the weights of the examples yourself."
        )
    if y is None or keras.tree.is_nested(y):
        raise ValueError(
            "`class_weight` must be given with `y`, the labels of one output. "
            f"Received: y={'None' if y is None else type(y).__name__}."
        )
    y = ops.convert_to_numpy(y)
    if y.ndim > 1:
        y = y.argmax(axis=-1) if y.shape[-1] != 1 else y[..., 0]
    numbers = np.round(y).astype("int32")
    find = np.vectorize(
        lambda number: class_weight.get(number, 1.0), otypes=["float32"]
    )
    return find(numbers)


class CompiledLoss:
    """Which losses act on which outputs of a model, as Keras pairs them.

    Args:
        model: compiled with a loss, unless `loss` is given.
        loss: used in place of the compiled one, as `compile` takes it.

    Raises:
        ValueError: if there is no loss.
    """

    def __init__(self, model: keras.Model, loss: object = None):
        weights = None
        if loss is None:
            loss = getattr(model, "loss", None)
            weights = loss_weights_of(model)
        if loss is None:
            raise ValueError(
                "`model` must be compiled with a loss. Received: "
                f"model={model.name!r} without one."
            )
        self._loss, self._weights = loss, weights
        self._names = getattr(model, "output_names", None)
        self._pairs = {}

    def terms(self, y, outputs, sample_weight=None) -> list[Term]:
        """What the loss of a batch is the sum of.

        Args:
            y: the labels, as `fit` takes them.
            outputs: what the model returned, not flattened.
            sample_weight: as `fit` takes it.
        """
        targets, predictions, sample_weights = (
            keras.tree.flatten(part) for part in (y, outputs, sample_weight)
        )
        return [
            Term(
                _resolved(given, _at(targets, t), predictions[p]),
                weight,
                p,
                _at(targets, t),
                predictions[p],
                _at(sample_weights, w),
            )
            for given, weight, t, p, w in self._paired(
                y, outputs, sample_weight
            )
        ]

    def of_outputs(self, outputs) -> list[OutputLoss]:
        """The losses of those outputs that have one, without labels.

        Args:
            outputs: what the model returns, not flattened: tensors, or
                anything with a shape.
        """
        predictions = keras.tree.flatten(outputs)
        return [
            OutputLoss(_resolved(given, None, predictions[p]), weight, p)
            for given, weight, _, p, _ in self._paired(outputs, outputs, None)
        ]

    def _paired(self, y, outputs, sample_weight):
        """(loss, weight, position of target, of output, of sample weight)."""
        placeholders = [
            keras.tree.map_structure(
                lambda part: None if part is None else np.zeros(1, "float32"),
                structure,
            )
            for structure in (y, outputs, sample_weight)
        ]
        key = repr(placeholders)
        if key not in self._pairs:
            self._pairs[key] = _ask_keras(
                self._loss, self._weights, self._names, placeholders
            )
        return self._pairs[key]


def loss_weights_of(model: keras.Model):
    """What `compile` was given as `loss_weights`."""
    with warnings.catch_warnings():
        # About other parts of the configuration, such as a lambda.
        warnings.simplefilter("ignore")
        return (model.get_compile_config() or {}).get("loss_weights")


def _at(flat, position):
    return None if position is None else flat[position]


class _WritesDown(keras.losses.Loss):
    """Writes down what it is called with; the value is a unit vector."""

    def __init__(self, given, calls, count):
        super().__init__(name="writes_down")
        self._given = given
        self._calls = calls
        self._count = count

    def __call__(self, y_true, y_pred, sample_weight=None):
        self._calls.append((self._given, y_true, y_pred, sample_weight))
        return ops.one_hot(len(self._calls) - 1, self._count, dtype="float32")


def _ask_keras(loss, weights, names, placeholders):
    flat = [keras.tree.flatten(part) for part in placeholders]
    calls, answers = [], []

    def write_down(one):
        return one and _WritesDown(one, calls, len(flat[1]))

    def ask():
        try:
            asked = keras.Model(name="asked")
            asked.output_names = names
            losses = keras.tree.map_structure(write_down, loss)
            asked.compile(loss=losses, loss_weights=weights)
            answers.append(asked.compute_loss(None, *placeholders))
        except Exception as error:
            answers.append(error)

    # In a thread of its own nothing is being traced, and there is an answer.
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    if isinstance(answers[0], Exception):
        raise answers[0]
    found = ops.convert_to_numpy(answers[0])
    return [
        (given, float(weight), *map(_position, flat, parts))
        for (given, *parts), weight in zip(calls, found, strict=False)
    ]


def _position(flat, part):
    """Where the very object is; None for None."""
    found = [i for i, one in enumerate(flat) if one is part]
    return None if part is None else found[0]


def _resolved(given, target, prediction):
    """The Keras loss of what `compile` takes for one output."""
    if isinstance(given, str) and given.lower() in _CROSSENTROPY:
        loss = _crossentropy(target, prediction)
    else:
        loss = keras.losses.get(given)
    if isinstance(loss, type):
        loss = loss()
    if isinstance(loss, keras.losses.Loss):
        return loss
    name = given if isinstance(given, str) else getattr(loss, "__name__", None)
    if loss in _CLASSES:
        return _CLASSES[loss](name=name)
    return _FunctionLoss(loss, name=name)


def _crossentropy(target, prediction):
    """The function Keras takes for "crossentropy"."""
    if prediction.shape[-1] == 1:
        return keras.losses.binary_crossentropy
    if target is not None and (
        len(target.shape) < len(prediction.shape) or target.shape[-1] == 1
    ):
        return keras.losses.sparse_categorical_crossentropy
    return keras.losses.categorical_crossentropy


def _element_weights(term, shape):
    settings = term.settings
    reduction = settings["reduction"]
    dtype = keras.backend.standardize_dtype(term.prediction.dtype)
    dtype = dtype if dtype == "float64" else "float32"
    weights = ops.ones(shape, dtype)
    mask = _mask(term, settings)
    factor = None
    if mask is not None:
        factor = ops.cast(mask, dtype)
        if reduction in ("mean", "sum_over_batch_size"):
            total = math.prod(factor.shape)
            factor = factor * ops.divide_no_nan(
                ops.cast(total, dtype), ops.sum(factor)
            )
    if term.sample_weight is not None:
        given = ops.cast(term.sample_weight, dtype)
        if factor is not None:
            factor, given = _same_rank(factor, given)
            given = given * factor
        factor = given
    if factor is not None:
        weights, factor = _same_rank(weights, factor)
        weights = weights * factor
    elements = math.prod(weights.shape)
    if shape:
        weights = ops.reshape(weights, shape)
    else:
        # Keras adds such a number up as often as it has weights.
        weights = ops.sum(weights)
    if reduction in ("sum", "none", None):
        return weights
    if reduction == "mean_with_sample_weight" and factor is not None:
        return ops.divide_no_nan(weights, ops.sum(factor))
    return weights / elements


def _mask(term, settings: Mapping):
    """Which elements count: by the output's mask and by `ignore_class`."""
    mask = term.mask
    ignored = settings.get("ignore_class")
    if ignored is None or term.target is None:
        return mask
    rows = ops.shape(term.prediction)[:-1]
    kept = ops.not_equal(ops.reshape(term.target, rows), ignored)
    return kept if mask is None else ops.logical_and(mask, kept)


def _same_rank(one, other):
    """Without, or with, a last axis of 1 that only one of the two has."""
    if len(one.shape) == len(other.shape) + 1 and one.shape[-1] == 1:
        if len(other.shape) == 1:
            return one, ops.expand_dims(other, -1)
        return ops.squeeze(one, -1), other
    if len(other.shape) == len(one.shape) + 1 and other.shape[-1] == 1:
        if len(one.shape) == 1:
            return ops.expand_dims(one, -1), other
        return one, ops.squeeze(other, -1)
    return one, other
