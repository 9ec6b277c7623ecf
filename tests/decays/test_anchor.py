"""Decay toward other weights than zero."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import decays
from keras_wd import optimizers
from keras_wd import where
from tests import catalogue
from tests import reference
from tests.training import assert_close
from tests.training import assert_equal
from tests.training import compiled_network
from tests.training import network
from tests.training import take_steps
from tests.training import train
from tests.training import variables

MAKE = {
    "L2": lambda **a: decays.L2(0.3, **a),
    "L1": lambda **a: decays.L1(0.3, **a),
    "GroupLasso": lambda **a: decays.GroupLasso(0.3, **a),
}
SHRINK = {
    "L2": reference.shrink_l2,
    "L1": reference.shrink_l1,
    "GroupLasso": lambda w, before, s: reference.group_soft_threshold(
        w, s, (0,)
    ),
}
KINDS = pytest.mark.parametrize("kind", MAKE)


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def random(shape=(5, 3), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@KINDS
@pytest.mark.parametrize("coupling", ["decoupled", "independent"])
def test_two_steps_are_the_reference_of_the_differences(kind, coupling):
    start, gradients = random(), [[random(seed=1)], [random(seed=2)]]
    optimizer = optimizers.WeightDecay(
        sgd(), MAKE[kind](anchor="start", coupling=coupling)
    )
    ours = [w for (w,) in take_steps(optimizer, variables([start]), gradients)]
    s = 0.3 * (0.1 if coupling == "decoupled" else 1.0)
    before, velocity = np.float64(start), 0.0
    for result, (gradient,) in zip(ours, gradients, strict=True):
        velocity = 0.9 * velocity - 0.1 * gradient
        stepped = before + velocity
        before = start + SHRINK[kind](stepped - start, before - start, s)
        np.testing.assert_allclose(result, before, rtol=1e-5, atol=1e-6)


@KINDS
def test_a_coupled_decay_adds_the_gradient_of_the_difference(kind):
    start, gradients = random(), [[random(seed=1)], [random(seed=2)]]
    decay = MAKE[kind](anchor="start", coupling="coupled")
    optimizer = optimizers.WeightDecay(keras.optimizers.SGD(0.1), decay)
    ours = [w for (w,) in take_steps(optimizer, variables([start]), gradients)]
    before = np.float64(start)
    for result, (gradient,) in zip(ours, gradients, strict=True):
        (term,) = decay.gradient([ops.convert_to_tensor(before - start)])
        before = before - 0.1 * (gradient + 0.3 * ops.convert_to_numpy(term))
        np.testing.assert_allclose(result, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["L1", "GroupLasso"])
def test_weights_that_the_step_leaves_near_end_exactly_at_the_anchor(kind):
    start = random()
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1), MAKE[kind](anchor="start")
    )
    small, large = np.zeros_like(start), np.zeros_like(start)
    small[:, 0], large[:, 1] = 0.1, 50.0
    ((moved,),) = take_steps(optimizer, variables([start]), [[small + large]])
    np.testing.assert_array_equal(moved[:, [0, 2]], start[:, [0, 2]])
    assert np.all(moved[:, 1] < start[:, 1] - 4)


def test_a_cautious_decay_looks_at_the_way_to_the_anchor():
    # Both weights are above their anchor, 1; the step moves the first one
    # closer to it and the second one away.
    weights = variables([[[1.0, 1.0]]])
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(1.0), decays.L2(0.5, anchor="start", cautious=True)
    )
    optimizer.build(weights)
    weights[0].assign([[3.0, 3.0]])
    ((moved,),) = take_steps(optimizer, weights, [[np.float32([[0.5, -0.5]])]])
    np.testing.assert_allclose(moved, [[2.5 - 0.5 * 2, 3.5]])


def test_strength_zero_is_the_plain_optimizer_bit_for_bit():
    plain = train(compiled_network(keras.optimizers.Adam(0.01)))
    ours = train(
        compiled_network(
            optimizers.WeightDecay(
                keras.optimizers.Adam(0.01),
                [
                    decays.L2(0.0, anchor="start"),
                    decays.L1(0.0, anchor="start"),
                ],
            )
        )
    )
    assert_equal(plain, ours)


@pytest.mark.slow(reason="saves, loads and trains")
def test_the_weights_of_a_model_or_of_its_file(tmp_path):
    pretrained = network(seed=5)
    pretrained.save(tmp_path / "pretrained.keras")
    results = []
    for anchor in (pretrained, tmp_path / "pretrained.keras"):
        model = compiled_network(
            optimizers.WeightDecay(
                keras.optimizers.SGD(0.1),
                decays.L2(1.0, coupling="independent", anchor=anchor),
            )
        )
        train(model, batches=1)
        results.append(model.get_weights())
        # At strength 1 the weights go to the anchor by one step.
        x, y = np.zeros((16, 8), "float32"), np.zeros(16)
        model.fit(x, y, batch_size=16, verbose=0)
        kernel = np.array(model.layers[0].kernel)
        np.testing.assert_allclose(
            kernel, np.array(pretrained.layers[0].kernel), atol=1e-6
        )
    assert_equal(*results)


def test_nothing_is_kept_for_what_does_not_decay():
    model = compiled_network(
        optimizers.WeightDecay(sgd(), decays.L2(0.1, anchor="start"))
    )
    model.layers[0].trainable = False
    model.compile(
        optimizers.WeightDecay(sgd(), decays.L2(0.1, anchor="start")), "mse"
    )
    model.optimizer.build(model.trainable_variables)
    kept = [v for v in model.optimizer.variables if "anchor" in v.name]
    assert [tuple(v.shape) for v in kept] == [(6, 3)]


@pytest.mark.eager
def test_under_lora_nothing_is_kept_for_the_frozen_kernel():
    dense = keras.layers.Dense(7)
    model = keras.Sequential([keras.Input((5,)), dense])
    dense.enable_lora(2)
    optimizer = optimizers.WeightDecay(sgd(), decays.L2(0.1, anchor="start"))
    optimizer.build(model.trainable_variables)
    kept = [tuple(v.shape) for v in optimizer.variables if "anchor" in v.name]
    assert sorted(kept) == [(2, 7), (5, 2)]


def test_the_anchors_are_saved_and_the_next_step_is_the_same(tmp_path):
    model = compiled_network(
        optimizers.WeightDecay(
            sgd(),
            decays.L2(0.5, where=where.everything(), anchor=network(seed=5)),
        )
    )
    train(model, batches=2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_equal(train(model, batches=2), train(again, batches=2))


def test_a_file_that_is_gone_does_not_stop_the_loading(tmp_path):
    network(seed=5).save(tmp_path / "pretrained.keras")
    decay = decays.L2(0.1, anchor=str(tmp_path / "pretrained.keras"))
    config = decay.get_config()
    assert config["anchor"].endswith("pretrained.keras")
    (tmp_path / "pretrained.keras").unlink()
    with pytest.warns(UserWarning, match="is not here"):
        again = decays.L2.from_config(config)
    assert again.anchor == "start"


@pytest.mark.slow(reason="compiles a training")
@pytest.mark.parametrize(
    "dtype", catalogue.quick(["bfloat16", "float16"], "bfloat16")
)
def test_the_anchor_has_the_precision_of_the_weights(dtype):
    weights = variables([[[1.0, 2.0]]], dtype)
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.0), decays.L2(0.1, anchor="start")
    )
    optimizer.build(weights)
    (anchor,) = (v for v in optimizer.variables if "anchor" in v.name)
    assert keras.backend.standardize_dtype(anchor.dtype) == dtype
    # Steps smaller than the rounding of the weights still get there.
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.0),
        decays.L2(0.01, anchor="start", coupling="independent"),
    )
    optimizer.build(weights)
    weights[0].assign([[1.5, 2.0]])
    take_steps(optimizer, weights, [[np.zeros((1, 2), "float32")]] * 400)
    np.testing.assert_allclose(
        np.float32(ops.convert_to_numpy(weights[0].value)),
        [[1 + 0.5 * 0.99**400, 2.0]],
        atol=0.01,
    )


@pytest.mark.slow(reason="compiles what test_contracts.py does in one way")
def test_compiled_is_eager():
    def run(jit_compile):
        decay = decays.L2(0.5, where=where.everything(), anchor="start")
        model = compiled_network(
            optimizers.WeightDecay(sgd(), decay), jit_compile
        )
        model.run_eagerly = not jit_compile
        return train(model, batches=3)

    assert_close(run(False), run(True), 1e-5)


@pytest.mark.parametrize(
    "anchor", ["end", "nowhere.keras", 3, np.zeros(3), keras.layers.Dense(3)]
)
def test_what_is_no_anchor_is_refused(anchor):
    with pytest.raises(ValueError, match="`anchor` must be None, 'start', a"):
        decays.L2(0.1, anchor=anchor)


def test_a_model_with_other_weights_is_refused():
    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6)])
    optimizer = optimizers.WeightDecay(sgd(), decays.L2(0.1, anchor=other))
    with pytest.raises(ValueError, match=r"without dense/kernel \(6, 3\)"):
        optimizer.build(network().trainable_variables)


def test_exchanged_layers_follow_their_names():
    def model(first, second):
        return keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(4, name=first),
                keras.layers.Dense(4, name=second),
            ]
        )

    anchor, trained = model("layer_1", "layer_2"), model("layer_2", "layer_1")
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.0),
        decays.L2(1.0, coupling="independent", anchor=anchor),
    )
    variables_of = trained.trainable_variables
    optimizer.apply([ops.zeros(v.shape) for v in variables_of], variables_of)
    np.testing.assert_allclose(
        ops.convert_to_numpy(trained.get_layer("layer_1").kernel),
        ops.convert_to_numpy(anchor.get_layer("layer_1").kernel),
        atol=1e-6,
    )
