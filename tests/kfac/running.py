"""Running K-FAC's parts on small models."""

import keras
import numpy as np
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.optimizers.kfac import KFAC


def array(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def value(variable):
    """A variable's value; NumPy 2 warns about Keras's own conversion."""
    return np.array(ops.convert_to_numpy(autodiff.read(variable)))


def measured(model, x, y=None, loss=None, **arguments):
    """The factors of one batch, by block."""
    optimizer = KFAC(0.1, seed=1, **arguments)
    optimizer.update_curvature(model, x, y, loss=loss, invert=False)
    return optimizer.factors()


def gradient(model, x, cotangent):
    """d sum(outputs * cotangent) / d variable, by path."""
    variables = model.trainable_variables
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total = ops.sum(model(x, training=True) * cotangent)
        grads = tape.gradient(total, [v.value for v in variables])
    else:
        import jax

        rest = [v.value for v in model.non_trainable_variables]

        def total(values):
            outputs, _ = model.stateless_call(values, rest, x, training=True)
            return ops.sum(outputs * cotangent)

        grads = jax.jit(jax.grad(total))([v.value for v in variables])
    return {
        v.path: ops.convert_to_tensor(g, sparse=False)
        for v, g in zip(variables, grads, strict=True)
    }


def mlp(*widths, inputs=3, activation="tanh", last=None, seed=0):
    """Dense layers with given weights, which take no time to draw."""
    stack = [keras.Input((inputs,))]
    for i, width in enumerate(widths):
        final = i + 1 == len(widths)
        stack.append(
            keras.layers.Dense(
                width,
                activation=last if final else activation,
                kernel_initializer="zeros",
                name=f"d{i}",
            )
        )
    model = keras.Sequential(stack, name="net")
    for i, variable in enumerate(model.trainable_variables):
        variable.assign(0.5 * array(100 * seed + i, *variable.shape))
    model.jit_compile = True
    return model
