"""The second table of the page: what works on which backend.

TensorFlow and JAX are tried by the tests. torch, which this package does not
ask for, is tried where it is installed, by `python -m tests.support` and by
`KERAS_BACKEND=torch pytest tests/support`; elsewhere its column is what was
found there, and the tests hold it to the rule below.
"""

import keras
import numpy as np

from keras_wd import callbacks
from keras_wd import graph
from keras_wd import metrics
from keras_wd import optimizers
from tests.support.features import NOT_ON_TORCH
from tests.support.subjects import SUBJECTS
from tests.training import data
from tests.training import network

NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "torch"}
REFUSED = "`{}` must run on TensorFlow or JAX"
# A line for all cells above that need no curvature.
DECAYS = "the decays and optimizers above, but for KFAC"
X, Y = data(1)


def fitted(callback=None):
    model = network()
    model.compile(
        optimizers.SGDW(0.1, 0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    made = [callback] if callback else []
    history = model.fit(X, Y, epochs=1, verbose=0, callbacks=made).history
    return model, history


def of_weights():
    model = network()
    metric = metrics.Sparsity()
    metric.update_state(model)
    assert metrics.sparsity(model) == float(metric.result()) == 0
    assert metrics.weight_norm(model) > 0 and metrics.path_norm(model) > 0


def structure():
    model = network()
    kernel, bias = model.layers[0].get_weights()
    kernel[:, 0] = 0
    model.layers[0].set_weights([kernel, bias])
    smaller = graph.compact(model)
    assert smaller.layers[0].units == 5
    outputs = [np.asarray(m.predict(X, verbose=0)) for m in (model, smaller)]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
    assert "hidden" not in str(graph.explain(model))


def jacobian():
    assert metrics.jacobian_norm(network(), X).value > 0


def gauss_newton():
    assert metrics.gauss_newton_norm(network(), X) > 0


def mechanisms():
    _, history = fitted(callbacks.Mechanisms(X))
    assert history["jacobian_norm"][0] > 0


def auto_l2():
    _, history = fitted(callbacks.AutoL2((X, Y), every=1, batch_size=8))
    assert history["weight_decay"] == [0.1]


def plateau():
    _, history = fitted(callbacks.ReduceDecayOnPlateau("loss"))
    assert history["weight_decay"] == [0.1]


def kfac():
    subject = SUBJECTS["KFAC + L2"]
    model = network()
    subject.make(model)


PARTS = {
    "`optimizers.KFAC`, `callbacks.Curvature`": (kfac, "KFAC"),
    "`metrics` of weights": (of_weights, None),
    "`metrics.jacobian_norm`": (jacobian, "jacobian_norm"),
    "`metrics.gauss_newton_norm`": (gauss_newton, "gauss_newton_norm"),
    "`graph.explain`, `graph.compact`": (structure, None),
    "`callbacks.ReduceDecayOnPlateau`": (plateau, None),
    "`callbacks.Mechanisms`": (mechanisms, "Mechanisms"),
    "`callbacks.AutoL2`": (auto_l2, "AutoL2"),
}


def part(name: str, backend: str) -> tuple[str, str]:
    """What has to be found for a row of the second table."""
    refused = PARTS[name][1] if name in PARTS else None
    if backend == "torch" and refused:
        return "no", REFUSED.format(refused)
    return "yes", ""


def cell(
    found: tuple[str, str], feature: str, subject: str, backend: str
) -> tuple[str, str]:
    """What a cell of the first table has to be on a backend."""
    if backend != "torch":
        return found
    if feature in NOT_ON_TORCH:
        return "-", NOT_ON_TORCH[feature]
    # What is refused or impossible for another reason stays that.
    if SUBJECTS[subject].curvature and found[0] != "-":
        return "no", REFUSED.format("KFAC")
    return found
