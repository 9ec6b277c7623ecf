import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import callbacks
from keras_wd import optimizers
from tests.training import data


def run(weight_decay, callback, epochs=3):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(6, name="one"),
            layers.BatchNormalization(epsilon=1e-12),
            layers.ReLU(),
            layers.Dense(5, name="two"),
            layers.BatchNormalization(epsilon=1e-12),
            layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.SGDW(0.1, weight_decay), loss)
    x, y = data()
    model.fit(x, y, epochs=epochs, verbose=0, callbacks=callback)
    return model


def norm(model, name):
    return np.linalg.norm(model.get_layer(name).get_weights()[0])


@pytest.mark.slow(reason="trains twice")
def test_the_norms_of_the_other_run_are_taken_over():
    recorder = callbacks.NormTransfer()
    decayed = run(0.5, recorder)
    assert len(recorder.norms) == 3
    stored = json.loads(json.dumps(recorder.norms))
    transferred = run(0.0, callbacks.NormTransfer(stored))
    for name in ("one", "two"):
        assert norm(transferred, name) == pytest.approx(norm(decayed, name))
    assert norm(run(0.0, []), "one") > 1.1 * norm(decayed, "one")


class Outputs(keras.callbacks.Callback):
    """The outputs in training mode at the end of every epoch."""

    def __init__(self):
        super().__init__()
        self.outputs = []

    def on_epoch_end(self, epoch, logs=None):
        model = self.model
        x = keras.ops.convert_to_tensor(data()[0])
        kept = [np.array(v.value) for v in model.non_trainable_variables]
        outputs = model(x, training=True)
        self.outputs.append(keras.ops.convert_to_numpy(outputs))
        for v, value in zip(model.non_trainable_variables, kept, strict=True):
            v.assign(value)


def test_the_function_stays_the_same():
    recorder = callbacks.NormTransfer()
    run(0.5, recorder)
    before, after = Outputs(), Outputs()
    transfer = callbacks.NormTransfer(recorder.norms)
    run(0.0, [before, transfer, after])
    for one, other in zip(before.outputs, after.outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.slow(reason="trains several times")
def test_what_does_not_fit():
    recorder = callbacks.NormTransfer()
    run(0.1, recorder, epochs=1)
    with pytest.raises(ValueError, match="an entry for every epoch"):
        run(0.0, callbacks.NormTransfer(recorder.norms), epochs=2)
    with pytest.raises(ValueError, match="one norm for each of one/kernel"):
        run(0.0, callbacks.NormTransfer([{"one/kernel": 1.0}]))
    model = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="has scale-invariant weights"):
        model.fit(
            data()[0],
            np.zeros((64, 3)),
            verbose=0,
            callbacks=[callbacks.NormTransfer()],
        )
