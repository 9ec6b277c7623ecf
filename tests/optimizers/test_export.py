"""What other packages make of a trained model: `pip install .[export]`.

Every row of `tests/doors.py` in LiteRT and ONNX, in a tuner, and in a process
that was spawned.
"""

import multiprocessing
import warnings

import keras
import numpy as np
import pytest

from keras_wd import optimizers
from tests import doors
from tests.training import assert_equal
from tests.training import data

BACKEND = keras.backend.backend()
pytestmark = [
    pytest.mark.slow(reason="every optimizer through packages of others"),
    # What these packages and Keras warn about is theirs.
    pytest.mark.filterwarnings("ignore"),
]


# LiteRT has no product of float16 or bfloat16 matrices, nor ONNX of bfloat16.
FLOAT32 = [
    name for name, (_, dtype) in doors.ROWS.items() if dtype == "float32"
]


def needs(package):
    """The package, or a skip that says how to get it."""
    return pytest.importorskip(
        package, reason=f"{package} is not installed: pip install '.[export]'"
    )


def assert_served(model, outputs):
    expected = keras.ops.convert_to_numpy(model(data(1)[0]))
    np.testing.assert_allclose(outputs, expected, rtol=1e-6, atol=1e-6)


def litert_outputs(model, path):
    """What LiteRT makes of the exported model."""
    interpreter = needs("ai_edge_litert.interpreter")
    path = str(path / "model.tflite")
    model.export(path, format="litert", verbose=False)
    program = interpreter.Interpreter(path)
    (inputs,), (outputs,) = (
        program.get_input_details(),
        program.get_output_details(),
    )
    x, _ = data(1)
    program.resize_tensor_input(inputs["index"], x.shape)
    program.allocate_tensors()
    program.set_tensor(inputs["index"], x.astype(inputs["dtype"]))
    program.invoke()
    return program.get_tensor(outputs["index"])


def onnx_outputs(model, path):
    """What ONNX Runtime makes of the exported model."""
    needs("tf2onnx")
    runtime = needs("onnxruntime")
    path = str(path / "model.onnx")
    model.export(path, format="onnx", verbose=False)
    session = runtime.InferenceSession(path)
    (inputs,) = session.get_inputs()
    (outputs,) = session.run(None, {inputs.name: data(1)[0]})
    return outputs


on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow",
    reason="Keras writes LiteRT from TensorFlow only; jax2onnx is no extra",
)
served_by = pytest.mark.parametrize("serve", [litert_outputs, onnx_outputs])


@on_tensorflow
@served_by
@pytest.mark.parametrize("name", FLOAT32)
def test_a_served_model_has_the_outputs_of_the_model(name, serve, tmp_path):
    model = doors.trained(name)
    assert_served(model, serve(model, tmp_path))


def served_or_refused(serve, model, path):
    """The outputs, or the class of the error."""
    try:
        return serve(model, path)
    except (pytest.skip.Exception, AssertionError):
        raise
    except Exception as error:
        return type(error)


@on_tensorflow
@served_by
@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"]
)
def test_other_dtypes_are_served_as_with_adam(dtype, serve, tmp_path):
    """What the converters lack is not ours, and not hidden."""
    x, _ = data(1)
    weights, found = None, []
    for optimizer in (keras.optimizers.Adam(), optimizers.PAdam()):
        model = keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Dense(6, "relu", dtype=dtype),
                keras.layers.Dense(3, dtype=dtype),
            ]
        )
        model.compile(optimizer, "mse")
        model.fit(x, x[:, :3], verbose=0)
        weights = weights or model.get_weights()
        model.set_weights(weights)
        found.append(served_or_refused(serve, model, tmp_path))
    plain, ours = found
    if isinstance(plain, type):
        assert ours is plain
    else:
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("name", doors.ROWS)
def test_the_best_model_of_a_tuner_goes_on(name, tmp_path):
    tuners = needs("keras_tuner")

    def build(parameters):
        parameters.Float("unused", 0, 1)
        return doors.network(name)

    tuner = tuners.RandomSearch(
        build, "val_loss", 1, directory=tmp_path, overwrite=True
    )
    x, y = data(1)
    uses = doors.callbacks_for(name, x)
    tuner.search(x, y, verbose=0, validation_data=(x, y), callbacks=uses)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*(restored|afresh)")
        (best,) = tuner.get_best_models(1)
    doors.step(best, 0)
    assert int(best.optimizer.iterations) == 2


class Kept(keras.callbacks.Callback):
    """All values at the end of an epoch, when a checkpoint is written."""

    def on_epoch_end(self, epoch, logs=None):
        model = self.model
        self.values = [
            np.array(keras.ops.convert_to_numpy(variable))
            for variable in model.weights + model.optimizer.variables
        ]

    def restore(self, model):
        variables = model.weights + model.optimizer.variables
        for variable, value in zip(variables, self.values, strict=True):
            variable.assign(value)


@pytest.mark.parametrize("name", doors.ROWS)
def test_an_orbax_checkpoint_goes_on_to_the_same_bits(name, tmp_path):
    needs("orbax.checkpoint")
    # The paths of a Sequential model change when it is loaded, and Keras then
    # restores nothing, whatever the optimizer.
    model = doors.trained(name, functional=True)
    x, y = data(1)
    checkpoint = keras.callbacks.OrbaxCheckpoint(
        tmp_path, save_on_background=False
    )
    kept = Kept()
    model.fit(x, y, verbose=0, callbacks=[checkpoint, kept])
    loaded = keras.models.load_model(tmp_path)
    loaded.run_eagerly = model.run_eagerly
    # The end of `fit` puts an average into the model.
    kept.restore(model)
    assert int(loaded.optimizer.iterations) == 4
    assert doors.goes_on_like(model, loaded)


@pytest.mark.weekly(reason="a process that imports all again")
def test_a_spawned_process_goes_on_to_the_same_bits():
    models = [doors.trained(name) for name in doors.ROWS]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(doors.continued, models)
    for model, weights in zip(models, found, strict=True):
        assert_equal(doors.continued(model), weights)
