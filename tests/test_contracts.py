"""What every public class promises, over the rows of the catalogue."""

import inspect
import json

import keras
import numpy as np
import pytest

import keras_wd
from tests import catalogue
from tests.training import assert_close
from tests.training import assert_equal
from tests.training import network
from tests.training import take_steps
from tests.training import variables

NAMESPACES = (
    keras_wd.constraints,
    keras_wd.decays,
    keras_wd.optimizers,
    keras_wd.metrics,
    keras_wd.regularizers,
    keras_wd.schedules,
    keras_wd.where,
)
TRAINABLE = catalogue.all_optimizers()

each_serializable = pytest.mark.parametrize(
    "make", catalogue.SERIALIZABLE.values(), ids=catalogue.SERIALIZABLE
)
each_way = pytest.mark.parametrize(
    "make",
    catalogue.quick(
        TRAINABLE,
        "PAdam",
        "WeightDecay",
        "SGD + ProximalLp",
        "SGD + GroupLasso coupled",
        "SGD + CPR",
        marks=pytest.mark.every_case,
    ),
)


def test_every_public_class_has_a_row():
    public = {
        cls
        for namespace in NAMESPACES
        for cls in vars(namespace).values()
        if inspect.isclass(cls)
        and cls.__module__.startswith("keras_wd")
        and not cls.__name__.startswith("_")
    }
    rows = {type(make()) for make in catalogue.SERIALIZABLE.values()}
    missing = {cls.__name__ for cls in public - rows}
    # `Rates` and the like are imported for use, not offered.
    offered = {
        name
        for namespace in NAMESPACES
        for name in getattr(namespace, "__all__", dir(namespace))
    }
    assert missing & offered <= catalogue.WITHOUT_ROW


@each_serializable
def test_config_survives_json(make):
    original = make()
    text = json.dumps(keras.saving.serialize_keras_object(original))
    copy = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(copy) is type(original)
    assert copy.get_config() == original.get_config()


@each_serializable
def test_from_config_leaves_the_config_alone(make):
    original = make()
    config = original.get_config()
    before = json.dumps(config)
    type(original).from_config(config)
    assert json.dumps(config) == before


@each_serializable
def test_an_unknown_keyword_raises(make):
    original = make()
    message = "no_such_argument|takes no arguments"
    with pytest.raises((TypeError, ValueError), match=message):
        if isinstance(original, keras_wd.where.Selection):
            type(original)(no_such_argument=1)
        else:
            config = {**original.get_config(), "no_such_argument": 1}
            type(original).from_config(config)


# A network 8-6-3 without the network.
SHAPES = {
    "hidden/kernel": (8, 6),
    "hidden/bias": (6,),
    "output/kernel": (6, 3),
    "output/bias": (3,),
}


def start():
    """Variables with the paths and shapes of a network's, all not zero."""
    rng = np.random.default_rng(0)
    made = []
    for path, shape in SHAPES.items():
        layer, name = path.split("/")
        with keras.name_scope(layer):
            value = rng.normal(size=shape).astype("float32")
            made.append(keras.Variable(value, name=name))
    return made


def gradients(steps, seed=1):
    rng = np.random.default_rng(seed)
    return [
        [rng.normal(size=s).astype("float32") for s in SHAPES.values()]
        for _ in range(steps)
    ]


@each_way
def test_a_loaded_model_takes_the_same_next_step(make, tmp_path):
    model = network()
    model.compile(make(), "mse")
    weights = model.trainable_variables
    take_steps(model.optimizer, weights, gradients(3))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_equal(loaded.get_weights(), model.get_weights())
    before = model.get_weights()
    last = gradients(1, seed=2)
    (expected,) = take_steps(model.optimizer, weights, last)
    (found,) = take_steps(loaded.optimizer, loaded.trainable_variables, last)
    assert_equal(found, expected)
    assert all(np.any(a != b) for a, b in zip(before, found, strict=True))


@each_way
def test_compiled_and_scaled_with_an_overflow_equals_eager(make, compiled):
    expected = take_steps(make(), start(), gradients(4))[-1]
    optimizer = keras.optimizers.LossScaleOptimizer(
        make(), initial_scale=1024.0
    )
    scaled = [[512 * g for g in grads] for grads in gradients(4)]
    # It is skipped, and halves the scale.
    scaled.insert(0, [np.full_like(g, np.inf) for g in scaled[0]])
    found = compiled_steps(compiled, optimizer, start(), scaled)
    # Four steps of rounding in another order, magnified by Adam's division.
    assert_close(expected, found, 3e-6)


def compiled_steps(compiled, optimizer, weights, steps):
    """The weights after the steps, each a call of one compiled program."""
    optimizer.build(weights)
    if keras.backend.backend() != "jax":
        step = compiled(lambda *grads: optimizer.apply(grads, weights))
        for grads in steps:
            step(*grads)
        return [np.asarray(w) for w in weights]
    import jax

    @jax.jit
    def step(values, state, grads):
        return optimizer.stateless_apply(state, grads, values)

    values = [w.value for w in weights]
    state = [v.value for v in optimizer.variables]
    for grads in steps:
        values, state = step(values, state, grads)
    return [np.asarray(value) for value in values]


@each_way
def test_accumulated_gradients_equal_the_big_batch(make):
    parts = gradients(8)
    whole = [
        [(a + b) / 2 for a, b in zip(*pair, strict=True)]
        for pair in zip(parts[::2], parts[1::2], strict=True)
    ]
    expected = take_steps(make(), start(), whole)[-1]
    found = take_steps(make(gradient_accumulation_steps=2), start(), parts)[-1]
    assert_close(expected, found, 3e-6)


INNER = {
    "SGD": dict(momentum=0.9),
    "RMSprop": {},
    "Adam": {},
    "Adagrad": {},
    "Adadelta": {},
    "Adamax": {},
    "Nadam": {},
    "Lion": {},
    "Lamb": {},
    "Adafactor": {},
    "Muon": dict(weight_decay=None, adam_weight_decay=0.0),
}


@pytest.mark.few_cases(3)
@pytest.mark.parametrize(
    "name", catalogue.quick(list(INNER), "SGD", "Adam", "Adafactor", "Muon")
)
def test_strength_zero_is_the_plain_optimizer_bit_for_bit(name):
    def inner():
        return getattr(keras.optimizers, name)(0.05, **INNER[name])

    rng = np.random.default_rng(0)
    start = [rng.normal(size=(4, 3)), rng.normal(size=(2, 2, 3, 2))]
    start[0][0] = 0.0
    gradients = [
        [rng.normal(size=w.shape).astype("float32") for w in start]
        for _ in range(3)
    ]
    idle = [idle_decay(rule) for rule in catalogue.DECAYS]
    plain = take_steps(inner(), variables(start), gradients)
    wrapped = take_steps(
        keras_wd.optimizers.WeightDecay(inner(), idle),
        variables(start),
        gradients,
    )
    for a, b in zip(plain, wrapped, strict=True):
        assert_equal(a, b)


def idle_decay(name):
    """A row of the catalogue at rate zero, on everything."""
    rule = catalogue.DECAYS[name]()
    config = rule.get_config()
    config.update(weight_decay=0.0, where=keras_wd.where.everything())
    return type(rule).from_config(config)
