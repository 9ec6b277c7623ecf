"""Symmetric matrices without their mirror images."""

import math

import numpy as np
import pytest
from keras import ops

from keras_wd.ops import packed


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    """Matrices of test size are packed, and split several times."""
    monkeypatch.setattr(packed, "RECTANGLE_ABOVE", 1)
    monkeypatch.setattr(packed, "SPLIT_ABOVE", 3)


def symmetric(size):
    root = np.random.default_rng(size).normal(size=(size, size))
    return (root + root.T).astype("float32")


def array(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("size", [2, 3, 8, 9])
def test_a_rectangle_has_half_the_entries_and_is_the_matrix(size):
    matrix = symmetric(size)
    found = packed.rectangle(ops.convert_to_tensor(matrix))
    assert tuple(found.shape) == packed.rectangle_shape(matrix.shape)
    assert math.prod(found.shape) == size * (size + 1) // 2
    back = ops.convert_to_numpy(packed.from_rectangle(found))
    np.testing.assert_array_equal(back, matrix)
    back = packed.from_rectangle(ops.convert_to_numpy(found), np)
    np.testing.assert_array_equal(back, matrix)
    back = packed.lower_of_rectangle(ops.convert_to_numpy(found))
    np.testing.assert_array_equal(np.tril(back), np.tril(matrix))
    assert np.isin(back, [*matrix.flat, 0.0]).all()


@pytest.mark.parametrize("size", [4, 5, 9, 14])
def test_blocks_multiply_as_the_matrix_does(size):
    matrix = symmetric(size)
    blocks = packed.split(matrix)
    assert [b.shape for b in blocks] == packed.split_shapes(matrix.shape)
    blocks = [ops.convert_to_tensor(block) for block in blocks]
    kept = packed.Split(blocks, matrix.shape)
    right, left = array(size, 3), array(3, size)
    for found, exact in (
        (kept.times(ops.convert_to_tensor(right)), matrix @ right),
        (kept.times(ops.convert_to_tensor(left), True), left @ matrix),
    ):
        np.testing.assert_allclose(
            ops.convert_to_numpy(found), exact, rtol=1e-5, atol=1e-5
        )
