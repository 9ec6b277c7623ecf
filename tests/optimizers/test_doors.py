"""What leaves Keras: SavedModel, LiteRT, ONNX, checkpoints."""

import keras
import numpy as np
import pytest

from tests import doors
from tests.training import assert_close
from tests.training import assert_equal
from tests.training import data

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="TensorFlow's own files are written from the TensorFlow backend",
)


@pytest.mark.few_cases(1)
@on_tensorflow
@pytest.mark.parametrize(
    ("name", "steps"),
    [("WeightDecay", 0), ("WeightDecay(KFAC)", 2), ("bfloat16", 2)],
)
def test_exported_outputs_are_the_models(name, steps, tmp_path):
    import tensorflow as tf

    model = doors.trained(name, steps)
    x, _ = data(1)
    outputs = model.predict(x, verbose=0)
    model.export(tmp_path / "export", verbose=False)
    served = tf.saved_model.load(tmp_path / "export")
    assert_close([np.asarray(served.serve(x), "float32")], [outputs], 1e-6)
    tf.saved_model.save(model, tmp_path / "saved")


@pytest.mark.few_cases(1)
@on_tensorflow
@doors.each_row
def test_a_restored_checkpoint_goes_on_to_the_same_bits(name, tmp_path):
    import tensorflow as tf

    first = doors.trained(name)
    if name == "KFAC":
        # Its blocks are part of the configuration.
        second = keras.models.clone_model(first)
    else:
        second = doors.network(name)
    path = tf.train.Checkpoint(model=first, optimizer=first.optimizer).save(
        tmp_path / "checkpoint"
    )
    if first.optimizer.built:
        doors.step(second, 20)
    status = tf.train.Checkpoint(
        model=second, optimizer=second.optimizer
    ).restore(path)
    status.expect_partial()
    assert_equal(first.get_weights(), second.get_weights())
    assert doors.goes_on_like(first, second)


@on_tensorflow
def test_a_checkpoint_restored_before_the_first_step(tmp_path):
    import tensorflow as tf

    first = doors.trained("WeightDecay")
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=first, optimizer=first.optimizer),
        str(tmp_path),
        max_to_keep=1,
    )
    manager.save()
    second = doors.network("WeightDecay")
    checkpoint = tf.train.Checkpoint(model=second, optimizer=second.optimizer)
    checkpoint.restore(manager.latest_checkpoint)
    assert doors.goes_on_like(first, second)
