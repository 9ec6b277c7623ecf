import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import decays
from keras_wd import metrics
from keras_wd import optimizers
from tests import catalogue


def network():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(9, kernel_initializer="ones", name="body"),
            layers.BatchNormalization(),
            layers.Dense(2, name="head"),
        ],
        name="net",
    )


SGD, ADAM = keras.optimizers.SGD, keras.optimizers.Adam


@pytest.mark.parametrize(
    "optimizer, expected",
    [
        (SGD(0.9), 0.9 / 36),
        (SGD(0.9, momentum=0.9), 9 / 36),
        (ADAM(0.9), 0.9 / 6),
        (keras.optimizers.Lion(0.3), 0.3 / 6),
        (optimizers.SGDW(0.9, weight_decay=0.1), 0.9 / 36),
        (optimizers.KFAC(0.5), 0.5),
        (keras.optimizers.Lamb(0.5), 0.5),
        (keras.optimizers.LossScaleOptimizer(ADAM(0.6)), 0.1),
    ],
)
def test_the_effective_learning_rate_of_each_family(optimizer, expected):
    model = network()
    found = metrics.effective_learning_rate(model, optimizer)
    assert found == {
        "net/body/kernel": pytest.approx(expected, rel=1e-5),
        "net/head/kernel": None,
    }


def test_the_learning_rate_is_that_of_a_schedule_now():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.9, 1, 0.5)
    optimizer = SGD(schedule)
    model = network()
    model.compile(optimizer, "mse")
    optimizer.iterations.assign(2)
    found = metrics.effective_learning_rate(model)
    assert found["net/body/kernel"] == pytest.approx(0.9 / 4 / 36, rel=1e-5)


def test_the_direction_moves_as_if_the_weight_were_on_the_sphere():
    """SGD on w of norm rho turns it as eta / rho^2 turns w / rho."""
    keras.utils.set_random_seed(0)
    model = network()
    body = model.layers[0]
    body.kernel.assign(np.random.default_rng(0).normal(size=(4, 9)))
    start = np.array(body.kernel.value)
    norm = np.linalg.norm(start)
    x = np.random.default_rng(1).normal(size=(32, 4))
    y = np.random.default_rng(2).normal(size=(32, 2))
    weights = model.get_weights()
    angles = []
    for scale, eta in ((1.0, 0.01), (3.0, 0.09)):
        model.set_weights(weights)
        body.kernel.assign(scale * start)
        model.compile(SGD(eta), "mse")
        rate = metrics.effective_learning_rate(model)["net/body/kernel"]
        assert rate == pytest.approx(0.01 / norm**2, rel=1e-5)
        model.train_on_batch(x, y)
        angles.append(metrics.rotation(start, np.array(body.kernel.value)))
    assert angles[0] == pytest.approx(angles[1], rel=0.02)


def test_an_optimizer_of_unknown_kind():
    with pytest.raises(ValueError, match="known kind: Ad.* Received: Ftrl"):
        metrics.effective_learning_rate(network(), keras.optimizers.Ftrl(0.1))


def test_a_model_that_is_not_compiled():
    with pytest.raises(ValueError, match="`optimizer` must be given"):
        metrics.effective_learning_rate(network())


def test_the_effective_damping_is_that_of_the_unit_weight():
    model = network()
    optimizer = optimizers.WeightDecay(
        optimizers.KFAC(0.1, damping=0.01), decays.L2(0.1)
    )
    found = metrics.effective_damping(model, optimizer)
    assert found == {
        "net/body/kernel": pytest.approx(0.36),
        "net/head/kernel": None,
    }
    with pytest.raises(ValueError, match="must be KFAC .* Received: SGD"):
        metrics.effective_damping(model, SGD(0.1))


@pytest.mark.parametrize("angle", [1e-7, 1e-3, 0.5, 3.0])
def test_rotation_is_exact_for_small_angles(angle):
    after = 5.0 * np.array([[np.cos(angle)], [np.sin(angle)]])
    found = metrics.rotation(np.array([[2.0], [0.0]]), after)
    assert found == pytest.approx(angle, rel=1e-9)


def test_rotation_of_what_has_no_direction():
    with pytest.raises(ValueError, match="must not be zero"):
        metrics.rotation(np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match="must have the shape of `before`"):
        metrics.rotation(np.ones(3), np.ones(4))


def simulated_angle(optimizer, shape=(60, 20), steps=220, seed=0):
    """Mean rotation of columns under noise that is orthogonal to each."""
    rng = np.random.default_rng(seed)
    start = rng.normal(size=shape)
    start /= np.linalg.norm(start, axis=0)
    w = keras.Variable(start, name="kernel")
    optimizer.build([w])
    angles = []
    for step in range(steps):
        before = np.array(w.value, dtype="float64")
        norms = np.linalg.norm(before, axis=0)
        unit = before / norms
        noise = rng.normal(size=shape)
        noise -= unit * np.sum(unit * noise, axis=0)
        gradient = (noise / norms).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
        if step >= 160:
            after = np.array(w.value)
            angles += map(metrics.rotation, before.T, after.T)
    return np.mean(angles)


@pytest.mark.slow(reason="trains until it is reached")
@pytest.mark.parametrize(
    "case",
    catalogue.quick(
        {
            "SGD": (lambda: SGD(0.1), {}),
            "momentum": (lambda: SGD(0.1, momentum=0.5), {}),
            "coupled": (
                lambda: SGD(0.1, momentum=0.5),
                {"coupling": "coupled"},
            ),
            "independent": (lambda: SGD(0.1), {"coupling": "independent"}),
            "Adam": (lambda: ADAM(0.1, beta_2=0.99), {}),
        },
        "SGD",
    ),
)
def test_the_equilibrium_is_where_noise_and_decay_end(case):
    inner, arguments = case
    rate = 0.01 if arguments.get("coupling") == "independent" else 0.1
    optimizer = optimizers.WeightDecay(inner(), decays.L2(rate, **arguments))
    model = network()
    (expected,) = metrics.equilibrium_rotation(model, optimizer).values()
    found = simulated_angle(optimizer)
    assert found == pytest.approx(expected, rel=0.05)


def test_no_formula_where_none_is_known():
    model = network()
    for optimizer in (
        ADAM(0.1),
        optimizers.PAdam(0.1, p=1.5),
        optimizers.WeightDecay(ADAM(0.1), decays.L2(0.1, coupling="coupled")),
        optimizers.WeightDecay(SGD(0.1), [decays.L2(0.1), decays.L1(0.1)]),
    ):
        found = metrics.equilibrium_rotation(model, optimizer)
        assert found == {"net/body/kernel": None}
