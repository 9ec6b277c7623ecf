import keras
import numpy as np
import pytest

from keras_wd import constraints
from keras_wd import decays
from keras_wd import optimizers
from keras_wd import regularizers
from keras_wd import schedules
from keras_wd import where
from tests import catalogue
from tests import reference
from tests.training import assert_close
from tests.training import assert_equal
from tests.training import compiled_network
from tests.training import data
from tests.training import network
from tests.training import take_steps
from tests.training import train
from tests.training import trained
from tests.training import variables

pytestmark = pytest.mark.eager

STEPS = 5


def problem(seed=0):
    """Two float64 weights and their gradients over a few steps."""
    rng = np.random.default_rng(seed)
    start = [rng.normal(size=(4, 3)), rng.normal(size=(3, 2))]
    gradients = [
        [rng.normal(size=w.shape) for w in start] for _ in range(STEPS)
    ]
    return start, gradients


def as_float32(gradients):
    return [[g.astype("float32") for g in grads] for grads in gradients]


SHRINK = {
    "L2": (lambda c: decays.L2(0.3, coupling=c), reference.shrink_l2),
    "L1": (lambda c: decays.L1(0.3, coupling=c), reference.shrink_l1),
    "Lp 0.8": (
        lambda c: decays.Lp(0.3, p=0.8, coupling=c),
        lambda w, b, s: reference.shrink_lp(w, b, s, 0.8),
    ),
    "Lp 2.7": (
        lambda c: decays.Lp(0.3, p=2.7, coupling=c),
        lambda w, b, s: reference.shrink_lp(w, b, s, 2.7),
    ),
    "ProximalLp": (
        lambda c: decays.ProximalLp(0.3, p=0.6, coupling=c),
        lambda w, b, s: reference.prox_lp(w, s, 0.6),
    ),
    "GroupLasso": (
        lambda c: decays.GroupLasso(0.3, coupling=c),
        lambda w, b, s: reference.group_soft_threshold(w, s, 0),
    ),
}
GRADIENT = {
    "L2": (decays.L2, {}, lambda w: w),
    "L1": (decays.L1, {}, np.sign),
    "Lp 1.3": (
        decays.Lp,
        {"p": 1.3},
        lambda w: reference.lp_gradient(w, 1.3),
    ),
    "GroupLasso": (
        decays.GroupLasso,
        {},
        lambda w: reference.group_gradient(w, 0),
    ),
}
INNER = {
    "SGD": (
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        lambda: reference.SGD(momentum=0.9),
    ),
    "Adam": (lambda: keras.optimizers.Adam(0.1), reference.Adam),
}
each_inner = pytest.mark.parametrize("inner", INNER)


@pytest.mark.few_cases(3)
@each_inner
@pytest.mark.parametrize("coupling", ["decoupled", "independent"])
@pytest.mark.parametrize("rule", SHRINK)
def test_a_trajectory_follows_the_formula(inner, coupling, rule):
    start, gradients = problem()
    make_rule, shrink = SHRINK[rule]
    make_inner, make_reference = INNER[inner]
    optimizer = optimizers.WeightDecay(make_inner(), make_rule(coupling))
    found = take_steps(optimizer, variables(start), as_float32(gradients))

    stepper, weights = make_reference(), start
    strength = 0.03 if coupling == "decoupled" else 0.3
    for grads, after in zip(gradients, found, strict=True):
        weights = reference.decoupled_step(
            stepper, weights, grads, 0.1, shrink, strength
        )
        assert_close(after, weights, 1e-5)


@each_inner
@pytest.mark.parametrize("rule", GRADIENT)
def test_a_coupled_trajectory_follows_the_formula(inner, rule):
    start, gradients = problem()
    kind, arguments, gradient = GRADIENT[rule]
    make_inner, make_reference = INNER[inner]
    optimizer = optimizers.WeightDecay(
        make_inner(), kind(0.3, coupling="coupled", **arguments)
    )
    found = take_steps(optimizer, variables(start), as_float32(gradients))

    stepper, weights = make_reference(), start
    for grads, after in zip(gradients, found, strict=True):
        weights = reference.coupled_step(
            stepper, weights, grads, 0.1, gradient, 0.3
        )
        assert_close(after, weights, 1e-5)


def test_adamw_of_keras_is_reproduced_to_rounding():
    cosine = keras.optimizers.schedules.CosineDecay(0.1, 60)
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(20, 10)), rng.normal(size=10)]
    gradients = [
        [rng.normal(size=w.shape).astype("float32") for w in start]
        for _ in range(50)
    ]
    theirs = take_steps(
        keras.optimizers.AdamW(cosine, weight_decay=0.1),
        variables(start),
        gradients,
    )
    ours = take_steps(
        optimizers.WeightDecay(
            keras.optimizers.Adam(cosine),
            decays.L2(0.1, where=where.everything()),
        ),
        variables(start),
        gradients,
    )
    largest = max(np.abs(w).max() for w in theirs[-1])
    ulp = np.spacing(np.float32(largest))
    # Each of the two updates of a step rounds once, at most half an ulp of
    # the largest weight; over 50 steps far fewer than 50 of them add up.
    for a, b in zip(theirs[-1], ours[-1], strict=True):
        assert np.abs(a - b).max() <= 8 * ulp
    assert any(
        np.any(a != b) for a, b in zip(theirs[0], theirs[1], strict=True)
    )


def test_coupled_l2_is_half_of_the_keras_regularizer():
    ours = trained(
        optimizers.WeightDecay(
            keras.optimizers.SGD(0.1),
            decays.L2(
                0.2, coupling="coupled", where=where.paths("dense/kernel")
            ),
        )
    )
    theirs = trained(keras.optimizers.SGD(0.1), kernel_regularizer="l2")
    strong = trained(
        keras.optimizers.SGD(0.1),
        kernel_regularizer=keras.regularizers.L2(0.1),
    )
    assert_close(ours, strong, 1e-6)
    assert np.abs(ours[0] - theirs[0]).max() > 1e-4


@pytest.mark.parametrize("p", [0.8, 1.5])
def test_the_regularizer_is_the_coupled_decay(p):
    ours = trained(
        optimizers.WeightDecay(
            keras.optimizers.SGD(0.1),
            decays.Lp(
                0.05, p=p, coupling="coupled", where=where.paths("dense/kernel")
            ),
        )
    )
    theirs = trained(
        keras.optimizers.SGD(0.1), kernel_regularizer=regularizers.Lp(0.05, p=p)
    )
    assert_close(ours, theirs, 2e-6)


def test_decays_are_applied_in_the_order_given():
    start, gradients = problem()
    found = {}
    for order in (("L2", "L1"), ("L1", "L2")):
        rules = [SHRINK[name][0]("independent") for name in order]
        optimizer = optimizers.WeightDecay(keras.optimizers.SGD(0.1), rules)
        found[order] = take_steps(
            optimizer, variables(start), as_float32(gradients[:1])
        )[0]
        weights = [
            w - 0.1 * g for w, g in zip(start, gradients[0], strict=True)
        ]
        for name in order:
            weights = [
                SHRINK[name][1](w, b, 0.3)
                for w, b in zip(weights, start, strict=True)
            ]
        assert_close(found[order], weights, 1e-6)
    assert np.abs(found["L2", "L1"][0] - found["L1", "L2"][0]).max() > 1e-3


def test_a_constant_schedule_is_a_number():
    start, gradients = problem()

    def steps(rate):
        return take_steps(
            optimizers.WeightDecay(keras.optimizers.Adam(0.1), decays.L2(rate)),
            variables(start),
            as_float32(gradients),
        )[-1]

    assert_equal(steps(0.25), steps(schedules.Stepwise([0.25], steps=1)))


def test_a_schedule_is_a_function_of_real_updates():
    rates = [0.5, 0.25, 0.125]
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        decays.L2(schedules.Stepwise(rates, steps=1), coupling="independent"),
    )
    seen = []
    weights = variables([np.ones((1, 1))])
    nothing = [[np.zeros((1, 1), "float32")]]
    for _ in range(6):
        seen.append(optimizer.current_weight_decay()["l2"])
        history = take_steps(optimizer, weights, nothing)
    assert seen == [0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    np.testing.assert_allclose(history[-1][0], 0.5 * 0.75 * 0.875, rtol=1e-6)


def test_the_average_is_of_the_decayed_weights_of_real_updates():
    start, gradients = problem()
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        decays.L1(0.5),
        use_ema=True,
        ema_momentum=0.7,
    )
    doubled = [g for grads in as_float32(gradients) for g in (grads, grads)]
    weights = variables(start)
    history = take_steps(optimizer, weights, doubled)
    average = reference.ExponentialAverage(0.7)
    for after in history[1::2]:
        expected = average.update([w.astype("float64") for w in after])
    averages = [v for v in optimizer.variables if v.name.endswith("_average")]
    assert_close([v.numpy() for v in averages], expected, 1e-6)
    optimizer.finalize_variable_values(weights)
    assert_close([w.numpy() for w in weights], expected, 1e-6)


def test_the_average_overwrites_the_weights_when_it_is_due():
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1),
        decays.L2(1.0),
        use_ema=True,
        ema_momentum=0.5,
        ema_overwrite_frequency=2,
    )
    nothing = [[np.zeros((1, 1), "float32")]]
    weights = variables([np.ones((1, 1))])
    first = take_steps(optimizer, weights, nothing)[0][0]
    second = take_steps(optimizer, weights, nothing)[0][0]
    np.testing.assert_allclose(first, 0.9, rtol=1e-6)
    np.testing.assert_allclose(second, (0.9 + 0.81) / 2, rtol=1e-6)


class KeepWeights(keras.callbacks.Callback):
    """The weights after every batch."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_train_batch_end(self, batch, logs=None):
        self.kept.append(self.model.get_weights())


def test_swap_ema_weights_finds_the_averages():
    model = compiled_network(
        optimizers.SGDW(0.1, weight_decay=0.5, use_ema=True, ema_momentum=0.9)
    )
    x, y = data()
    keep = KeepWeights()
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    model.fit(
        x,
        y,
        batch_size=16,
        shuffle=False,
        verbose=0,
        callbacks=[keep, swap],
    )
    average = reference.ExponentialAverage(0.9)
    for weights in keep.kept:
        expected = average.update([w.astype("float64") for w in weights])
    assert_close(model.get_weights(), expected, 1e-6)


def test_training_goes_on_after_the_average_took_over():
    # Keras's own average makes the second `fit` fail on JAX.
    model = compiled_network(optimizers.SGDW(0.1, use_ema=True))
    first = train(model)
    assert np.any(first[0] != train(model)[0])


def test_a_constraint_holds_after_the_decay():
    sphere = constraints.FixedNorm()
    weights = trained(
        optimizers.SGDW(0.1, weight_decay=2.0), kernel_constraint=sphere
    )
    np.testing.assert_allclose(
        np.linalg.norm(weights[0], axis=0), 1.0, rtol=1e-6
    )


@pytest.mark.parametrize(
    "clipping",
    [{"clipnorm": 0.1}, {"clipvalue": 0.01}, {"global_clipnorm": 0.1}],
)
def test_clipping_is_of_the_gradient_and_not_of_the_decay(clipping):
    start, gradients = problem()
    gradients = as_float32(gradients[:1])
    plain = take_steps(
        keras.optimizers.SGD(0.1, **clipping), variables(start), gradients
    )[0]
    decayed = take_steps(
        optimizers.WeightDecay(
            keras.optimizers.SGD(0.1, **clipping), decays.L2(3.0)
        ),
        variables(start),
        gradients,
    )[0]
    expected = [p - 0.3 * w for p, w in zip(plain, start, strict=True)]
    assert_close(decayed, expected, 1e-6)


def test_a_static_loss_scale_leaves_a_coupled_decay_alone():
    def weights(**scale):
        return trained(
            optimizers.WeightDecay(
                keras.optimizers.SGD(0.1, **scale),
                decays.L2(0.5, coupling="coupled"),
            )
        )

    assert_close(weights(), weights(loss_scale_factor=64.0), 1e-6)


class SetRate(keras.callbacks.Callback):
    """Change the rate after the second batch."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.model.optimizer.set_weight_decay(0.0)


@pytest.mark.compiled
def test_a_callback_changes_the_rate_of_a_compiled_program(tmp_path):
    model = compiled_network(
        optimizers.SGDW(0.1, weight_decay=0.9), jit_compile=True
    )
    x, y = data(4)
    model.fit(
        x, y, batch_size=16, shuffle=False, verbose=0, callbacks=[SetRate()]
    )
    two = compiled_network(optimizers.SGDW(0.1, weight_decay=0.9))
    two.fit(x[:32], y[:32], batch_size=16, shuffle=False, verbose=0)
    rest = compiled_network(optimizers.SGDW(0.1, weight_decay=0.0))
    rest.set_weights(two.get_weights())
    rest.fit(x[32:], y[32:], batch_size=16, shuffle=False, verbose=0)
    assert_close(model.get_weights(), rest.get_weights(), 1e-6)
    assert model.optimizer.current_weight_decay() == {"l2": 0.0}
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.current_weight_decay() == {"l2": 0.0}


def test_setting_a_scheduled_or_unknown_rate_raises():
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(0.1),
        [decays.L2(schedules.WarmupHold(0.1, 3)), decays.L1(0.1)],
    )
    with pytest.raises(ValueError, match="follows the schedule"):
        optimizer.set_weight_decay(0.1, "l2")
    with pytest.raises(ValueError, match="one of 'l2', 'l1'"):
        optimizer.set_weight_decay(0.1)
    with pytest.raises(ValueError, match="Received: value=-1"):
        optimizer.set_weight_decay(-1, "l1")


def test_the_learning_rate_is_the_inner_one():
    optimizer = optimizers.SGDW(0.1)
    optimizer.learning_rate = 0.025
    start, gradients = problem()
    found = take_steps(optimizer, variables(start), as_float32(gradients[:1]))
    plain = [
        w - 0.025 * g - 0.025 * 5e-4 * w
        for w, g in zip(start, gradients[0], strict=True)
    ]
    assert_close(found[0], plain, 1e-6)


@pytest.mark.few_cases(1)
@pytest.mark.parametrize(
    "dtype", catalogue.quick(["bfloat16", "float16"], "bfloat16")
)
@pytest.mark.parametrize("strength", catalogue.quick([1e-4, 1e-6], 1e-6))
def test_low_precision_variables_really_decay(dtype, strength):
    steps = 200
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(1.0), decays.L2(strength)
    )
    weights = variables([np.ones((2, 2)), np.full((2, 2), 0.3)], dtype)
    start = [w.numpy().astype("float64") for w in weights]
    nothing = [[np.zeros((2, 2), dtype)] * 2] * steps
    take_steps(optimizer, weights, nothing)
    unrounded = [
        v.numpy() for v in optimizer.variables if "unrounded" in v.name
    ]
    for w, first, found in zip(weights, start, unrounded, strict=True):
        exact = first * (1 - strength) ** steps
        np.testing.assert_allclose(found, exact, rtol=2e-5)
        np.testing.assert_array_equal(found.astype(dtype), w.numpy())


def test_low_precision_decay_reaches_the_variable_itself():
    optimizer = optimizers.WeightDecay(
        keras.optimizers.SGD(1.0), decays.L2(1e-4)
    )
    weights = variables([np.ones((2, 2))], "bfloat16")
    take_steps(optimizer, weights, [[np.zeros((2, 2), "bfloat16")]] * 100)
    # Keras's own decay leaves exactly 1.
    np.testing.assert_allclose(
        weights[0].numpy().astype("float32"), 0.99, atol=2**-9
    )


def test_float32_variables_need_no_more():
    optimizer = optimizers.PAdam()
    optimizer.build(network().trainable_variables)
    assert not [v for v in optimizer.variables if "unrounded" in v.name]


def test_a_variable_without_gradient_is_left_alone():
    optimizer = optimizers.SGDW(0.1, weight_decay=1.0)
    weights = variables([np.ones((2, 2)), np.ones((2, 2))])
    optimizer.build(weights)
    ones = keras.ops.ones((2, 2))
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([ones, None], weights)
    np.testing.assert_array_equal(weights[1].numpy(), 1.0)
    np.testing.assert_allclose(weights[0].numpy(), 0.8, rtol=1e-6)


def test_a_frozen_layer_does_not_decay():
    model = network()
    model.layers[0].trainable = False
    before = model.get_weights()
    model.compile(optimizers.SGDW(0.1, weight_decay=1.0), "mse")
    x, y = data(1)
    model.fit(x, keras.utils.to_categorical(y, 3), verbose=0)
    assert_equal(before[:2], model.get_weights()[:2])
    assert np.any(before[2] != model.get_weights()[2])


@pytest.mark.parametrize("coupling", ["coupled", "decoupled"])
def test_every_row_of_an_embedding_decays(coupling):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Embedding(5, 3)])
    before = model.get_weights()[0]
    rule = decays.L2(1.0, coupling=coupling)
    model.compile(
        optimizers.WeightDecay(keras.optimizers.SGD(0.1), rule), "mse"
    )
    model.fit(
        np.zeros((4, 2), "int32"), np.zeros((4, 2, 3)), batch_size=4, verbose=0
    )
    np.testing.assert_allclose(
        model.get_weights()[0][1:], 0.9 * before[1:], rtol=1e-6
    )


def test_multi_optimizer_trains_and_saves_decaying_parts(tmp_path):
    def parts():
        return keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(
                optimizers.SGDW(0.1, weight_decay=0.5),
                {".*dense_1/.*": optimizers.PAdam(0.01, weight_decay=0.1)},
            )
        )

    model = compiled_network(parts())
    train(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(train(model, 1), train(loaded, 1))


def test_apply_needs_as_many_gradients_as_variables():
    optimizer = optimizers.SGDW()
    weights = variables([np.ones((2, 2)), np.ones((2, 2))])
    with pytest.raises(ValueError, match="trainable_variables=None"):
        optimizer.apply([keras.ops.ones((2, 2))])
    with pytest.raises(ValueError, match="1 gradients for 2 variables"):
        optimizer.apply([keras.ops.ones((2, 2))], weights)


@pytest.mark.parametrize(
    "jit_compile",
    [
        False,
        pytest.param(
            True,
            marks=[
                pytest.mark.compiled,
                pytest.mark.weekly(reason="compiles four times"),
            ],
        ),
    ],
)
def test_a_model_that_its_first_batch_builds_trains_the_same(jit_compile):
    def network():
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [keras.layers.Dense(6, "relu"), keras.layers.Dense(3)]
        )

    trained = []
    for build in (False, True):
        model = network()
        if build:
            model.build((None, 8))
        model.compile(
            optimizers.WeightDecay(
                keras.optimizers.Adam(0.01),
                [decays.Lp(0.1, p=0.8), decays.L1(0.01)],
                use_ema=True,
            ),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit_compile,
        )
        trained.append(train(model))
    assert_equal(*trained)
