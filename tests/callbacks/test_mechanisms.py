import math

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import callbacks
from keras_wd import decays
from keras_wd import metrics
from keras_wd import optimizers
from tests.training import data


def normalized_network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(6, name="body"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dense(3, name="head"),
        ],
        name="net",
    )


def fit(model, optimizer, callback, epochs=2, more=(), **arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # XLA is tried elsewhere, and takes longer than the steps.
    jit = keras.backend.backend() == "jax"
    model.compile(optimizer, loss, jit_compile=jit, **arguments)
    x, y = data()
    return model.fit(
        x,
        y,
        epochs=epochs,
        batch_size=16,
        verbose=0,
        shuffle=False,
        callbacks=[*more, callback],
    ).history


def test_the_logs_are_the_metrics_at_the_end_of_the_epoch(tmp_path):
    model, x = normalized_network(), data()[0]
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    mechanisms = callbacks.Mechanisms(x[:20])
    optimizer = optimizers.SGDW(0.1, weight_decay=0.05, momentum=0.5)
    logs = fit(model, optimizer, table, more=[mechanisms])
    assert logs["weight_norm"][-1] == pytest.approx(metrics.weight_norm(model))
    assert logs["jacobian_norm"][-1] == pytest.approx(
        float(metrics.jacobian_norm(model, x[:20]))
    )
    assert logs["path_norm"][-1] == pytest.approx(metrics.path_norm(model))
    rates = metrics.effective_learning_rate(model)
    assert mechanisms.layers[1] == {
        "net/body/kernel": pytest.approx(rates["net/body/kernel"])
    }
    assert logs["effective_learning_rate"][-1] == pytest.approx(
        rates["net/body/kernel"]
    )
    (angle,) = metrics.equilibrium_rotation(model).values()
    assert logs["equilibrium_rotation"] == pytest.approx([angle] * 2)
    assert logs["zeros"] == [0.0, 0.0]
    assert logs["weight_decay"] == [0.05, 0.05]
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert {"jacobian_norm", "rotation"} <= set(header.split(","))


def test_the_rotation_is_that_of_one_step():
    model, x = normalized_network(), data()[0]

    class Angles(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.weights = []

        def on_train_batch_begin(self, batch, logs=None):
            kernel = self.model.get_layer("body").kernel
            self.weights.append(np.array(kernel.value))

    angles = Angles()
    mechanisms = callbacks.Mechanisms(x)
    logs = fit(model, keras.optimizers.Adam(0.01), mechanisms, more=[angles])
    w = angles.weights
    expected = [metrics.rotation(w[0], w[1]), metrics.rotation(w[4], w[5])]
    assert logs["rotation"] == pytest.approx(expected)


@pytest.mark.slow(reason="trains by K-FAC")
def test_kfac_has_an_effective_damping():
    model, x = normalized_network(), data()[0]
    optimizer = optimizers.WeightDecay(
        optimizers.KFAC(0.01, damping=0.02), decays.L2(0.1)
    )
    logs = fit(
        model,
        optimizer,
        callbacks.Mechanisms(x),
        more=[callbacks.Curvature(x)],
    )
    found = metrics.effective_damping(model)["net/body/kernel"]
    assert logs["effective_damping"][-1] == pytest.approx(found)
    assert logs["effective_learning_rate"] == pytest.approx([0.01] * 2)
    assert "equilibrium_rotation" not in logs


def test_what_does_not_apply_is_not_logged():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    logs = fit(model, keras.optimizers.Adam(), callbacks.Mechanisms(data()[0]))
    assert set(logs) == {
        "loss",
        "weight_norm",
        "zeros",
        "sparsity",
        "jacobian_norm",
    }


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_has_no_structure_to_read():
    model = Subclassed()
    model(np.zeros((1, 8), "float32"))
    logs = fit(model, "sgd", callbacks.Mechanisms(data()[0]))
    assert "jacobian_norm" in logs and "path_norm" not in logs


def test_what_is_not_measured_is_not_logged(tmp_path):
    model = normalized_network()
    mechanisms = callbacks.Mechanisms(data()[0], every=3)
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    halved = keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)
    optimizer = optimizers.SGDW(halved, weight_decay=0.1)
    logs = fit(model, optimizer, table, more=[mechanisms], epochs=5)
    assert mechanisms.jacobian_epochs == [0, 3, 4]
    assert len(logs["jacobian_norm"]) == 3
    lines = (tmp_path / "log.csv").read_text().splitlines()
    rows = [
        dict(zip(lines[0].split(","), line.split(","), strict=True))
        for line in lines[1:]
    ]
    missing = [row["jacobian_norm"] == "NA" for row in rows]
    assert missing == [False, True, True, False, False]
    for name in ("weight_norm", "rotation", "effective_learning_rate"):
        assert len(set(logs[name])) == 5
    assert logs["scale_invariant_weights"] == [1.0] * 5
    # Nothing stale: each epoch's rate over the rate in force is 1 / norm^2.
    assert set(mechanisms.layers) == set(range(5))
    angles = [math.sqrt(2 * 0.1 * 0.5**n * 0.1) for n in range(1, 6)]
    assert logs["equilibrium_rotation"] == pytest.approx(angles)


def test_a_loop_of_single_epochs_counts_on():
    model = normalized_network()
    mechanisms = callbacks.Mechanisms(data()[0])
    for _ in range(3):
        logs = fit_on(model, mechanisms)
        assert len(logs["jacobian_norm"]) == 1
    assert set(mechanisms.layers) == {0, 1, 2}
    assert mechanisms.jacobian_epochs == [0, 1, 2]


def fit_on(model, callback):
    if not model.compiled:
        model.compile("sgd", "mse", run_eagerly=True)
    x = data(1)[0]
    return model.fit(x, x[:, :3], verbose=0, callbacks=[callback]).history


def test_a_weight_that_is_zero_has_no_rotation():
    model = normalized_network()
    body = model.get_layer("body")
    body.set_weights([0 * weight for weight in body.get_weights()])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    logs = fit_on(model, callbacks.Mechanisms(data()[0]))
    assert "rotation" not in logs and logs["effective_learning_rate"]


def test_errors_of_a_model_that_can_be_read_are_not_hidden(monkeypatch):
    def fail(model):
        raise ValueError("a defect")

    monkeypatch.setattr("keras_wd.callbacks.mechanisms.homogeneous_units", fail)
    with pytest.raises(ValueError, match="a defect"):
        fit_on(normalized_network(), callbacks.Mechanisms(data()[0]))


def test_token_ids_and_several_outputs():
    keras.utils.set_random_seed(0)
    ids = keras.Input((6,), dtype="int32")
    table = layers.Embedding(10, 4, name="table")
    h = layers.Flatten()(table(ids))
    h = layers.BatchNormalization()(layers.Dense(8, name="body")(h))
    outputs = [layers.Dense(1)(h), layers.Dense(2)(h)]
    model = keras.Model(ids, outputs)
    model.compile("sgd", ["mse", "mse"], run_eagerly=True)
    x = np.random.default_rng(0).integers(0, 10, (16, 6))
    y = [np.ones((16, 1)), np.ones((16, 2))]
    logs = model.fit(
        x, y, verbose=0, callbacks=[callbacks.Mechanisms(x)]
    ).history
    embedded = keras.Input((6, 4))
    h = embedded
    for layer in model.layers[2:5]:
        h = layer(h)
    tail = keras.Model(
        embedded, layers.Concatenate()([layer(h) for layer in model.layers[5:]])
    )
    expected = metrics.jacobian_norm(tail, table.get_weights()[0][x])
    assert logs["jacobian_norm"][0] == pytest.approx(float(expected), rel=1e-5)


def test_the_rate_is_that_of_every_epoch():
    optimizer = optimizers.SGDW(0.1, weight_decay=0.4)
    halve = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: optimizer.set_weight_decay(
            0.4 / 2 ** (epoch + 1)
        )
    )
    mechanisms = callbacks.Mechanisms(data()[0], every=4)
    logs = fit(
        normalized_network(), optimizer, halve, more=[mechanisms], epochs=3
    )
    assert logs["weight_decay"] == pytest.approx([0.4, 0.2, 0.1])


def test_several_steps_at_once_have_no_rotation():
    model = normalized_network()
    logs = fit(
        model, "sgd", callbacks.Mechanisms(data()[0]), steps_per_execution=2
    )
    assert "rotation" not in logs and "effective_learning_rate" in logs


def test_training_is_not_changed():
    weights = []
    for callback in (
        callbacks.Mechanisms(data()[0]),
        keras.callbacks.Callback(),
    ):
        model = normalized_network()
        fit(model, optimizers.SGDW(0.1, weight_decay=0.1), callback)
        weights.append(model.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_inputs_that_do_not_fit():
    with pytest.raises(ValueError, match="`x` must have examples of shape"):
        fit(normalized_network(), "sgd", callbacks.Mechanisms(np.ones((2, 3))))
    with pytest.raises(ValueError, match="`every` must be an integer >= 1"):
        callbacks.Mechanisms(np.ones((2, 8)), every=0)
