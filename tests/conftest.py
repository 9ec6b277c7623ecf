"""Which tests run, on which worker, and that a warning is an error.

A controller of workers reads this file too: nothing here imports Keras.
"""

import math
import random

import pytest


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
    if config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("tests.fixtures")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session):
    """In the tests a warning is an error; in pytest's plugins it is not."""
    filters = session.config.getini("filterwarnings")
    filters.insert(0, "error")
    try:
        return (yield)
    finally:
        filters.remove("error")


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
