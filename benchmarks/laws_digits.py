"""Networks on digits, trained again and again without compiling again."""

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where

TRAIN = 500
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def digits(seed, count=TRAIN):
    """Images and labels to train on, drawn by the seed, and all others."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    order = np.random.default_rng(seed).permutation(len(x))
    return [(x[rows], y[rows]) for rows in (order[:count], order[count:])]


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


class Trainer:
    """A network and an optimizer that start anew from a seed."""

    def __init__(self, build, optimizer, batch, steps_per_execution):
        self.build, self.batch, self.model = build, batch, build()
        self.model.compile(
            optimizer,
            LOSS,
            metrics=["accuracy"],
            jit_compile=True,
            steps_per_execution=steps_per_execution,
        )
        optimizer.build(self.model.trainable_variables)
        self.fresh = [np.array(v.value) for v in optimizer.variables]

    def start(self, seed, lr, **rates):
        """New weights; `rates` by the name of the decay, or `decay`."""
        keras.utils.set_random_seed(seed)
        self.model.set_weights(self.build().get_weights())
        optimizer = self.model.optimizer
        variables = optimizer.variables
        for variable, value in zip(variables, self.fresh, strict=True):
            variable.assign(value)
        optimizer.learning_rate = lr
        for name, rate in rates.items():
            name = None if name == "decay" else name
            optimizer.set_weight_decay(rate, name)

    def kernels(self):
        return [np.array(v.value) for v in self.model.trainable_variables]

    def norms(self):
        return np.array([np.linalg.norm(k) for k in self.kernels()])

    def scale(self, factors):
        """Multiply every kernel, by one number or one for each."""
        variables = self.model.trainable_variables
        for v, factor in zip(
            variables, np.broadcast_to(factors, len(variables)), strict=True
        ):
            v.assign(v.value * np.float32(factor))

    def fit(self, data, epochs, *callbacks, seed=0):
        """Train in an order of the seed; the loss of every epoch."""
        keras.utils.set_random_seed(seed)
        past = self.model.fit(*data, self.batch, epochs, 0, callbacks)
        return np.array(past.history["loss"])

    def accuracy(self, data):
        return self.model.test_on_batch(*data, return_dict=True)["accuracy"]
