import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import metrics
from keras_wd import where


def network():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, name="body"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(1, name="head"),
        ],
        name="net",
    )
    body, head = model.get_layer("body"), model.get_layer("head")
    body.kernel.assign([[0.0, -1e-14, 2.0], [1e-3, 0.0, -2.0]])
    head.kernel.assign([[-1e-13], [0.0], [1.0]])
    head.bias.assign([5.0])
    return model


@pytest.mark.parametrize(
    "threshold, expected", [(0.0, 3), (1e-14, 4), (1e-12, 5), (1e-2, 6), (9, 9)]
)
def test_sparsity_counts_the_kernels_up_to_the_threshold(threshold, expected):
    share = metrics.sparsity(network(), threshold=threshold)
    assert type(share) is float
    assert share == pytest.approx(expected / 9, abs=1e-12)


def test_sparsity_counts_the_threshold_itself():
    w = keras.Variable([0.5, 0.25, -0.5, 1.0], name="w")
    assert metrics.sparsity([w], 0.5, where=where.everything()) == 0.75


def test_sparsity_of_other_variables():
    model = network()
    # body/bias (3 zeros), norm/beta (3 zeros), gamma (3 ones), head/bias (5).
    assert metrics.sparsity(model, where=~where.kernels()) == 6 / 10
    assert metrics.sparsity(model, where=where.paths("head/*")) == 1 / 4


def test_weight_norm_is_the_norm_of_all_kernels():
    norm = metrics.weight_norm(network())
    assert type(norm) is float
    assert norm == pytest.approx(np.sqrt(4 + 4 + 1e-6 + 1), rel=1e-7)
    assert metrics.weight_norm(
        network(), where=where.paths("head/*")
    ) == pytest.approx(np.sqrt(26))


def test_lists_of_variables_are_taken_as_they_are():
    model = network()
    variables = model.get_layer("head").variables
    assert metrics.weight_norm(variables) == pytest.approx(1.0)
    assert metrics.sparsity(variables) == pytest.approx(1 / 3)


def test_a_layer_is_measured_like_a_model():
    assert metrics.sparsity(network().get_layer("head")) == 1 / 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_weights_are_measured_exactly(dtype):
    w = keras.Variable(np.full((4096, 1), 0.5), name="kernel", dtype=dtype)
    assert metrics.weight_norm([w]) == 32.0
    assert metrics.sparsity([w], threshold=0.5) == 1.0
    assert metrics.sparsity([w], threshold=0.49) == 0.0


def test_the_norm_of_huge_weights_is_finite():
    w = keras.Variable([[1e30, 1e30]], name="kernel")
    assert metrics.weight_norm([w]) == pytest.approx(np.sqrt(2) * 1e30)


@pytest.mark.parametrize("measure", [metrics.sparsity, metrics.weight_norm])
def test_mistakes_are_named(measure):
    with pytest.raises(ValueError, match="`model` must be built"):
        measure(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(ValueError, match="matches none of net/body/kernel"):
        measure(network(), where=where.paths("tail/*"))
    with pytest.raises(ValueError, match="`where` must be a selection"):
        measure(network(), where="head/*")


@pytest.mark.parametrize("threshold", [-1.0, float("nan"), "small"])
def test_a_threshold_that_is_no_size_is_rejected(threshold):
    with pytest.raises(ValueError, match="`threshold` must be") as error:
        metrics.sparsity(network(), threshold=threshold)
    assert f"Received: threshold={threshold!r}" in str(error.value)


def test_sparsity_by_layer():
    assert metrics.layer_sparsity(network(), 1e-12) == {
        "net/body/kernel": 0.5,
        "net/head/kernel": pytest.approx(2 / 3),
    }


def test_dead_units_are_those_that_compact_removes():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(5, "relu", name="body"),
            layers.Dense(2, name="head"),
        ]
    )
    kernel = np.array(model.layers[1].kernel.value)
    kernel[[1, 4]] = 0.0
    kernel[2] = 1e-6
    model.layers[1].kernel.assign(kernel)
    assert metrics.dead_units(model) == {"body": 2, "head": 0}
    assert metrics.dead_units(model, 1e-4) == {"body": 3, "head": 0}


def test_the_path_norm_is_the_sum_over_units():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(5, "relu", name="body"),
            layers.Dense(2, name="head"),
        ]
    )
    w, v = (np.asarray(layer.get_weights()[0]) for layer in model.layers)
    expected = np.sum(np.linalg.norm(w, axis=0) * np.linalg.norm(v, axis=1))
    assert metrics.path_norm(model) == pytest.approx(expected, rel=1e-5)


def test_the_sparsity_metric_adds_up_and_comes_back():
    metric = metrics.Sparsity(1e-12, where=where.everything(), name="s")
    metric.update_state([keras.Variable([0.0, 1.0], name="w")])
    metric.update_state([keras.Variable([1e-13, 0.0], name="w")])
    assert float(metric.result()) == 0.75
    config = json.loads(json.dumps(metric.get_config()))
    again = metrics.Sparsity.from_config(config)
    assert again.get_config() == metric.get_config()
    assert again.where == where.everything()
    metric.reset_state()
    assert float(metric.result()) == 0
