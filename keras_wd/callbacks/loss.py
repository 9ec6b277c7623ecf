"""Loss and accuracy of a batch, without what decay adds to the loss."""

from collections.abc import Callable

import keras
from keras import ops

from keras_wd import backend
from keras_wd.backend import autodiff
from keras_wd.losses import CompiledLoss

_SPARSE = keras.losses.SparseCategoricalCrossentropy
_CATEGORICAL = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
)
_BINARY = (
    keras.losses.BinaryCrossentropy,
    keras.losses.BinaryFocalCrossentropy,
)
_SUMS = ("sum", "none", None)


def batch_loss(model: keras.Model) -> Callable:
    """A program for the loss and the accuracy of a batch, as in training.

    The loss is what `evaluate` reports, without regularizers and `add_loss`;
    that of a model with a `compute_loss` of its own is what it returns.
    Dropout and batch normalization act as in a training step, but nothing
    they would remember is kept. The accuracy is that of the first output that
    has a loss, its elements weighted as in the loss (by masks, sample weights
    and `ignore_class`); NaN if the loss is no cross-entropy.

    Args:
        model: compiled with a loss.

    Returns:
        `program(x, y, sample_weight)` to a pair of floats.

    Raises:
        ValueError: if the model has no loss.
    """
    own = type(model).compute_loss is not keras.Model.compute_loss
    compiled = None if own else CompiledLoss(model)
    kept = [*model.non_trainable_variables, *model.metrics_variables]

    def measure(x, y, sample_weight):
        before = [autodiff.read(variable) for variable in kept]
        outputs = model(x, training=True)
        accuracy = float("nan")
        if own:
            loss = model.compute_loss(x, y, outputs, sample_weight)
        else:
            terms = compiled.terms(y, outputs, sample_weight)
            loss = sum(ops.mean(_undivided(term)) for term in terms)
            accuracy = _accuracy(terms[0])
        for variable, value in zip(kept, before, strict=True):
            variable.assign(value)
        return ops.stack(
            [ops.cast(ops.mean(loss), "float32"), ops.cast(accuracy, "float32")]
        )

    program = autodiff.compiled(
        measure,
        reads=[*model.variables, *model.metrics_variables],
        writes=[],
        jit_compile=bool(getattr(model, "jit_compile", False)),
    )

    def run(x, y, sample_weight=None):
        batch = [
            None if part is None else keras.tree.map_structure(_tensor, part)
            for part in (x, y, sample_weight)
        ]
        loss, accuracy = ops.convert_to_numpy(program(*batch)).tolist()
        return loss, accuracy

    return run


def loss_and_gradients(model: keras.Model) -> Callable:
    """A program for the loss of a batch and its gradients at given weights.

    The loss is that of `batch_loss`; dropout draws the same every time until
    a step is taken.

    Args:
        model: compiled with a loss.

    Returns:
        `program(x, y, sample_weight, values)` to a float and the gradients by
        the trainable variables, whose values are given, as arrays.

    Raises:
        ValueError: if the model has no loss.
    """
    own = type(model).compute_loss is not keras.Model.compute_loss
    compiled = None if own else CompiledLoss(model)
    moving = list(model.trainable_variables)
    fixed = [*model.non_trainable_variables, *model.metrics_variables]

    def measure(x, y, sample_weight, values):
        def forward(tap):
            mapping = [
                *zip(moving, map(tap, values), strict=True),
                *((variable, autodiff.read(variable)) for variable in fixed),
            ]
            with keras.StatelessScope(state_mapping=mapping):
                outputs = model(x, training=True)
                if own:
                    loss = model.compute_loss(x, y, outputs, sample_weight)
                else:
                    terms = compiled.terms(y, outputs, sample_weight)
                    loss = sum(ops.mean(_undivided(term)) for term in terms)
            return [ops.mean(loss)], None

        (loss,), _, pullback = autodiff.tapped_vjp(forward)
        return loss, pullback([ops.ones((), loss.dtype)])

    program = autodiff.compiled(
        measure,
        reads=[*moving, *fixed],
        writes=[],
        jit_compile=bool(getattr(model, "jit_compile", False)),
    )

    def run(x, y, sample_weight, values):
        batch = [
            None if part is None else keras.tree.map_structure(_tensor, part)
            for part in (x, y, sample_weight)
        ]
        loss, gradients = program(*batch, list(map(_tensor, values)))
        return float(loss), list(map(ops.convert_to_numpy, gradients))

    return run


def _tensor(array):
    if array is None or ops.is_tensor(array):
        return array
    return ops.convert_to_tensor(array)


def _undivided(term):
    """The value without Keras's division of means by the replicas."""
    if term.settings["reduction"] in _SUMS:
        return term.value()
    return term.value() * backend.replica_count()


def _accuracy(term):
    """The weighted share of right predictions; NaN without a meaning."""
    hits = _hits(term)
    if hits is None:
        return float("nan")
    weights = term.element_weights()
    total = ops.sum(weights)
    return ops.sum(ops.cast(hits, "float32") * weights) / total


def _hits(term):
    """Which predictions are right; None where that has no meaning."""
    loss, target, output = term.loss, term.target, term.prediction
    if isinstance(loss, (_SPARSE, *_CATEGORICAL)):
        if term.settings.get("axis", -1) != -1:
            return None
        classes = ops.argmax(output, axis=-1)
        if not isinstance(loss, _SPARSE):
            return ops.equal(classes, ops.argmax(target, axis=-1))
        target = ops.reshape(target, ops.shape(classes))
        return ops.equal(classes, ops.cast(target, classes.dtype))
    if isinstance(loss, _BINARY):
        threshold = 0.0 if term.settings.get("from_logits") else 0.5
        target = ops.reshape(target, ops.shape(output))
        right = ops.equal(output > threshold, target > 0.5)
        return ops.mean(ops.cast(right, "float32"), axis=-1)
    return None
