"""Copies of models and optimizers: all of the state, wherever it is taken."""

import copy
import pickle
import warnings

import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd import optimizers
from tests import catalogue
from tests import doors
from tests.training import assert_equal

pytestmark = pytest.mark.eager


def reloaded(model, path):
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


HOW = {
    "load_model": reloaded,
    "deepcopy": lambda model, path: copy.deepcopy(model),
    "pickle": lambda model, path: pickle.loads(pickle.dumps(model)),
}


def values(optimizer):
    return [np.asarray(variable) for variable in optimizer.variables]


@pytest.mark.few_cases(1)
@doors.each_row
def test_copies_of_a_model_have_its_state(name, tmp_path):
    model = doors.trained(name)
    for make in HOW.values():
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            other = make(model, tmp_path)
        assert_equal(values(model.optimizer), values(other.optimizer))
    other.run_eagerly = model.run_eagerly
    assert doors.goes_on_like(model, other)


@pytest.mark.few_cases(1)
@doors.each_row
@pytest.mark.parametrize(
    "how",
    catalogue.quick(
        {"deepcopy": copy.deepcopy, "config": copy.copy, "pickle": None},
        "pickle",
    ),
)
def test_copies_of_an_optimizer_have_its_state(name, how):
    model = doors.trained(name)
    if how is copy.copy:
        store = {}
        model.optimizer.saved_state.save_own_variables(store)
        other = type(model.optimizer).from_config(model.optimizer.get_config())
        other.saved_state.load_own_variables(store)
    else:
        other = (how or (lambda o: pickle.loads(pickle.dumps(o))))(
            model.optimizer
        )
    # A copy of a copy that was never built.
    other = copy.deepcopy(other)
    other.build(model.trainable_variables)
    assert_equal(values(model.optimizer), values(other))
    assert int(other.iterations) == 3


@pytest.mark.few_cases(1)
@doors.each_row
def test_an_untrained_model_is_loaded_with_one_warning(name, tmp_path):
    model = doors.network(name)
    path = tmp_path / "untrained.weights.h5"
    model.save_weights(path)
    for make in HOW.values():
        with pytest.warns(UserWarning, match="before its first step") as found:
            other = make(model, tmp_path)
        assert sum(w.category is UserWarning for w in found) == 1
    assert_equal(model.get_weights(), other.get_weights())
    # Into one that has trained: a start anew, not a mixture.
    initial = doors.trained(name, steps=0)
    other = doors.trained(name)
    with pytest.warns(UserWarning, match="starts afresh"):
        other.load_weights(path)
    initial.load_weights(path)
    if "KFAC" not in name:
        # The blocks stay, and are measured anew.
        assert int(other.optimizer.iterations) == 0
        assert doors.goes_on_like(initial, other)


@pytest.mark.few_cases(1)
@pytest.mark.parametrize("name", ["WeightDecay", "KFAC", "WeightDecay(KFAC)"])
def test_weights_loaded_before_the_optimizer_is_built(name, tmp_path):
    """As keras-tuner's `get_best_models` does: Keras forgets the state."""
    model = doors.trained(name)
    model.save_weights(tmp_path / "model.weights.h5")
    other = doors.network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        other.load_weights(tmp_path / "model.weights.h5")
    other.save_weights(tmp_path / "again.weights.h5")
    third = doors.network(name)
    third.load_weights(tmp_path / "again.weights.h5")
    assert doors.goes_on_like(other, third)
    assert doors.goes_on_like(doors.trained(name), model) is False
    assert int(third.optimizer.iterations) == 5


@pytest.mark.few_cases(1)
@pytest.mark.compiled
@pytest.mark.parametrize("compiled", [False, True])
def test_a_first_compiled_step_continues_what_was_loaded(compiled, tmp_path):
    model = doors.trained("WeightDecay")
    model.save_weights(tmp_path / "model.weights.h5")
    other = doors.network("WeightDecay")
    if compiled:
        for one in (model, other):
            one.run_eagerly = False
    other.load_weights(tmp_path / "model.weights.h5")
    assert doors.goes_on_like(model, other)
    assert_equal(values(model.optimizer), values(other.optimizer))


@pytest.mark.parametrize("name", ["PAdam", "bfloat16"])
def test_a_layer_frozen_before_saving(name, tmp_path):
    model = doors.trained(name)
    model.layers[0].trainable = False
    kept = {v.path.split("/", 1)[-1] for v in model.trainable_variables}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        other = reloaded(model, tmp_path)
    assert len(other.optimizer._trainable_variables) == len(kept) == 2
    assert int(other.optimizer.iterations) == 3
    slots = {v.path: np.asarray(v) for v in model.optimizer.variables}
    for variable in other.optimizer.variables:
        found = [
            value
            for path, value in slots.items()
            if path.split("/")[-1].endswith(variable.name)
        ]
        assert any(np.array_equal(np.asarray(variable), v) for v in found)


@pytest.mark.few_cases(1)
@pytest.mark.parametrize("name", ["KFAC", "WeightDecay(KFAC)"])
def test_blocks_are_found_anew_where_a_layer_is_frozen(name, tmp_path):
    model = doors.trained(name)
    model.layers[0].trainable = False
    with pytest.warns(UserWarning, match="starts afresh.*output_factor"):
        other = reloaded(model, tmp_path)
    assert_equal(model.get_weights(), other.get_weights())
    doors.step(other, 5)


def test_exchanged_layers_do_not_take_each_others_state(tmp_path):
    def model(*names):
        layers = [keras.layers.Dense(8, name=name) for name in names]
        made = keras.Sequential([keras.Input((8,)), *layers])
        doors.compile_eagerly(made, optimizers.SGDW(0.1, momentum=0.9))
        doors.step(made, 0)
        return made

    model("layer_1", "layer_2").save_weights(tmp_path / "one.weights.h5")
    other = model("layer_2", "layer_1")
    with pytest.warns(UserWarning, match="in another order"):
        other.load_weights(tmp_path / "one.weights.h5")
    assert int(other.optimizer.iterations) == 0


@pytest.mark.few_cases(1)
@doors.each_row
def test_set_weights_sets_all_variables(name):
    first, second = doors.trained(name), doors.network(name)
    doors.step(second, 9)
    second.set_weights(first.get_weights())
    second.optimizer.set_weights(first.optimizer.variables)
    assert_equal(values(first.optimizer), values(second.optimizer))
    assert doors.goes_on_like(first, second)


def test_set_weights_refuses_what_does_not_fit():
    optimizer = optimizers.SGDW(0.1, momentum=0.9)
    with pytest.raises(ValueError, match="optimizer.build"):
        optimizer.set_weights([np.ones(())])
    optimizer.build([keras.Variable([[1.0]], name="kernel")])
    with pytest.raises(ValueError, match="must have the shapes"):
        optimizer.set_weights([np.ones(())])


@pytest.mark.parametrize("steps", [0, 3])
def test_old_hdf5_files(steps, tmp_path):
    """Keras builds their optimizers for no variables at all."""
    model = doors.trained("WeightDecay", steps)
    model.save(tmp_path / "model.h5")
    other = keras.models.load_model(tmp_path / "model.h5")
    other.run_eagerly = model.run_eagerly
    if steps and keras.backend.backend() != "jax":
        assert doors.goes_on_like(model, other)
        assert_equal(values(model.optimizer), values(other.optimizer))
    assert_equal(model.get_weights(), other.get_weights())


@pytest.mark.filterwarnings("ignore:The model does not have any trainable")
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_model_without_trainable_variables_fits(policy):
    layer = keras.layers.ReLU()
    model = keras.Sequential([keras.Input((8,)), layer], name="empty")
    # Under the other policy there is a loss scale around the optimizer.
    model.dtype_policy = policy
    model.compile(optimizers.SGDW(0.1), "mse")
    history = model.fit(np.ones((4, 8)), np.zeros((4, 8)), verbose=0)
    assert history.history["loss"] == [1.0]


def under(policy, path, load):
    """A model of that policy, saved or loaded."""
    keras.config.set_dtype_policy(policy)
    try:
        if load:
            return keras.models.load_model(path)
        layers = [keras.layers.Dense(4), keras.layers.Dense(3, dtype="float32")]
        model = keras.Sequential([keras.Input((8,)), *layers])
        doors.compile_eagerly(model, optimizers.SGDW(0.1, momentum=0.9))
        doors.step(model, 0)
        model.save(path)
        return model
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
@pytest.mark.parametrize("policy", ["mixed_float16", "float32"])
def test_mixed_precision_elsewhere(policy, tmp_path):
    path = tmp_path / "model.keras"
    model = under(policy, path, load=False)
    other = {"mixed_float16": "float32", "float32": "mixed_float16"}[policy]
    with pytest.warns(UserWarning, match="is not restored.*compile=False"):
        loaded = under(other, path, load=True)
    assert_equal(model.get_weights(), loaded.get_weights())


@keras.saving.register_keras_serializable("test_copies")
class Task(keras.Model):
    """Compiles itself, and has a `compile` of its own, as KerasHub's tasks."""

    def __init__(self, **arguments):
        inputs = keras.Input((8,))
        super().__init__(inputs, keras.layers.Dense(3)(inputs), **arguments)
        self.compile()

    def compile(self, optimizer="auto", loss="mse", **arguments):
        if optimizer == "auto":
            optimizer = keras.optimizers.Adam(0.1)
        super().compile(optimizer, loss, **arguments)

    def get_config(self):
        return {}


@pytest.mark.filterwarnings("ignore:`compile\\(\\)` was not called")
@pytest.mark.filterwarnings("ignore:Skipping variable loading")
@pytest.mark.parametrize("rules", [1, 2])
def test_a_model_that_compiles_itself(rules, tmp_path):
    model = Task()
    doors.compile_eagerly(
        model,
        optimizers.WeightDecay(
            keras.optimizers.Adam(0.1),
            [decays.L2(0.1), decays.L1(0.1)][:rules],
        ),
    )
    doors.step(model, 0)
    loaded = reloaded(model, tmp_path)
    assert_equal(model.get_weights(), loaded.get_weights())
