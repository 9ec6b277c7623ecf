"""Loss and accuracy of a batch, without what decay adds to the loss."""

from collections.abc import Callable

import keras
from keras import ops

from keras_wd.backend import curvature as seam
from keras_wd.kfac.losses import output_losses
from keras_wd.kfac.losses import total_loss


def batch_loss(model: keras.Model) -> Callable:
    """A program for the loss and the accuracy of a batch, as in training.

    The loss is the compiled one without regularizers; dropout and batch
    normalization act as in a training step, but nothing they would remember
    is kept. The accuracy is that of the first output, not a number if the
    loss is no cross-entropy.

    Args:
        model: compiled with a loss.

    Returns:
        `program(x, y, sample_weight)` to a pair of floats.

    Raises:
        ValueError: if the model has no loss, or one that is not a mean.
    """
    losses = output_losses(model)
    if losses is None:
        raise ValueError(
            "`model` must be compiled with a loss. Received: "
            f"model={model.name!r} without one."
        )
    kept = model.non_trainable_variables

    def measure(x, y, sample_weight):
        before = [seam.read(variable) for variable in kept]
        outputs = keras.tree.flatten(model(x, training=True))
        targets = keras.tree.flatten(y)
        weights = keras.tree.flatten(sample_weight)
        if sample_weight is None or len(weights) != len(outputs):
            weights = [sample_weight] * len(outputs)
        loss = total_loss(losses, targets, outputs, weights)
        hits = _hits(losses[0].loss, targets[0], outputs[0])
        for variable, value in zip(kept, before, strict=True):
            variable.assign(value)
        return ops.stack(
            [ops.cast(loss, "float32"), ops.mean(ops.cast(hits, "float32"))]
        )

    program = seam.compiled(
        measure,
        reads=model.variables,
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


def _tensor(array):
    return array if ops.is_tensor(array) else ops.convert_to_tensor(array)


def _hits(loss, target, output):
    """Which predictions are right; not a number where that has no meaning."""
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
        classes = ops.argmax(output, axis=-1)
        target = ops.reshape(target, ops.shape(classes))
        return ops.equal(classes, ops.cast(target, classes.dtype))
    if isinstance(loss, keras.losses.CategoricalCrossentropy):
        return ops.equal(
            ops.argmax(output, axis=-1), ops.argmax(target, axis=-1)
        )
    if isinstance(loss, keras.losses.BinaryCrossentropy):
        threshold = 0.0 if loss.from_logits else 0.5
        target = ops.reshape(target, ops.shape(output))
        return ops.equal(output > threshold, target > 0.5)
    return ops.full((1,), float("nan"))
