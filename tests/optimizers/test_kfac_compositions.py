"""K-FAC with the decay on paths."""

import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd import graph
from keras_wd.optimizers import KFAC
from keras_wd.optimizers import WeightDecay
from tests.graph import reference
from tests.kfac.running import array
from tests.kfac.running import mlp
from tests.kfac.running import value

pytestmark = pytest.mark.eager

X = array(1, 8, 3)
Y = np.array([0, 1, 2, 0, 1, 2, 0, 1])
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def step(wrap, jit_compile=True):
    """The kernels and biases after one K-FAC step with a wrapper."""
    model = mlp(4, 3, activation="relu")
    optimizer = wrap(KFAC(0.1, momentum=0.0, seed=0), model)
    model.compile(optimizer, LOSS, jit_compile=jit_compile)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner.update_curvature(model, X)
    model.train_on_batch(X, Y)
    return [value(v).astype("float64") for v in model.trainable_variables]


def test_the_path_norm_takes_its_step_after_that_of_kfac():
    plain = step(lambda kfac, model: kfac)
    decayed = step(
        lambda kfac, model: WeightDecay(
            kfac, decays.PathNorm(0.5, graph.homogeneous_units(model))
        )
    )
    pair = dict(zip("wbvc", plain, strict=True))
    (expected,) = reference.step([pair], 0.1 * 0.5)
    for name, found in zip("wbvc", decayed, strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=2e-5, atol=1e-6)


@pytest.mark.one_backend
def test_keras_takes_it_for_one_optimizer():
    # `SwapEMAWeights` looks for `optimizers`, those of a MultiOptimizer.
    both = KFAC(inner=keras.optimizers.Adam(0.1))
    assert both.optimizers_inside and not hasattr(both, "optimizers")
