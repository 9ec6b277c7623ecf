"""The K-FAC optimizer: its step, its refusals, its state."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_wd import decays
from keras_wd import where
from keras_wd.backend import devices
from keras_wd.kfac import allocation
from keras_wd.kfac import block_inversion
from keras_wd.optimizers.kfac import KFAC
from keras_wd.optimizers.weight_decay import WeightDecay
from tests import catalogue
from tests.kfac.running import array
from tests.kfac.running import mlp
from tests.kfac.running import value

pytestmark = pytest.mark.eager

# Keras saves its variables in a way that NumPy 2 has deprecated.
saves = pytest.mark.filterwarnings("ignore:__array__ implementation")

X = array(1, 8, 3)
Y = np.array([0, 1, 2, 0, 1, 2, 0, 1])
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(optimizer, jit_compile=False):
    model = mlp(4, 3)
    model.compile(optimizer, LOSS, jit_compile=jit_compile)
    return model


def weights(model):
    return [value(v) for v in model.trainable_variables]


def gradients(model):
    """By central differences in float64 of a NumPy forward pass."""
    base = [w.astype("float64") for w in weights(model)]

    def loss(values):
        w0, b0, w1, b1 = values
        z = np.tanh(X @ w0 + b0) @ w1 + b1
        z = z - z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return -log_p[np.arange(len(Y)), Y].mean()

    found = []
    for i, w in enumerate(base):
        grad = np.zeros_like(w)
        for index in np.ndindex(*w.shape):
            ends = []
            for sign in (1, -1):
                moved = [v.copy() for v in base]
                moved[i][index] += sign * 1e-5
                ends.append(loss(moved))
            grad[index] = (ends[0] - ends[1]) / 2e-5
        found.append(grad)
    return found


def directions(optimizer, grads, damping):
    """`A^-1 G S^-1` per layer by a dense Kronecker solve."""
    found = []
    for i, factors in enumerate(optimizer.factors().values()):
        a, s = (
            factors[name].astype("float64")
            for name in ("input_factor", "output_factor")
        )
        pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(s) / len(s)))
        dense = np.kron(
            a + pi * np.sqrt(damping) * np.eye(len(a)),
            s + np.sqrt(damping) / pi * np.eye(len(s)),
        )
        matrix = np.concatenate([grads[2 * i], grads[2 * i + 1][None]])
        solved = np.linalg.solve(dense, matrix.ravel()).reshape(matrix.shape)
        found += [solved[:-1], solved[-1]]
    return found


def with_identity(optimizer, model):
    """Factors that are the identity, and undamped inverses of them."""
    # Only the step is of interest, so only the step is compiled with XLA.
    model.jit_compile = False
    optimizer.update_curvature(model, X)
    model.jit_compile = True
    state = optimizer._curvature.state
    for variable in [f for block in state.factors for f in block]:
        variable.assign(np.eye(variable.shape[0]))
    optimizer.damping = 0.0
    optimizer.update_inverses()


@pytest.mark.compiled
def test_step_is_the_dense_kronecker_solve():
    optimizer = KFAC(0.5, momentum=0.0, kl_clip=None, seed=0)
    model = compiled(optimizer, jit_compile=True)
    model.optimizer.update_curvature(model, X)
    before, grads = weights(model), gradients(model)
    expected = directions(model.optimizer, grads, 0.03)
    model.train_on_batch(X, Y)
    for old, new, step in zip(before, weights(model), expected, strict=True):
        np.testing.assert_allclose(
            (old - new) / 0.5, step, rtol=2e-3, atol=2e-5
        )


SETTINGS = {
    "momentum": {},
    "no momentum": {"momentum": 0.0},
    "clipnorm": {"clipnorm": 0.01},
    "global_clipnorm, weight_decay": {
        "global_clipnorm": 0.01,
        "weight_decay": 0.1,
    },
    "clipvalue": {"clipvalue": 0.01},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 2},
    "use_ema": {
        "use_ema": True,
        "ema_momentum": 0.5,
        "ema_overwrite_frequency": 2,
    },
    "loss_scale_factor": {"loss_scale_factor": 4.0},
}


@pytest.mark.slow(reason="compiles two optimizers")
@pytest.mark.compiled
@pytest.mark.parametrize(
    "arguments",
    catalogue.quick(SETTINGS, "momentum"),
)
def test_identity_factors_are_sgd_bit_for_bit(arguments):
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)
    arguments = {"momentum": 0.9, **arguments}
    models = [
        compiled(optimizer, jit_compile=True)
        for optimizer in (
            KFAC(rate, kl_clip=None, **arguments),
            keras.optimizers.SGD(rate, **arguments),
        )
    ]
    with_identity(models[0].optimizer, models[0])
    for _ in range(4):
        for model in models:
            model.train_on_batch(X, Y)
    for ours, plain in zip(*map(weights, models), strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_accumulated_gradients_are_one_large_batch():
    models = [
        compiled(KFAC(0.1, seed=0, gradient_accumulation_steps=2)),
        compiled(KFAC(0.1, seed=0)),
    ]
    for model in models:
        model.optimizer.update_curvature(model, X)
    for start in (0, 4):
        models[0].train_on_batch(X[start : start + 4], Y[start : start + 4])
    models[1].train_on_batch(X, Y)
    for ours, whole in zip(*map(weights, models), strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-4, atol=1e-6)


def test_kl_clip_bounds_the_step():
    rate, clip = 0.5, 1e-4
    plain, clipped = (
        compiled(KFAC(rate, momentum=0.0, seed=0, kl_clip=c), jit_compile=True)
        for c in (None, clip)
    )
    before, grads = weights(plain), gradients(plain)
    for model in (plain, clipped):
        model.optimizer.update_curvature(model, X)
        model.train_on_batch(X, Y)
    steps = [
        (b - w) / rate for b, w in zip(before, weights(plain), strict=True)
    ]
    quadratic = sum((g * s).sum() for g, s in zip(grads, steps, strict=True))
    scale = min(1.0, np.sqrt(clip / (rate**2 * quadratic)))
    assert scale < 0.5
    for old, new, step in zip(before, weights(clipped), steps, strict=True):
        np.testing.assert_allclose(
            old - new, scale * rate * step, rtol=1e-2, atol=1e-6
        )


def test_variable_without_block_takes_the_plain_gradient():
    model = keras.Sequential(
        [
            keras.Input((3, 1)),
            keras.layers.Conv1DTranspose(2, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    copy = keras.models.clone_model(model)
    copy.set_weights(weights_with_state := [value(v) for v in model.weights])
    assert len(weights_with_state) == 4
    model.compile(KFAC(0.1, seed=0), LOSS, jit_compile=True)
    copy.compile(keras.optimizers.SGD(0.1), LOSS, jit_compile=True)
    model.optimizer.update_curvature(model, X[..., None])
    for one in (model, copy):
        one.train_on_batch(X[..., None], Y)
    ours, plain = weights(model), weights(copy)
    np.testing.assert_allclose(ours[0], plain[0], rtol=1e-5)
    assert np.abs(ours[2] - plain[2]).max() > 1e-3


def test_step_without_curvature_raises():
    model = compiled(KFAC(0.1))
    with pytest.raises(ValueError, match="must measure curvature before"):
        model.train_on_batch(X, Y)


def test_fit_without_curvature_raises():
    model = compiled(WeightDecay(KFAC(0.1), decays.L2(0.1)))
    with pytest.raises(ValueError, match="must measure curvature before"):
        model.fit(X, Y, verbose=0)


def test_measuring_without_inverting_is_not_enough():
    model = compiled(KFAC(0.1))
    model.optimizer.update_curvature(model, X, invert=False)
    with pytest.raises(ValueError, match="must measure curvature before"):
        model.train_on_batch(X, Y)


def test_average_is_free_of_its_start():
    model = compiled(KFAC(0.1, curvature_decay=0.7, estimator="fisher_exact"))
    batches = [array(seed, 4, 3) for seed in range(3)]
    moments = []
    for batch in batches:
        model.optimizer.update_curvature(model, batch, invert=False)
        rows = np.concatenate([batch, np.ones((4, 1))], axis=1)
        moments.append(rows.T @ rows / 4)
    powers = np.array([0.7**2, 0.7, 1.0])
    expected = np.tensordot(powers / powers.sum(), moments, axes=1)
    found = model.optimizer.factors()["net/d0/kernel"]["input_factor"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_batch_with_nan_is_left_out_and_counted():
    model = compiled(KFAC(0.1, seed=0))
    optimizer = model.optimizer
    optimizer.update_curvature(model, X)
    before = optimizer.factors()
    bad = X.copy()
    bad[0, 0] = np.nan
    optimizer.update_curvature(model, bad)
    for name, factors in optimizer.factors().items():
        for key, factor in factors.items():
            np.testing.assert_array_equal(factor, before[name][key])
    numbers = optimizer.diagnostics()
    assert numbers["curvature_skipped"] == 2.0
    assert numbers["curvature_updates"] == 1.0
    assert np.isfinite(model.train_on_batch(X, Y))


def test_singular_factor_is_inverted_with_more_damping():
    model = compiled(KFAC(0.1, damping=0.0, seed=0))
    optimizer = model.optimizer
    # One example: both factors have rank one, and no damping helps.
    optimizer.update_curvature(model, X[:1])
    numbers = optimizer.diagnostics()
    assert numbers["inverse_retries"] > 0
    assert numbers["inverse_failures"] == 0
    assert np.isfinite(model.train_on_batch(X, Y))


def test_hopeless_factor_keeps_the_last_inverse_and_is_counted():
    model = compiled(KFAC(0.1, seed=0))
    optimizer = model.optimizer
    optimizer.update_curvature(model, X)
    state = optimizer._curvature.state
    before = value(state.inverses[0][0])
    state.factors[0][0].assign(-1e3 * np.eye(4))
    optimizer.update_inverses()
    np.testing.assert_array_equal(value(state.inverses[0][0]), before)
    assert optimizer.diagnostics()["inverse_failures"] == 1.0


def test_numpy_inverts_all_where_one_cpu_computes(monkeypatch):
    most = block_inversion.most_by_numpy
    monkeypatch.setattr(devices, "available", lambda: ("cpu", 1))
    assert most([None]) == math.inf
    assert most(["first", "second"]) < math.inf
    monkeypatch.setattr(devices, "available", lambda: ("gpu", 1))
    assert most([None]) < math.inf


@pytest.mark.parametrize("most_by_numpy", [0, 8**3, 9**3])
def test_inverses_are_those_of_the_damped_factors(most_by_numpy, monkeypatch):
    monkeypatch.setattr(
        block_inversion, "most_by_numpy", lambda held: most_by_numpy
    )
    monkeypatch.setattr(allocation, "SPARE", 0.2)
    model = mlp(8, 3, inputs=8)
    optimizer = KFAC(seed=0)
    model.compile(optimizer, LOSS, jit_compile=False)
    optimizer.update_curvature(model, array(1, 8, 8))
    state = optimizer._curvature.state
    for factors, inverses, block in zip(
        state.factors, state.inverses, state.blocks, strict=True
    ):
        means = [np.diag(value(v)).mean() for v in factors]
        shares = block.dampings(means, 0.03, 0.0)
        for factor, inverse, share in zip(
            factors, inverses, shares, strict=True
        ):
            damped = value(factor) + float(share) * np.eye(len(value(factor)))
            exact = np.linalg.inv(damped.astype("float64"))
            np.testing.assert_allclose(value(inverse), exact, rtol=1e-3)
    sizes = optimizer._curvature._inversion[1]._invert._sizes
    shared = {0: {9: 9, 8: 9, 3: 3}, 8**3: {9: 9}, 9**3: {}}
    assert sizes == shared[most_by_numpy]


def test_inverses_compile_with_xla_and_agree(monkeypatch):
    monkeypatch.setattr(block_inversion, "most_by_numpy", lambda held: 0)
    model = compiled(KFAC(0.1, seed=0))
    optimizer = model.optimizer
    optimizer.update_curvature(model, X)
    state = optimizer._curvature.state
    plain = [value(v) for block in state.inverses for v in block]
    optimizer.update_inverses(jit_compile=True)
    fused = [value(v) for block in state.inverses for v in block]
    for one, other in zip(plain, fused, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_damping_follows_a_schedule_and_can_be_set():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [0], [4.0, 1.0]
    )
    model = compiled(KFAC(0.1, damping=schedule, seed=0))
    optimizer = model.optimizer
    optimizer.update_curvature(model, X)
    assert optimizer.diagnostics()["damping"] == 4.0
    model.train_on_batch(X, Y)
    assert optimizer.diagnostics()["damping"] == 1.0
    with pytest.raises(ValueError, match="follows a schedule"):
        optimizer.damping = 0.1
    other = KFAC(0.1)
    other.damping = 0.5
    assert other.get_config()["damping"] == 0.5


@pytest.mark.few_cases(1)
@saves
@pytest.mark.parametrize("wrapped", [False, True])
def test_saved_optimizer_takes_the_identical_next_steps(wrapped, tmp_path):
    optimizer = KFAC(0.1, seed=0, kl_clip=1.0)
    if wrapped:
        optimizer = WeightDecay(optimizer, decays.L2(0.1))
    model = compiled(optimizer)
    for _ in range(2):
        kfac_of(model).update_curvature(model, X)
        model.train_on_batch(X, Y)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for update in (False, True, False):
        for one in (model, again):
            if update:
                kfac_of(one).update_curvature(one, X)
            one.train_on_batch(X, Y)
        for ours, other in zip(weights(model), weights(again), strict=True):
            np.testing.assert_array_equal(ours, other)


def kfac_of(model):
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def test_config_round_trip():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    optimizer = KFAC(
        schedule,
        damping=schedule,
        momentum=0.5,
        curvature_decay=0.6,
        kl_clip=0.2,
        estimator="gauss_newton",
        max_factor_size=7,
        seed=3,
        clipnorm=1.0,
        name="mine",
    )
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(again) == config


def test_loaded_blocks_refuse_another_model():
    model = compiled(KFAC(0.1, seed=0))
    model.optimizer.update_curvature(model, X)
    optimizer = KFAC.from_config(model.optimizer.get_config())
    with pytest.raises(ValueError, match="must be those of the model"):
        optimizer.build(mlp(5, 3).trainable_variables)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"damping": -1.0}, "`damping` must be a finite number >= 0"),
        ({"momentum": 1.0}, "`momentum` must be < 1"),
        ({"curvature_decay": 1.0}, "`curvature_decay` must be < 1"),
        ({"kl_clip": 0.0}, "`kl_clip` must be a finite number > 0"),
        ({"estimator": "fischer"}, "Did you mean 'fisher'"),
        ({"max_factor_size": 0}, "`max_factor_size` must be an integer >= 1"),
        ({"dampening": 1.0}, "not recognized"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        KFAC(0.1, **arguments)


def test_decoupled_decay_is_not_preconditioned_and_coupled_is():
    # The two updates differ by lr * rate * (C^-1 - I) w.
    rate, strength, damping = 0.1, 0.3, 0.05
    models = []
    for coupling in ("decoupled", "coupled"):
        inner = KFAC(rate, damping=damping, momentum=0.0, kl_clip=None, seed=0)
        decay = decays.L2(strength, coupling=coupling, where=where.everything())
        model = compiled(WeightDecay(inner, decay))
        inner.update_curvature(model, X)
        models.append(model)
    before = [w.astype("float64") for w in weights(models[0])]
    inner = models[0].optimizer.inner_optimizer
    solved = directions(inner, before, damping)
    for model in models:
        model.train_on_batch(X, Y)
    for w, v, decoupled, coupled in zip(
        before, solved, *map(weights, models), strict=True
    ):
        np.testing.assert_allclose(
            decoupled - coupled,
            rate * strength * (v - w),
            rtol=5e-3,
            atol=2e-5,
        )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_measures_and_steps(policy):
    full, mixed = mlp(4, 3), mlp(4, 3)
    for layer in mixed.layers:
        layer.dtype_policy = policy
    # Labels come from the same seed but of rounded predictions, so the
    # noise-free estimator is compared.
    for model in (full, mixed):
        model.compile(
            KFAC(0.1, estimator="fisher_exact"), LOSS, jit_compile=True
        )
        model.optimizer.update_curvature(model, X)
    found = mixed.optimizer.factors()
    for name, factors in full.optimizer.factors().items():
        for key, factor in factors.items():
            # bfloat16 has 8 bits.
            np.testing.assert_allclose(
                found[name][key], factor, rtol=0.05, atol=0.02
            )
            assert found[name][key].dtype == np.float32
    assert np.isfinite(mixed.train_on_batch(X, Y))


def test_loss_scaling_outside_is_undone_before_the_step():
    plain = compiled(KFAC(0.1, seed=0, kl_clip=1e-3))
    inner = KFAC(0.1, seed=0, kl_clip=1e-3)
    scaled = compiled(keras.optimizers.LossScaleOptimizer(inner))
    for model, optimizer in ((plain, plain.optimizer), (scaled, inner)):
        optimizer.update_curvature(model, X)
        model.train_on_batch(X, Y)
    for ours, other in zip(weights(plain), weights(scaled), strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-6)


def test_diagnostics_are_the_quadratic_forms():
    model = compiled(KFAC(0.1, damping=1e-3, seed=0))
    optimizer = model.optimizer
    optimizer.update_curvature(model, X)
    model.train_on_batch(X, Y)
    numbers, blocks = optimizer.diagnostics(), optimizer.block_diagnostics()
    w = weights(model)
    norm = trace = 0.0
    for i, (name, factors) in enumerate(optimizer.factors().items()):
        a, s = factors["input_factor"], factors["output_factor"]
        matrix = np.concatenate([w[2 * i], w[2 * i + 1][None]])
        norm += np.trace(matrix.T @ a @ matrix @ s)
        trace += np.trace(a) * np.trace(s)
        own = blocks[name]
        np.testing.assert_allclose(
            own["trace_input_factor"], np.trace(a), rtol=1e-5
        )
        squared = (matrix**2).sum()
        np.testing.assert_allclose(
            own["effective_damping"], squared * 1e-3, rtol=1e-5
        )
    np.testing.assert_allclose(numbers["weight_norm"], norm, rtol=1e-4)
    np.testing.assert_allclose(numbers["curvature_trace"], trace, rtol=1e-4)
    assert numbers["step_kl"] > 0
    assert numbers["compile_seconds"] > 0
    optimizer.update_curvature(model, X)
    numbers = optimizer.diagnostics(products=False)
    assert numbers["curvature_seconds"] > 0
    assert numbers["inverse_seconds"] > 0
    assert "weight_norm" not in numbers


def test_sparse_gradients_of_an_embedding():
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            keras.layers.Embedding(5, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    model.compile(KFAC(0.1, seed=0), LOSS)
    ids = np.random.default_rng(0).integers(0, 5, (8, 3))
    before = value(model.trainable_variables[0])
    model.optimizer.update_curvature(model, ids)
    model.train_on_batch(ids, Y)
    assert np.abs(value(model.trainable_variables[0]) - before).max() > 0
    assert ops.all(ops.isfinite(model.trainable_variables[0]))
