"""What is deployed of a pruned model: `pip install .[export]`."""

import os

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import callbacks
from keras_wd import graph
from keras_wd.graph import verify
from keras_wd.graph.litert import measured
from keras_wd.graph.structure import read
from tests.graph.architectures import randomize

pytestmark = [
    pytest.mark.slow(reason="LiteRT converts models"),
    pytest.mark.one_backend,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="Keras exports LiteRT from TensorFlow only",
    ),
    # What this package and Keras warn about is theirs.
    pytest.mark.filterwarnings("ignore"),
]


def served(model, path, x):
    """The outputs of the exported model, and the bytes of its file."""
    interpreter = pytest.importorskip(
        "ai_edge_litert.interpreter",
        reason="ai_edge_litert is not installed: pip install '.[export]'",
    )
    model.export(path, format="litert", verbose=False)
    program = interpreter.Interpreter(path)
    (inputs,) = program.get_input_details()
    (outputs,) = program.get_output_details()
    program.resize_tensor_input(inputs["index"], x.shape)
    program.allocate_tensors()
    program.set_tensor(inputs["index"], x)
    program.invoke()
    return program.get_tensor(outputs["index"]), os.path.getsize(path)


def mobile():
    model = keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=5
    )
    return randomize(model)


def attention():
    inputs = keras.Input((6, 16))
    x = layers.MultiHeadAttention(4, 4, name="mix")(inputs, inputs)
    x = layers.LayerNormalization()(layers.Add()([inputs, x]))
    x = layers.Dense(32, "gelu", name="inner")(x)
    x = layers.GlobalAveragePooling1D()(layers.Dense(16, name="down")(x))
    return randomize(keras.Model(inputs, layers.Dense(3)(x)))


def trained():
    """Pruned while it was trained."""
    model = randomize(
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(32, 3, activation="relu"),
                layers.SeparableConv2D(32, 3, activation="relu"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(64, "relu"),
                layers.Dense(3),
            ]
        )
    )
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 3))
    pruning = callbacks.GradualPruning(0.6, steps=3, every=1)
    model.fit(x, x[:, 0, 0], batch_size=8, verbose=0, callbacks=[pruning])
    return model


@pytest.mark.parametrize("build", [mobile, attention, trained])
def test_a_smaller_model_is_served_with_its_outputs(build, tmp_path):
    model = build()
    if build is trained:
        smaller, report = graph.compact(model, report=True, batch_size=None)
    else:
        smaller, report = graph.prune(
            model, ratio=0.5, round_to=4, report=True, batch_size=None
        )
    x = np.random.default_rng(1).normal(size=(4, *model.input_shape[1:]))
    x = x.astype("float32")
    _, before = served(model, str(tmp_path / "whole.tflite"), x)
    found, after = served(smaller, str(tmp_path / "smaller.tflite"), x)
    expected = keras.ops.convert_to_numpy(smaller(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if build is trained:
        whole = keras.ops.convert_to_numpy(model(x))
        np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-5)
    # As much smaller as the report says of the weights, but for the program.
    saved = report.before.dense_bytes - report.after.dense_bytes
    assert saved > 0
    assert before - after > 0.8 * saved


def two_inputs():
    """Inputs by name, and an output of each kind."""
    left, right = keras.Input((12,), name="left"), keras.Input((5,), name="b")
    x = layers.Dense(32, "relu", name="one")(left)
    x = layers.Concatenate()([x, layers.Dense(32, "relu", name="two")(right)])
    made = {"sum": layers.Dense(1)(x), "kinds": layers.Dense(4)(x)}
    return randomize(keras.Model({"left": left, "b": right}, made))


@pytest.mark.parametrize("build", [mobile, two_inputs])
def test_the_report_has_sizes_and_times_of_litert(build):
    pytest.importorskip("ai_edge_litert.interpreter")
    model = build()
    smaller, report = graph.prune(
        model, ratio=0.5, round_to=4, report=True, batch_size=3, litert=True
    )
    before, after = report.litert_before, report.litert_after
    saved = report.before.dense_bytes - report.after.dense_bytes
    assert before.file_bytes - after.file_bytes > 0.8 * saved > 0
    assert before.milliseconds > 0 and after.milliseconds > 0
    assert "LiteRT, batch of 3, ms" in str(report)
    _, untimed = graph.compact(
        smaller, report=True, batch_size=None, litert=True
    )
    assert untimed.litert_before == untimed.litert_after
    assert untimed.litert_before.milliseconds is None
    assert untimed.litert_before.file_bytes == after.file_bytes
    # Outputs that differ are not reported as a size.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "difference", lambda *outputs: 1.0)
        with pytest.raises(ValueError, match="same outputs in LiteRT"):
            measured(
                {"one": smaller}, verify.examples(model, read(model)), False
            )
