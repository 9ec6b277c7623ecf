"""What every test starts from, and the two things without a portable name."""

import tempfile

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings
from keras import ops

from tests import initial_values

settings.register_profile(
    "keras_wd",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
settings.load_profile("keras_wd")


def pytest_configure(config):
    if keras.backend.backend() == "jax":
        _keep_programs(config)
        initial_values.draw_by_numpy()


def _keep_programs(config):
    """What one test compiled is not compiled again by another."""
    import jax

    # A folder for each process: JAX writes its files without a lock.
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    jax.config.update("jax_compilation_cache_dir", folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture
def float64():
    """JAX has it only where it is switched on."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def fresh_start():
    """The same random numbers and layer names whatever ran before."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def functions(request):
    """Eager where a test says so: tracing takes most of its time.

    Only on TensorFlow: JAX compiles all of them, and so do the tests that
    compare with what is compiled.
    """
    node = request.node
    eager = (
        keras.backend.backend() == "tensorflow"
        and node.get_closest_marker("eager")
        and not node.get_closest_marker("compiled")
        and "compiled" not in request.fixturenames
    )
    if not eager:
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def gradient():
    """`gradient(function, array)`: d function / d array, by the backend."""
    return _gradient


@pytest.fixture
def compiled():
    """`compiled(function)`: the function of tensors, compiled by XLA.

    On torch, which has no XLA, it stays as it is.
    """
    return _compiled


def _gradient(function, array):
    array = np.asarray(array, dtype="float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.constant(array)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return np.asarray(tape.gradient(value, x))
    if keras.backend.backend() == "torch":
        x = ops.convert_to_tensor(array).requires_grad_()
        function(x).backward()
        return x.grad.numpy()
    import jax

    return np.asarray(jax.grad(function)(jax.numpy.asarray(array)))


def _compiled(function):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        compute = tf.function(function, jit_compile=True, autograph=False)
    elif keras.backend.backend() == "torch":
        compute = function
    else:
        import jax

        compute = jax.jit(function)

    def call(*arrays):
        return compute(*map(ops.convert_to_tensor, arrays))

    return call
