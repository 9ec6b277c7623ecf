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
from tests.training import compiled_network
from tests.training import data
from tests.training import take_steps
from tests.training import train
from tests.training import trained
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
each_optimizer = pytest.mark.parametrize(
    "make", TRAINABLE.values(), ids=TRAINABLE
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


@each_optimizer
def test_a_loaded_model_takes_the_same_next_step(make, tmp_path):
    model = compiled_network(make(), jit_compile=True)
    train(model, batches=3)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert_equal(loaded.get_weights(), model.get_weights())
    x, y = data(1, seed=1)
    before = model.get_weights()
    for network in (model, loaded):
        network.train_on_batch(x, y)
    assert_equal(loaded.get_weights(), model.get_weights())
    changed = [
        np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True)
    ]
    assert all(changed)


@each_optimizer
def test_compiled_equals_eager(make):
    eager = compiled_network(make())
    eager.run_eagerly = True
    compiled = trained(make(), jit_compile=True)
    # Four steps of rounding in another order, magnified by Adam's division.
    assert_close(train(eager), compiled, 3e-6)


@each_optimizer
def test_accumulated_gradients_equal_the_big_batch(make):
    whole = trained(make(), batches=8, batch=32)
    parts = trained(make(gradient_accumulation_steps=2), batches=8, batch=16)
    assert_close(whole, parts, 3e-6)


@each_optimizer
def test_mixed_float16_trains_and_skips_what_overflows(make):
    model = compiled_network(make(), dtype="mixed_float16")
    model.compile(
        make(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        auto_scale_loss=True,
    )
    model.optimizer = keras.optimizers.LossScaleOptimizer(
        make(), initial_scale=1024.0
    )
    model.optimizer.build(model.trainable_variables)
    before = model.get_weights()
    x, y = data(1)
    model.train_on_batch(np.full_like(x, np.inf), y)
    assert_equal(before, model.get_weights())
    model.train_on_batch(x, y)
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert any(
        np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True)
    )


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


@pytest.mark.parametrize("name", INNER)
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
