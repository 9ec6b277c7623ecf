import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import metrics


def relu_network(widths=(6, 5, 4)):
    keras.utils.set_random_seed(3)
    *hidden, last = widths
    return keras.Sequential(
        [
            keras.Input((3,)),
            *(
                layers.Dense(n, "relu", bias_initializer="normal")
                for n in hidden
            ),
            layers.Dense(last),
        ]
    )


def data(examples=37, seed=0):
    return np.random.default_rng(seed).normal(size=(examples, 3))


def reference(model, x):
    """Jacobians of a ReLU network in float64: (examples, inputs, outputs)."""
    jacobian = np.broadcast_to(np.eye(3), (len(x), 3, 3))
    *hidden, last = [
        [np.asarray(w, dtype="float64") for w in layer.get_weights()]
        for layer in model.layers
    ]
    for kernel, bias in hidden:
        x = x @ kernel + bias
        jacobian = (jacobian @ kernel) * (x > 0)[:, None]
        x = np.maximum(x, 0)
    return jacobian @ last[0]


@pytest.mark.parametrize("batch_size", [5, 512])
def test_the_exact_norm_is_that_of_the_jacobian(batch_size):
    model, x = relu_network(), data()
    expected = np.square(reference(model, x)).sum((1, 2)).mean()
    found = metrics.jacobian_norm(model, x, batch_size=batch_size)
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.standard_error == 0
    assert found.method == "exact"


@pytest.mark.slow(reason="several programs")
def test_more_outputs_than_fit_into_one_program():
    model, x = relu_network((6, 21)), data()
    expected = np.square(reference(model, x)).sum((1, 2)).mean()
    found = metrics.jacobian_norm(model, x)
    assert found.value == pytest.approx(expected, rel=1e-5)


def test_many_outputs_are_projected_by_default():
    model = relu_network((6, 33))
    assert metrics.jacobian_norm(model, data(4)).method == "random"


def test_projections_have_no_bias_and_a_true_standard_error():
    model, x = relu_network((6, 12)), data(8)
    exact = np.square(reference(model, x)).sum((1, 2)).mean()
    found = [
        metrics.jacobian_norm(model, x, "random", projections=4, seed=seed)
        for seed in range(150)
    ]
    values = np.array([f.value for f in found])
    spread = values.std(ddof=1)
    assert abs(values.mean() - exact) < 4 * spread / np.sqrt(len(values))
    errors = np.array([f.standard_error for f in found])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(spread, rel=0.25)


def test_projections_over_several_batches_are_the_mean_of_all():
    model, x = relu_network((6, 12)), data(64)
    exact = metrics.jacobian_norm(model, x).value
    found = metrics.jacobian_norm(
        model, x, "random", projections=64, batch_size=10
    )
    assert abs(found.value - exact) < 5 * found.standard_error


def test_several_inputs_and_a_tensor_of_outputs():
    left = keras.Input((4, 2), name="left")
    right = keras.Input((4, 2), name="right")
    joined = layers.Concatenate()([left, right])
    model = keras.Model({"left": left, "right": right}, layers.Dense(3)(joined))
    kernel = model.layers[-1].get_weights()[0]
    x = {"left": np.ones((5, 4, 2)), "right": np.ones((5, 4, 2))}
    found = metrics.jacobian_norm(model, x)
    assert found.value == pytest.approx(4 * np.square(kernel).sum(), rel=1e-5)


def test_a_convolution_with_batch_normalization_is_measured_at_inference():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    x = np.random.default_rng(0).normal(size=(9, 6, 6, 1)).astype("float32")
    before = [np.array(w) for w in model.get_weights()]
    found = metrics.jacobian_norm(model, x)
    # The network is affine: the columns of its Jacobian are differences.
    origin = model.predict(np.zeros((1, 6, 6, 1)), verbose=0)
    units = np.eye(36).reshape(36, 6, 6, 1)
    columns = model.predict(units, verbose=0) - origin
    assert found.value == pytest.approx(np.square(columns).sum(), rel=1e-4)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_later_weights_are_seen():
    model, x = relu_network(), data()
    first = metrics.jacobian_norm(model, x).value
    head = model.layers[-1]
    head.kernel.assign(3 * np.asarray(head.get_weights()[0]))
    assert metrics.jacobian_norm(model, x).value == pytest.approx(9 * first)


@pytest.mark.parametrize(
    "x, message",
    [
        (np.ones((0, 3)), "`x` must hold at least one example"),
        (np.ones((2, 4)), r"examples of shape \(3,\). Received: x of shape"),
        (np.ones((2, 3), int), "`x` must be arrays of floats"),
        (np.array([[1, 2, np.nan]]), "`x` must be finite. Received: x with 1"),
    ],
)
def test_inputs_that_cannot_be_measured(x, message):
    with pytest.raises(ValueError, match=message):
        metrics.jacobian_norm(relu_network(), x)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"method": "exakt"}, "`method` must be one of .* mean 'exact'"),
        ({"projections": 1}, "`projections` must be an integer >= 2"),
        ({"batch_size": 0}, "`batch_size` must be an integer >= 1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.jacobian_norm(relu_network(), data(), **arguments)


def test_a_model_that_is_not_built():
    model = keras.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match="`model` must be a built Keras"):
        metrics.jacobian_norm(model, data())


def test_several_outputs_are_one_vector():
    x = keras.Input((3,))
    outputs = [layers.Dense(1)(x), layers.Reshape((2, 2))(layers.Dense(4)(x))]
    joined = layers.Concatenate()([outputs[0], layers.Flatten()(outputs[1])])
    one, several = keras.Model(x, joined), keras.Model(x, outputs)
    for method in ("exact", "random"):
        expected = metrics.jacobian_norm(one, data(), method)
        found = metrics.jacobian_norm(several, data(), method)
        assert found.value == pytest.approx(expected.value)


def test_the_metric_is_the_mean_over_all_examples():
    model, x = relu_network(), data(20)
    metric = metrics.JacobianNorm()
    assert float(metric.result()) == 0
    metric.update_state(model, x[:15])
    metric.update_state(model, x[15:])
    whole = metrics.jacobian_norm(model, x).value
    assert float(metric.result()) == pytest.approx(whole, rel=1e-5)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_the_config_of_the_metric_comes_back():
    metric = metrics.JacobianNorm("random", projections=5, seed=7, name="j")
    config = json.loads(json.dumps(metric.get_config()))
    again = metrics.JacobianNorm.from_config(config)
    assert again.get_config() == metric.get_config()
    model, x = relu_network(), data()
    metric.update_state(model, x)
    again.update_state(model, x)
    assert float(metric.result()) == float(again.result())


def test_dict_inputs_of_a_model_with_a_list():
    first, second = keras.Input((3,), name="b"), keras.Input((1,), name="a")
    joined = keras.layers.Concatenate()([first, second])
    model = keras.Model(
        [first, second],
        keras.layers.Dense(1, kernel_initializer="ones")(joined),
    )
    x = {"a": np.ones((4, 1)), "b": np.ones((4, 3))}
    assert metrics.jacobian_norm(model, x).value == pytest.approx(4.0)
    with pytest.raises(ValueError, match="must have examples of shape"):
        metrics.jacobian_norm(model, {"a": x["b"], "b": x["a"]})


def test_ids_given_as_floats_and_positions():
    class Positions(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.table = keras.layers.Embedding(4, 2)

        def call(self, x):
            return x + self.table(keras.ops.arange(4))

    ids = keras.Input((4,))
    h = Positions()(keras.layers.Embedding(5, 2)(ids))
    h = keras.layers.Flatten()(h)
    model = keras.Model(
        ids, keras.layers.Dense(1, kernel_initializer="ones")(h)
    )
    x = np.ones((4, 4), "float32")
    # Four vectors of two numbers, each with the weight 1.
    assert metrics.jacobian_norm(model, x).value == pytest.approx(8.0)
    found = metrics.jacobian_norm(model, x, method="random")
    assert found.value == pytest.approx(8.0)
    assert "call" not in vars(model.layers[1])
