"""Large factors and inverses are kept by halves, and it makes no difference."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_wd.kfac import moments
from keras_wd.ops import packed
from keras_wd.optimizers.kfac import KFAC
from tests.kfac.running import array
from tests.kfac.running import mlp
from tests.kfac.running import value

pytestmark = pytest.mark.eager

X = array(1, 8, 5)
Y = np.array([0, 1, 2, 0, 1, 2, 0, 1])


def trained(eigenbasis):
    keras.utils.set_random_seed(0)
    model = mlp(4, 3, inputs=5)
    optimizer = KFAC(0.1, seed=0, eigenbasis=eigenbasis)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=keras.backend.backend() == "jax")
    step(model)
    return model


def step(model):
    model.optimizer.update_curvature(model, X)
    model.train_on_batch(X, Y)


@pytest.mark.slow(reason="compiles K-FAC three times")
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("eigenbasis", [False, True])
def test_packed_state_steps_and_is_saved_like_a_whole_one(
    eigenbasis, monkeypatch, tmp_path
):
    whole = trained(eigenbasis)
    monkeypatch.setattr(packed, "RECTANGLE_ABOVE", 1)
    monkeypatch.setattr(packed, "SPLIT_ABOVE", 2)
    model = trained(eigenbasis)
    blocks = model.optimizer._curvature.state.blocks
    # Factors of 6, 4, 5 and 3 rows; eigenvectors have no mirror image.
    entries = 21 + 10 + 15 + 6
    moments = 6 * 4 + 5 * 3
    inverses = 36 + 16 + 25 + 9 + moments if eigenbasis else 23 + 12 + 17 + 7
    assert sum(block.memory for block in blocks) == 4 * (entries + inverses)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    step(model)
    step(again)
    monkeypatch.undo()
    step(whole)
    for one, loaded, plain in zip(
        model.trainable_variables,
        again.trainable_variables,
        whole.trainable_variables,
        strict=True,
    ):
        np.testing.assert_array_equal(value(one), value(loaded))
        np.testing.assert_allclose(value(one), value(plain), atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [3, 6])
def test_a_moment_is_that_of_its_rows_however_it_is_kept(
    rows, bias, weighted, monkeypatch
):
    monkeypatch.setattr(packed, "RECTANGLE_ABOVE", 1)
    x = array(0, rows, 4)
    weights = np.abs(array(1, rows)) if weighted else np.ones(rows, "float32")
    uses = [(x, weights if weighted else None), (2 * x, None)]
    tensors = [
        [None if one is None else ops.convert_to_tensor(one) for one in use]
        for use in uses
    ]
    found = moments.input_factor(tensors, bias, diagonal=False)
    # A copy with a final 1 is made of few rows only.
    assert (found.shape[0] == found.shape[1]) == (bias and rows == 6)
    if found.shape[0] != found.shape[1]:
        found = packed.from_rectangle(found)
    ones = np.ones((rows, int(bias)))
    a = np.concatenate(
        [np.concatenate([x, ones], 1), np.concatenate([2 * x, ones], 1)]
    )
    c = np.concatenate([weights, np.ones(rows)])
    expected = (a * c[:, None]).T @ a / c.sum()
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), expected, rtol=1e-5, atol=1e-6
    )
    found = moments.output_factor([ops.convert_to_tensor(x)], 5.0, False)
    found = packed.from_rectangle(found)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), x.T @ x / 5, rtol=1e-5, atol=1e-6
    )
