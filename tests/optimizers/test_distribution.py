"""Two devices end with the weights of one device on the whole batch."""

import os
import subprocess
import sys
import textwrap

import keras
import pytest

SCRIPT = """
import keras
import numpy as np
from keras_wd import decays
from keras_wd import optimizers
from tests.training import network, train

{devices}


def compiled(make, **arguments):
    model = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(make(model), loss, **arguments)
    return model


def rules():
    sgd = keras.optimizers.SGD
    yield lambda model: optimizers.SGDW(0.1, weight_decay=0.5, momentum=0.9)
    yield lambda model: optimizers.PAdam(0.01, weight_decay=0.5)
    yield lambda model: optimizers.WeightDecay(
        sgd(0.1), decays.L2(0.5, coupling="coupled")
    )
    yield lambda model: optimizers.WeightDecay(
        sgd(0.1), decays.GroupLasso(0.3), use_ema=True, ema_momentum=0.5
    )
    yield lambda model: optimizers.PathProx(model, 0.1, 0.5)


for make in rules():
    alone = train(compiled(make))
    together = train(on_both(make))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
print("equal")
"""

TENSORFLOW = """
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2


def on_both(make):
    with strategy.scope():
        return compiled(make)
"""

JAX = """
import jax

assert len(jax.devices()) == 2


def on_both(make):
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    model = compiled(make, jit_compile=True)
    kernel = model.trainable_variables[0].value
    assert len(kernel.sharding.device_set) == 2
    return model


_train = train


def train(model):
    weights = _train(model)
    keras.distribution.set_distribution(None)
    return weights
"""


def test_two_devices_equal_one():
    devices = {"tensorflow": TENSORFLOW, "jax": JAX}
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.getcwd(),
    }
    script = SCRIPT.format(devices=devices[keras.backend.backend()])
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
    )
    if result.returncode:
        pytest.fail(result.stderr[-3000:])
    assert result.stdout.strip().endswith("equal")
