"""Clipping the gradient of the whole batch where replicas share it.

Under `tf.distribute` an optimizer of Keras clips what each replica has of the
gradient before it adds the parts up, which is another step than that of one
device: half of a gradient of norm 2, cut to norm 1, stays as it is.
"""

from collections.abc import Iterable

import keras
from keras import ops

from keras_wd import backend
from keras_wd.backend import autodiff


def check_replicas(optimizer: keras.optimizers.Optimizer) -> None:
    """Raise if the optimizer cannot step on several replicas.

    Raises:
        ValueError: for what Keras does inside a condition, where TensorFlow
            cannot add up replicas.
    """
    replicas = backend.replica_count()
    if replicas == 1:
        return
    for name in ("gradient_accumulation_steps", "ema_overwrite_frequency"):
        if name == "ema_overwrite_frequency" and not optimizer.use_ema:
            continue
        value = getattr(optimizer, name)
        if value is not None:
            raise ValueError(
                f"`{name}` must be None on several replicas of tf.distribute, "
                "which Keras cannot synchronise in a step that it takes "
                f"only sometimes. Received: {name}={value} with {replicas} "
                "replicas. Leave it out, or use the JAX backend with "
                "keras.distribution.DataParallel."
            )


def clip_over_replicas(
    optimizer: keras.optimizers.Optimizer, gradients: Iterable
) -> list:
    """This replica's share of the clipped gradient of the whole batch.

    On one replica the gradients stay as they are, for the optimizer to clip.
    On n, the shares are added up, clipped as the optimizer says, and divided
    by n: the optimizer's own clip then finds nothing to do.

    Args:
        optimizer: whose `clipnorm`, `global_clipnorm`, `clipvalue` and
            `loss_scale_factor` count.
        gradients: of this replica; None for a variable without one.
    """
    gradients = list(gradients)
    replicas = backend.replica_count()
    if replicas == 1 or not clips(optimizer):
        return gradients
    present = [i for i, g in enumerate(gradients) if g is not None]
    summed = autodiff.sum_over_replicas(
        [ops.convert_to_tensor(gradients[i], sparse=False) for i in present]
    )
    # Keras divides by the loss scale before it clips.
    scale = optimizer.loss_scale_factor or 1.0
    whole = clipped(optimizer, [g / scale for g in summed])
    for i, gradient in zip(present, whole, strict=True):
        gradients[i] = gradient * (scale / replicas)
    return gradients


def before_inner(
    inner: keras.optimizers.Optimizer, gradients: Iterable
) -> list:
    """What a wrapper passes on to the optimizer inside of it."""
    if getattr(inner, "clips_whole_batch", False):
        return list(gradients)
    return clip_over_replicas(inner, gradients)


def clips(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether an optimizer clips its gradients."""
    return bool(
        optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue
    )


def clipped(optimizer: keras.optimizers.Optimizer, gradients: list) -> list:
    """What the first setting of an optimizer, as in Keras, makes of them.

    Args:
        optimizer: one that `clips`.
        gradients: dense tensors, of the whole batch.
    """
    if optimizer.clipnorm:
        return [g * _factor([g], optimizer.clipnorm) for g in gradients]
    if optimizer.global_clipnorm:
        factor = _factor(gradients, optimizer.global_clipnorm)
        return [g * ops.cast(factor, g.dtype) for g in gradients]
    value = optimizer.clipvalue
    return [ops.clip(g, -value, value) for g in gradients]


def _factor(gradients, limit):
    squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients]
    norm = ops.sqrt(sum(squares))
    factor = limit / ops.maximum(norm, limit)
    return ops.cast(factor, gradients[0].dtype)
