"""K-FAC with the decay on paths, and lowered for other devices."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import decays
from keras_wd import graph
from keras_wd.optimizers import KFAC
from keras_wd.optimizers import WeightDecay
from tests.graph import reference
from tests.kfac.running import array
from tests.kfac.running import mlp
from tests.kfac.running import value

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


if keras.backend.backend() == "jax":
    # Only `jax.export` lowers for a device that is not there.

    @pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
    def test_step_and_inversion_lower_for_every_platform(platform):
        import jax
        from jax import export

        model = mlp(4, 3)
        optimizer = WeightDecay(KFAC(0.1, seed=0), decays.L2(0.1))
        model.compile(optimizer, LOSS)
        kfac = optimizer.inner_optimizer
        kfac.update_curvature(model, X)

        def train_step(weights, slots):
            def loss(values):
                outputs, _ = model.stateless_call(values, [], X)
                return ops.mean(LOSS(Y, outputs))

            return optimizer.stateless_apply(
                slots, jax.grad(loss)(weights), weights
            )

        weights = [v.value for v in model.trainable_variables]
        slots = [v.value for v in optimizer.variables]
        exported = export.export(jax.jit(train_step), platforms=[platform])(
            weights, slots
        )
        assert exported.platforms == (platform,)

        block, factors = (
            kfac._engine.state.blocks[0],
            kfac._engine.state.factors[0],
        )

        def invert(factors):
            return block.invert(factors, 0.1, 0.0, jax.numpy.linalg.cholesky)

        values = [factor.value for factor in factors]
        exported = export.export(jax.jit(invert), platforms=[platform])(values)
        assert exported.platforms == (platform,)
