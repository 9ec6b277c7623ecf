"""Trains on one device and on two, and compares. Run by `test_replicas.py`.

A process of its own, because the devices have to be there from the start.
"""

import contextlib
import os
import sys

KL_CLIP = {"none": None, "clip": 1e-3}[sys.argv[1]]
flag = "--xla_force_host_platform_device_count=2"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"

import keras  # noqa: E402
import numpy as np  # noqa: E402

from keras_wd.callbacks.curvature import Curvature  # noqa: E402
from keras_wd.optimizers.kfac import KFAC  # noqa: E402
from tests.kfac.running import array  # noqa: E402
from tests.kfac.running import mlp  # noqa: E402
from tests.kfac.running import value  # noqa: E402

X, Y = array(1, 24, 3), np.tile([0, 1, 2], 8)


def two_devices():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        devices = [tf.config.LogicalDeviceConfiguration()] * 2
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, devices)
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    return contextlib.nullcontext()


def trained():
    model = mlp(4, 3)
    optimizer = KFAC(0.05, estimator="fisher_exact", kl_clip=KL_CLIP)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile="auto")
    callback = Curvature(X, every=2, invert_every=2, batch_size=24)
    model.fit(
        X,
        Y,
        batch_size=8,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[callback],
    )
    factors = optimizer.factors().values()
    return [
        *(value(v) for v in model.trainable_variables),
        *(factor for block in factors for factor in block.values()),
    ]


def main():
    with two_devices():
        double = trained()
    if keras.backend.backend() == "jax":
        keras.distribution.set_distribution(None)
    for one, two in zip(trained(), double, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    print("equal")


if __name__ == "__main__":
    main()
