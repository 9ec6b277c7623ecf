"""Whose state belongs to which variable: exchanged names are never taken."""

import keras
import pytest

from keras_wd.optimizers.matching import SlotNames
from keras_wd.optimizers.matching import match

SHAPE = (4, 4)


def kernels(*layers):
    return [[f"{layer}/kernel", SHAPE] for layer in layers]


SAME = {
    "the very names": (kernels("a", "b"), kernels("a", "b"), [0, 1]),
    "one is frozen": (kernels("a", "b", "c"), kernels("b", "c"), [1, 2]),
    "counters": (kernels("dense", "dense_1"), kernels("dense_2", "dense_3")),
    "counters of two kinds": (
        kernels("dense", "conv2d_3", "dense_1"),
        kernels("dense_4", "conv2d", "dense_7"),
    ),
    "the model's name": (kernels("net/a", "net/b"), kernels("a", "b")),
    "another model's name": (kernels("net/a", "net/b"), kernels("x/a", "x/b")),
    "counters of blocks": (
        kernels("block/query", "block/key", "block_1/query", "block_1/key"),
        kernels("block_4/query", "block_4/key", "block_5/query", "block_5/key"),
    ),
    "frozen inside of a model": (
        kernels("net/a/query", "net/b/query"),
        kernels("b/query"),
        [1],
    ),
}
OTHER = {
    "exchanged": (kernels("layer_1", "layer_2"), kernels("layer_2", "layer_1")),
    "a cycle": (kernels("d", "d_1", "d_2"), kernels("d_1", "d_2", "d")),
    "exchanged words": (kernels("left", "right"), kernels("right", "left")),
    "exchanged blocks": (
        kernels("net/block_1/query", "net/block_2/query"),
        kernels("net/block_2/query", "net/block_1/query"),
    ),
    "a number inside a name": (
        kernels("block_1_conv", "block_2_conv"),
        kernels("block_2_conv", "block_1_conv"),
    ),
    "one more": (kernels("a"), kernels("a", "b")),
    "frozen and counted on": (kernels("d", "d_1", "d_2"), kernels("d_3")),
    "another shape": (kernels("a"), [["a/kernel", (4, 5)]]),
    "one for two": (kernels("d_1", "d_2"), kernels("d_3", "d_3")),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_variables(case):
    saved, current, *positions = SAME[case]
    expected = positions[0] if positions else list(range(len(saved)))
    assert match(saved, current) == expected


@pytest.mark.parametrize("case", OTHER)
def test_other_variables(case):
    saved, current = OTHER[case]
    assert match(saved, current) is None


def test_a_slot_belongs_to_the_longest_path():
    model = [
        keras.Variable([0.0], name="kernel"),
        keras.Variable([0.0], name="kernel_1"),
    ]
    slots = [
        keras.Variable([0.0], name="kernel_1_momentum"),
        keras.Variable([0.0], name="kernel_momentum"),
        keras.Variable(0.0, name="iteration"),
        keras.Variable(0.0, name="iteration"),
    ]
    assert [entry[:4] for entry in SlotNames(slots, model).entries] == [
        ["kernel_1.momentum", 1, "momentum", 0],
        ["kernel.momentum", 0, "momentum", 0],
        ["iteration", None, "iteration", 0],
        ["iteration#1", None, "iteration", 1],
    ]
