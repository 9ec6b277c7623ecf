"""What every test starts from, and the two things without a portable name."""

import math
import random
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


def pytest_addoption(parser):
    parser.addoption(
        "--cases",
        default="own",
        help="of each parametrized test, run at most this many cases, spread "
        "over its list, or `all`; tests marked `every_case` run each. `own`: "
        "each, but of a test marked `few_cases(n)` n",
    )


def pytest_configure(config):
    # What Keras does to others, not keras_wd: it hands its variables to NumPy
    # in a way that NumPy 2 deprecates, and int64 labels to JAX; TensorFlow
    # traces the functions of a data set also where all others are eager.
    for message in (
        "Even though the `tf.config.experimental_run_functions_eagerly"
        ":UserWarning",
        "__array__ implementation doesn't accept a copy keyword"
        ":DeprecationWarning",
        "Explicitly requested dtype int64:UserWarning",
    ):
        config.addinivalue_line("filterwarnings", f"ignore:{message}")
    if keras.backend.backend() == "jax":
        _keep_programs(config)
        initial_values.draw_by_numpy()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session):
    """In the tests a warning is an error; in pytest's plugins it is not."""
    filters = session.config.getini("filterwarnings")
    filters.insert(0, "error")
    try:
        return (yield)
    finally:
        filters.remove("error")


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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        for name in ("slow", "weekly"):
            for mark in item.iter_markers(name):
                if not mark.kwargs.get("reason"):
                    raise pytest.UsageError(
                        f"{item.nodeid}: {name} without a reason"
                    )
    if config.getoption("cases") != "all":
        _keep_cases(config, items)


def _most_cases(item, given):
    if item.get_closest_marker("every_case"):
        return math.inf
    if given != "own":
        return int(given)
    few = item.get_closest_marker("few_cases")
    return few.args[0] if few else math.inf


def _keep_cases(config, items):
    """Draw cases of each test, the same in every process and on every day."""
    given = config.getoption("cases")
    tests = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out = set()
    for name, cases in tests.items():
        most = min(_most_cases(item, given) for item in cases)
        if len(cases) > most:
            kept = random.Random(name).sample(cases, most)
            left_out.update(set(cases).difference(kept))
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


# Files whose tests share what takes long.
_IN_ONE_WORKER = (
    "distribution/",
    "test_damage.py",
    "test_layers.py",
    "test_security.py",
    "test_peers",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker for the tests that share what takes long."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return file if any(p in file for p in _IN_ONE_WORKER) else nodeid

    return Scheduling(config, log)


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
