"""Two processes end with the weights of one device on the whole batch."""

import keras
import numpy as np
import pytest

from tests.distribution import cases
from tests.distribution.processes import chosen
from tests.distribution.processes import finish
from tests.distribution.processes import free_addresses
from tests.distribution.processes import start

pytestmark = [
    pytest.mark.slow(reason="starts two processes that train together"),
    pytest.mark.devices,
]
TENSORFLOW = keras.backend.backend() == "tensorflow"
if TENSORFLOW:
    pytestmark.append(pytest.mark.weekly(reason="`fit` takes no workers there"))


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    addresses = free_addresses(2)
    module = "tests.distribution.worker"
    names = chosen(request)
    given = addresses, folder, *names
    finish(*(start("-m", module, i, *given) for i in range(2)))
    return folder


@pytest.mark.parametrize("name", cases.ON_WORKERS)
def test_workers_take_the_steps_of_one(name, folder):
    first, second = (np.load(folder / f"{i}-{name}.npz") for i in range(2))
    cases.assert_same(first, name)
    for key in first:
        np.testing.assert_array_equal(second[key], first[key])


if TENSORFLOW:

    def test_fit_is_what_keras_does_not_do_with_workers(folder):
        # The day this fails, `fit` can be used in place of the loop.
        for index in range(2):
            text = (folder / f"{index}-fit.txt").read_text("utf-8")
            assert "PerReplica" in text
