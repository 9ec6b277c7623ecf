"""PathNorm: its step, its penalty, its laws, what it refuses."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

from keras_wd import decays
from keras_wd import graph
from keras_wd import optimizers
from keras_wd import where
from tests.graph import reference

TINY = 1e-30


def chain(widths=(6, 5, 4, 7, 3), use_bias=True, **arguments):
    """Dense layers in pairs, ReLU everywhere, random biases."""
    keras.utils.clear_session(free_memory=False)
    first, *rest = widths
    stack = [
        layers.Dense(n, "relu", use_bias=use_bias, name=f"d{i}", **arguments)
        for i, n in enumerate(rest[:-1])
    ]
    last = layers.Dense(rest[-1], use_bias=use_bias, name="last")
    model = keras.Sequential([keras.Input((first,)), *stack, last])
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.normal(size=variable.shape))
    return model


def selected(rule, model):
    variables = model.trainable_variables
    return [variables[i] for i in rule.select(variables)]


def take_step(rule, model, strength):
    """The decay's step alone."""
    variables = selected(rule, model)
    rule.check(variables)
    made = rule.shrink(
        [ops.convert_to_tensor(v.numpy()) for v in variables],
        [],
        ops.convert_to_tensor(strength, "float32"),
    )
    for variable, values in zip(variables, made, strict=True):
        variable.assign(ops.convert_to_numpy(values).copy())


def arrays(model):
    return [np.asarray(v).astype("float64") for v in model.weights]


def as_pairs(values):
    """Kernels and biases of dense layers as the reference takes them."""
    return [
        dict(zip("wbvc", values[i : i + 4], strict=True))
        for i in range(0, len(values), 4)
    ]


@pytest.mark.parametrize("absorb", [False, True])
@pytest.mark.parametrize("balance", [False, True])
def test_the_step_is_that_of_the_reference(balance, absorb):
    model = chain()
    units = graph.homogeneous_units(model)
    expected = as_pairs(arrays(model))
    rule = decays.PathNorm(1.0, units, balance=balance, absorb=absorb)
    for _ in range(3):
        expected = reference.step(expected, 0.3, balance, absorb)
        take_step(rule, model, 0.3)
    for found, pair in zip(as_pairs(arrays(model)), expected, strict=True):
        for name, value in pair.items():
            np.testing.assert_allclose(
                found[name], value, rtol=2e-5, atol=1e-6, err_msg=name
            )


def test_without_strength_nothing_moves_at_all():
    model = chain()
    before = arrays(model)
    take_step(decays.PathNorm(1.0, graph.homogeneous_units(model)), model, 0.0)
    for a, b in zip(before, arrays(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_smallest_strength_puts_units_on_the_sphere():
    model = chain()
    take_step(decays.PathNorm(1.0, graph.homogeneous_units(model)), model, TINY)
    for name in ("d0", "d2"):
        kernel = np.asarray(model.get_layer(name).kernel)
        np.testing.assert_allclose(reference.input_norms(kernel), 1, rtol=1e-6)


def test_balancing_equalizes_the_path_norms_and_keeps_the_outputs():
    model = chain((6, 5, 4, 7, 3, 5, 2))
    x = np.random.default_rng(1).normal(size=(20, 6)).astype("float32")
    before = ops.convert_to_numpy(model(x))
    rule = decays.PathNorm(1.0, graph.homogeneous_units(model), absorb=True)
    norms = [
        reference.path_norm(pair["w"], pair["v"])
        for pair in as_pairs(arrays(model))
    ]
    assert max(norms) / min(norms) > 1.5
    take_step(rule, model, TINY)
    scale = np.abs(before).max()
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(x)) / scale, before / scale, atol=1e-6
    )
    norms = [
        reference.path_norm(pair["w"], pair["v"])
        for pair in as_pairs(arrays(model))
    ]
    np.testing.assert_allclose(norms, norms[0], rtol=1e-5)
    assert rule.value(model) == pytest.approx(sum(norms), rel=1e-6)


def test_balancing_scales_the_bias_of_a_layer_between_two_pairs():
    stack = [
        layers.Dense(5, "relu", name="a"),
        layers.Dense(4, "relu", name="b"),
        layers.Dense(4, "relu", name="between"),
        layers.Dense(6, "relu", name="c"),
        layers.Dense(2, name="d"),
    ]
    model = keras.Sequential([keras.Input((3,)), *stack])
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.normal(size=variable.shape))
    units = [
        decays.HomogeneousUnits("a/kernel", "b/kernel", "a/bias", "b/bias"),
        decays.HomogeneousUnits(
            "c/kernel",
            "d/kernel",
            "c/bias",
            "d/bias",
            biases_before=["between/bias"],
        ),
    ]
    x = rng.normal(size=(20, 3)).astype("float32")
    before = ops.convert_to_numpy(model(x))
    bias = np.asarray(stack[2].bias).copy()
    take_step(decays.PathNorm(1.0, units, absorb=True), model, TINY)
    scale = np.abs(before).max()
    np.testing.assert_allclose(
        ops.convert_to_numpy(model(x)) / scale, before / scale, atol=2e-6
    )
    assert not np.allclose(np.asarray(stack[2].bias), bias, rtol=0.01)


def test_the_penalty_and_its_gradient():
    model = chain()
    rule = decays.PathNorm(
        1.0, graph.homogeneous_units(model), coupling="coupled"
    )
    variables = selected(rule, model)
    assert [v.path.split("/")[-1] for v in variables] == ["kernel"] * 4
    weights = [np.asarray(v).astype("float64") for v in variables]
    step = 1e-6
    made = rule.gradient([ops.convert_to_tensor(v.numpy()) for v in variables])

    def penalty(values):
        return reference.path_norm(values[0], values[1]) + reference.path_norm(
            values[2], values[3]
        )

    rng = np.random.default_rng(2)
    for index, gradient in enumerate(made):
        direction = rng.normal(size=weights[index].shape)
        moved = [
            [
                w + (sign * step * direction if i == index else 0)
                for i, w in enumerate(weights)
            ]
            for sign in (1, -1)
        ]
        slope = (penalty(moved[0]) - penalty(moved[1])) / (2 * step)
        found = np.sum(ops.convert_to_numpy(gradient) * direction)
        np.testing.assert_allclose(found, slope, rtol=1e-5)


def test_the_gradient_is_finite_where_a_unit_is_zero():
    model = chain()
    model.get_layer("d0").kernel.assign(np.zeros((6, 5)))
    rule = decays.PathNorm(
        1.0, graph.homogeneous_units(model), coupling="coupled"
    )
    made = rule.gradient(
        [ops.convert_to_tensor(v.numpy()) for v in selected(rule, model)]
    )
    assert all(np.isfinite(ops.convert_to_numpy(g)).all() for g in made)
    np.testing.assert_array_equal(ops.convert_to_numpy(made[0]), 0.0)
    np.testing.assert_array_equal(ops.convert_to_numpy(made[1]), 0.0)


def test_a_unit_without_input_weights_keeps_its_bias():
    model = chain()
    kernel = np.asarray(model.get_layer("d0").kernel).copy()
    kernel[:, 2] = 0
    model.get_layer("d0").kernel.assign(kernel)
    bias = float(np.asarray(model.get_layer("d0").bias)[2])
    rule = decays.PathNorm(1.0, graph.homogeneous_units(model), balance=False)
    take_step(rule, model, 0.1)
    assert float(np.asarray(model.get_layer("d0").bias)[2]) == bias


# The laws of the method, on one small problem.


def _data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6)).astype("float32")
    return x, (np.abs(x[:, :1]) + x[:, 1:2]).astype("float32")


def _train(model, optimizer, epochs):
    model.compile(optimizer, "mse", jit_compile=True, steps_per_execution=100)
    x, y = (np.tile(a, (200, 1)) for a in _data())
    model.fit(x, y, 64, epochs=epochs, shuffle=False, verbose=0)


def kernel_pairs(kernels):
    """Kernels of dense layers without biases as the reference takes them."""
    return [
        {"w": kernels[i], "v": kernels[i + 1]}
        for i in range(0, len(kernels), 2)
    ]


def _trained(optimizer_of, epochs=10):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(12, "relu", use_bias=False),
            layers.Dense(8, "relu", use_bias=False),
            layers.Dense(12, "relu", use_bias=False),
            layers.Dense(1, use_bias=False),
        ]
    )
    _train(model, optimizer_of(model), epochs)
    return model


@pytest.fixture(scope="module")
def decayed():
    return _trained(
        lambda model: optimizers.WeightDecay(
            keras.optimizers.SGD(0.1), decays.L2(0.03, coupling="coupled")
        )
    )


@pytest.fixture(scope="module")
def sparse():
    return _trained(lambda model: optimizers.PathProx(model, 0.1, 0.03))


@pytest.mark.weekly(reason="trains to convergence")
@pytest.mark.one_backend
def test_weight_decay_balances_units_and_layers(decayed):
    pairs = kernel_pairs(arrays(decayed))
    for pair in pairs:
        ratio = reference.input_norms(pair["w"]) / reference.output_norms(
            pair["v"], pair["v"].shape[0]
        )
        assert np.median(np.abs(np.log(ratio))) < 0.01
    norms = [reference.path_norm(pair["w"], pair["v"]) for pair in pairs]
    np.testing.assert_allclose(norms[0], norms[1], rtol=0.02)
    squares = sum(
        np.sum(np.square(pair[name])) for pair in pairs for name in "wv"
    )
    # The penalty of weight decay is never below that of the paths.
    assert squares / 2 >= sum(norms) * (1 - 1e-6)
    np.testing.assert_allclose(squares / 2, sum(norms), rtol=0.01)


@pytest.mark.weekly(reason="trains to convergence")
@pytest.mark.one_backend
def test_path_prox_has_exact_zeros_and_weight_decay_none(decayed, sparse):
    def dead(model):
        return sum(
            int((np.abs(pair["v"]).max(axis=1) == 0).sum())
            for pair in kernel_pairs(arrays(model))
        )

    assert dead(decayed) == 0
    assert dead(sparse) >= 6
    smaller = graph.compact(sparse)
    left = smaller.layers[0].units + smaller.layers[2].units
    assert left == 24 - dead(sparse)
    x, _ = _data()
    np.testing.assert_allclose(
        ops.convert_to_numpy(smaller(x)),
        ops.convert_to_numpy(sparse(x)),
        atol=1e-5,
    )


@pytest.mark.slow(reason="trains for long")
@pytest.mark.weekly(reason="a law, not what a change usually breaks")
def test_the_objective_of_path_prox_is_no_higher_late_in_training(
    decayed, sparse
):
    def objective(model):
        x, y = _data()
        loss = np.mean(np.square(ops.convert_to_numpy(model(x)) - y))
        pairs = kernel_pairs(arrays(model))
        return loss + 0.03 * sum(
            reference.path_norm(pair["w"], pair["v"]) for pair in pairs
        )

    assert objective(sparse) <= objective(decayed) * 1.05


@pytest.mark.slow(reason="trains for long")
def test_the_path_norms_bound_the_lipschitz_constant(sparse):
    pairs = kernel_pairs(arrays(sparse))
    bound = np.prod(
        [reference.path_norm(pair["w"], pair["v"]) for pair in pairs]
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 2000, 6)).astype("float32")
    moved = np.linalg.norm(
        ops.convert_to_numpy(sparse(x)) - ops.convert_to_numpy(sparse(y)),
        axis=1,
    )
    steepest = (moved / np.linalg.norm(x - y, axis=1)).max()
    assert 0 < steepest <= bound
    # The mean of the path norms bounds it too, and at balance equally well.
    mean = np.mean(
        [reference.path_norm(pair["w"], pair["v"]) for pair in pairs]
    )
    np.testing.assert_allclose(bound, mean**2, rtol=1e-3)


# What is refused.


def pair(**changes):
    return decays.HomogeneousUnits(
        **{
            "input_kernel": "d0/kernel",
            "output_kernel": "d1/kernel",
            "input_bias": "d0/bias",
            **changes,
        }
    )


def build(rule, model=None, inner=None):
    model = model or chain()
    inner = inner or keras.optimizers.SGD(0.1)
    optimizer = optimizers.WeightDecay(inner, rule)
    optimizer.build(model.trainable_variables)
    return optimizer


REFUSED = {
    "units.*at least one": lambda: decays.PathNorm(1.0, []),
    "units.*HomogeneousUnits. Received: 3": lambda: decays.PathNorm(1.0, [3]),
    "dictionaries of the arguments": lambda: decays.PathNorm(
        1.0, [{"kernel": "a"}]
    ),
    "balance.*True or False": lambda: decays.PathNorm(
        1.0, [pair()], balance="yes"
    ),
    "absorb.*coupled": lambda: decays.PathNorm(
        1.0, [pair()], absorb=True, coupling="coupled"
    ),
    "begin with a pair that stands alone": lambda: decays.PathNorm(
        1.0, [pair(biases_before=[])]
    ),
    "input_kernel.*path of a weight": lambda: pair(input_kernel="/kernel"),
    "inner_biases.*list of paths": lambda: pair(inner_biases="d0/bias"),
    "positions.*integer >= 1": lambda: pair(positions=0),
    "weight_decay": lambda: decays.PathNorm(-1.0, [pair()]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_arguments_are_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


REFUSED_AT_BUILD = {
    "'nowhere/kernel', which is none of": pair(input_kernel="nowhere/kernel"),
    "'kernel', which fits .*d0/kernel, .*d1/kernel": pair(
        input_kernel="kernel"
    ),
    "disjoint.*'d1/kernel' and 'd1/kernel'": pair(
        input_kernel="d1/kernel", input_bias=None
    ),
    "kernels that fit.*positions=2.*which has 5 rows and not 10": pair(
        positions=2
    ),
    "biases that fit.*last/bias.*it must be": pair(input_bias="last/bias"),
    "rows and outputs": pair(output_kernel="d1/bias"),
}


@pytest.mark.parametrize("message", REFUSED_AT_BUILD)
def test_units_that_do_not_fit_are_refused_at_build(message):
    with pytest.raises(ValueError, match=message):
        build(decays.PathNorm(1.0, [REFUSED_AT_BUILD[message]]))


def test_balance_is_refused_where_biases_are_regularized():
    model = chain(bias_regularizer=keras.regularizers.L2(0.1))
    units = graph.homogeneous_units(model)
    with pytest.raises(ValueError, match="balance.*d0/bias has the regular"):
        build(decays.PathNorm(1.0, units), model)
    build(decays.PathNorm(1.0, units, balance=False), model)


def test_balance_is_refused_where_another_decay_acts_on_biases():
    model = chain()
    rule = decays.PathNorm(1.0, graph.homogeneous_units(model))
    variables = model.trainable_variables
    chosen = rule.select(variables)
    biases = where.selected_indices(where.paths("last/bias"), variables)
    with pytest.raises(ValueError, match="balance.*another decay.*last/bias"):
        rule.check_beside(chosen, set(biases), variables)
    kernels = where.selected_indices(where.kernels(), variables)
    rule.check_beside(chosen, set(kernels), variables)


def test_a_pair_without_gradients_is_refused():
    model = chain()
    rule = decays.PathNorm(1.0, graph.homogeneous_units(model))
    with pytest.raises(ValueError, match="units.*1 of 3 without one"):
        rule.restrict([0, 1, 2], {0: None, 2: None})
