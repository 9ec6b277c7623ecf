"""A small network, its data, and single steps of an optimizer."""

import keras
import numpy as np
from keras import ops

BATCH = 16


def data(batches=4, seed=0):
    """Images `(batches * 16, 8)` and labels in {0, 1, 2}."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batches * BATCH, 8)).astype("float32")
    return x, rng.integers(0, 3, len(x))


def network(seed=0, dtype=None, **arguments):
    """A dense network 8-6-3 with the same weights for the same seed."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(6, "relu", dtype=dtype, **arguments),
            keras.layers.Dense(3, dtype=dtype),
        ]
    )


def compiled_network(optimizer, jit_compile=False, **arguments):
    model = network(**arguments)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=jit_compile and keras.backend.backend() != "torch",
    )
    return model


def train(model, batches=4, batch=BATCH, epochs=1):
    """Take the batches in order; return the weights."""
    x, y = data(batches)
    model.fit(x, y, batch_size=batch, epochs=epochs, shuffle=False, verbose=0)
    return model.get_weights()


def trained(optimizer, batches=4, batch=BATCH, **arguments):
    return train(compiled_network(optimizer, **arguments), batches, batch)


def variables(arrays, dtype="float32"):
    return [
        keras.Variable(np.asarray(array), dtype=dtype, name=f"kernel_{i}")
        for i, array in enumerate(arrays)
    ]


def take_steps(optimizer, weights, gradients):
    """Apply a list of gradients per step; return the weights after each."""
    history = []
    for grads in gradients:
        optimizer.apply([ops.convert_to_tensor(g) for g in grads], weights)
        history.append(
            [np.array(ops.convert_to_numpy(w.value)) for w in weights]
        )
    return history


def assert_equal(first, second):
    """Bit for bit the same arrays."""
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(first, second, tolerance):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
