"""The networks on digits of the laws."""

import keras
from keras import layers

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where


def dense(units, name, **arguments):
    return layers.Dense(units, use_bias=False, name=name, **arguments)


def normalization():
    # Without gamma and beta; epsilon small beside any variance met here.
    return layers.BatchNormalization(center=False, scale=False, epsilon=1e-9)


def normalized(constraints=(None, None), last_normalized=False, last=None):
    """64-128-128-10 with batch normalization after the first two, or all.

    Args:
        constraints: of the first two kernels.
        last_normalized: whether the last layer has a normalization too.
        last: constraint of its kernel.
    """
    stack = [keras.Input((64,))]
    for index, constraint in enumerate(constraints):
        stack += [
            dense(128, f"hidden{index}", kernel_constraint=constraint),
            normalization(),
            layers.ReLU(),
        ]
    stack.append(dense(10, "last", kernel_constraint=last))
    if last_normalized:
        # Logits of variance 1 cannot fit the labels.
        stack += [normalization(), layers.Rescaling(4.0)]
    return keras.Sequential(stack)


def plain(units=128):
    """64-units-units-10, ReLU, nothing but kernels."""
    body = [dense(units, f"hidden{i}", activation="relu") for i in range(2)]
    return keras.Sequential([keras.Input((64,)), *body, dense(10, "last")])


def two_decays(inner):
    """Decays of the hidden layers and of the last one, at rates of 0."""
    last = where.paths("last/*")
    rules = [
        decays.L2(0.0, where=where.kernels() & ~last, name="hidden"),
        decays.L2(0.0, where=last, name="last"),
    ]
    return optimizers.WeightDecay(inner, rules)
