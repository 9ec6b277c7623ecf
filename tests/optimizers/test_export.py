"""What other packages make of a trained model: `pip install .[export]`.

Every row of `tests/doors.py` in LiteRT and ONNX, in a tuner, and in a process
that was spawned.
"""

import multiprocessing
import warnings

import keras
import numpy as np
import pytest

from tests import doors
from tests.training import assert_equal
from tests.training import data

BACKEND = keras.backend.backend()
pytestmark = [
    pytest.mark.slow(reason="every optimizer through packages of others"),
    pytest.mark.one_backend,
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


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras: TensorFlow only")
@pytest.mark.parametrize("name", FLOAT32)
def test_litert_has_the_outputs_of_the_model(name, tmp_path):
    interpreter = needs("ai_edge_litert.interpreter")
    model = doors.trained(name)
    path = str(tmp_path / "model.tflite")
    model.export(path, format="litert", verbose=False)
    program = interpreter.Interpreter(path)
    (inputs,), (outputs,) = (
        program.get_input_details(),
        program.get_output_details(),
    )
    x, _ = data(1)
    program.resize_tensor_input(inputs["index"], x.shape)
    program.allocate_tensors()
    program.set_tensor(inputs["index"], x)
    program.invoke()
    assert_served(model, program.get_tensor(outputs["index"]))


@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="jax2onnx is in no extra of ours"
)
@pytest.mark.parametrize("name", FLOAT32)
def test_onnx_has_the_outputs_of_the_model(name, tmp_path):
    needs("tf2onnx")
    runtime = needs("onnxruntime")
    model = doors.trained(name)
    path = str(tmp_path / "model.onnx")
    model.export(path, format="onnx", verbose=False)
    session = runtime.InferenceSession(path)
    (inputs,) = session.get_inputs()
    assert_served(model, session.run(None, {inputs.name: data(1)[0]})[0])


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


def test_a_spawned_process_goes_on_to_the_same_bits():
    models = [doors.trained(name) for name in doors.ROWS]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(doors.continued, models)
    for model, weights in zip(models, found, strict=True):
        assert_equal(doors.continued(model), weights)
