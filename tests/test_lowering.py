"""Every compiled program is made for a GPU and a TPU as well as for a CPU."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import decays
from keras_wd import graph
from keras_wd import metrics
from keras_wd import optimizers
from keras_wd.callbacks.loss import batch_loss
from keras_wd.kfac import ESTIMATORS
from keras_wd.kfac import block_inversion
from keras_wd.optimizers import WeightDecay
from tests import catalogue
from tests.kfac.running import mlp
from tests.lowering import lowered
from tests.lowering import record
from tests.training import compiled_network
from tests.training import data
from tests.training import network

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
X, Y = data(1)

# Each decay around another of Keras's optimizers.
INNER = {
    "SGD": dict(momentum=0.9, nesterov=True, clipnorm=1.0),
    "RMSprop": dict(centered=True),
    "Adam": dict(amsgrad=True),
    "Adagrad": {},
    "Adadelta": dict(global_clipnorm=1.0),
    "Adamax": {},
    "Nadam": {},
    "Lion": {},
    "Lamb": {},
    "Adafactor": {},
    "Muon": dict(weight_decay=None, adam_weight_decay=0.0),
}


def around(name, rule):
    arguments = INNER[name]
    return lambda model: WeightDecay(
        getattr(keras.optimizers, name)(0.05, **arguments), rule()
    )


def kfac(**arguments):
    return optimizers.KFAC(0.1, kl_clip=0.01, seed=0, **arguments)


RULES = {
    **catalogue.DECAYS,
    "L2 anchored": lambda: decays.L2(0.3, anchor="start"),
    "L2 layerwise": lambda: decays.L2(0.3, layerwise=True),
}
OPTIMIZERS = {
    **{
        name: lambda model, make=make: make()
        for name, make in catalogue.OPTIMIZERS.items()
    },
    **{
        f"{inner} + {name}": around(inner, rule)
        for inner, (name, rule) in zip(
            itertools.cycle(INNER), RULES.items(), strict=False
        )
    },
    "PathNorm": lambda model: WeightDecay(
        keras.optimizers.SGD(0.1),
        decays.PathNorm(0.3, graph.homogeneous_units(model), absorb=True),
    ),
    "PathProx": lambda model: optimizers.PathProx(model, 0.1, 0.3),
    "KFAC": lambda model: kfac(),
    "KFAC + L2": lambda model: WeightDecay(kfac(), decays.L2(0.1)),
    "accumulated, averaged, scaled": lambda model: (
        keras.optimizers.LossScaleOptimizer(
            catalogue.OPTIMIZERS["WeightDecay"](gradient_accumulation_steps=2)
        )
    ),
}


def measure(optimizer, model, x, y=None):
    """Lower the measurement, and have its count, which nothing ran for."""
    optimizer.update_curvature(model, x, y, invert=False)
    updates = optimizer._curvature.state.updates
    updates.assign(ops.ones(updates.shape))


def calls_of_a_step(make):
    """Of the program of a whole step: forwards, backwards, the update."""
    model = network()
    optimizer = make(model)
    model.compile(optimizer, LOSS, jit_compile=True)
    inside = getattr(optimizer, "inner_optimizer", optimizer)
    if isinstance(inside, optimizers.KFAC):
        with pytest.MonkeyPatch.context() as patch:
            record(patch)
            measure(inside, model, X)
            inside.update_inverses()
    optimizer.build(model.trainable_variables)
    batch = tuple(map(ops.convert_to_tensor, (X, Y)))
    if keras.backend.backend() == "tensorflow":
        return lowered(lambda x, y: model.train_step((x, y)), *batch)[0]
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([variable.value for variable in group] for group in groups)
    return lowered(model.train_step, state, batch)[0]


@pytest.mark.parametrize(
    "make",
    catalogue.quick(OPTIMIZERS, "WeightDecay", "PathNorm", "KFAC + L2"),
)
def test_a_whole_step_is_operations_of_xla(make):
    calls = calls_of_a_step(make)
    assert not any(calls.values()), calls


# Cholesky factors and triangular systems are the only ones with kernels.
LINEAR_ALGEBRA = {
    "cpu": {"lapack_spotrf_ffi", "lapack_strsm_ffi"},
    "cuda": {"cusolver_potrf_ffi"},
    "tpu": set(),
    "xla": set(),
}


def images():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.DepthwiseConv2D(3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )


@pytest.mark.parametrize("estimator", catalogue.quick(ESTIMATORS, "fisher"))
def test_curvature_and_inverses_are_made_for_every_platform(
    estimator, monkeypatch
):
    # The estimators differ in what they send backwards, not in the layers.
    model = images() if estimator == "fisher" else mlp(4, 3, inputs=8)
    optimizer = kfac(estimator=estimator)
    model.compile(optimizer, LOSS, jit_compile=True)
    found = record(monkeypatch)
    x = np.ones((8, *model.input_shape[1:]), "float32")
    measure(optimizer, model, x, Y[:8])
    measured = len(found)
    # Also what NumPy would invert on this machine; one for each shape.
    monkeypatch.setattr(block_inversion, "most_by_numpy", lambda held: 0)
    optimizer.update_inverses(jit_compile=True)
    assert measured == 1 and len(found) > 1
    if not estimator.startswith("generalized"):  # which takes eigenvalues
        assert not any(found[0].values()), found[0]
    for inverted in found[1:]:
        for platform, calls in inverted.items():
            assert calls <= LINEAR_ALGEBRA[platform], platform


@pytest.mark.slow(reason="compiles each for three platforms")
def test_measurements_are_operations_of_xla(monkeypatch):
    model = compiled_network("sgd", jit_compile=True)
    found = record(monkeypatch)
    batch_loss(model)(X, Y, None)
    for form in ("full", "block", "kfac"):
        metrics.gauss_newton_norm(model, X, form)
    for method in ("exact", "random"):
        metrics.jacobian_norm(model, X, method)
    assert len(found) == 7
    assert not any(name for calls in found for name in calls.values()), found


def test_a_call_of_the_host_is_seen():
    def on_host(x):
        return np.float32(2) * x

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        def program(x):
            return tf.ensure_shape(
                tf.numpy_function(on_host, [x], tf.float32), [3]
            )

        assert lowered(program, ops.ones(3))[0] == {"xla": {"PyFunc"}}
    else:
        import jax

        def program(x):
            return jax.pure_callback(on_host, x, x)

        with pytest.raises(NotImplementedError, match="host_callbacks"):
            lowered(program, ops.ones(3))
