"""Initial values of weights, drawn without compiling."""

import types

import keras
import numpy as np
from keras import ops


def draw_by_numpy():
    """JAX compiles a program for each shape that is drawn: half the time.

    A process whose weights are compared with those of the tests has to draw
    them so too.
    """
    from keras.src.initializers import random_initializers

    random = random_initializers.random

    def generator(seed):
        if not isinstance(seed, int):
            seed = np.asarray(random.draw_seed(seed))
        return np.random.default_rng(seed)

    def tensor(drawn, dtype):
        return ops.convert_to_tensor(drawn, dtype or keras.config.floatx())

    def normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return tensor(generator(seed).normal(mean, stddev, shape), dtype)

    def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        return tensor(generator(seed).uniform(minval, maxval, shape), dtype)

    def truncated_normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        rng = generator(seed)
        drawn = rng.normal(size=shape)
        while np.any(outside := np.abs(drawn) > 2):
            drawn = np.where(outside, rng.normal(size=shape), drawn)
        return tensor(mean + stddev * drawn, dtype)

    random_initializers.random = types.SimpleNamespace(
        **{
            **vars(random),
            "normal": normal,
            "uniform": uniform,
            "truncated_normal": truncated_normal,
        }
    )
