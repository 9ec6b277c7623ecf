"""Every public attribute of a Keras optimizer acts on ours, or is refused."""

import inspect
import warnings

import keras
import numpy as np
import pytest

from keras_wd import decays
from keras_wd import graph
from keras_wd import optimizers
from keras_wd import schedules
from keras_wd import where
from tests import catalogue
from tests.training import assert_close
from tests.training import compiled_network
from tests.training import data
from tests.training import take_steps
from tests.training import variables

pytestmark = pytest.mark.eager

SGD = keras.optimizers.SGD

# What is done about every name: a new one in Keras fails the first test.
ACTS_ON_INNER = {
    *("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor"),
    *("gradient_accumulation_steps", "learning_rate", "iterations"),
}
ACTS_ON_DECAYS = {"weight_decay", "exclude_from_weight_decay"}
ACTS_ON_AVERAGE = {"use_ema", "ema_momentum", "ema_overwrite_frequency"}
RAISES = {"update_step"}
OF_THE_WHOLE = {
    *("apply", "apply_gradients", "stateless_apply", "build", "variables"),
    *("finalize_variable_values", "get_config", "from_config", "set_weights"),
    *("save_own_variables", "load_own_variables"),
}
# Right as Keras has it: they look at nothing that the wrapper keeps elsewhere.
OF_KERAS = {
    *("add_variable", "add_variable_from_reference"),
    *("add_optimizer_variables", "assign", "assign_add", "assign_sub"),
    *("scale_loss", "name", "built"),
}
DECIDED = (
    ACTS_ON_INNER
    | ACTS_ON_DECAYS
    | ACTS_ON_AVERAGE
    | RAISES
    | OF_THE_WHOLE
    | OF_KERAS
)


def attributes_of_keras():
    optimizer = keras.optimizers.Optimizer(0.1)
    names = {*dir(keras.optimizers.Optimizer), *vars(optimizer)}
    return {name for name in names if not name.startswith("_")}


def test_every_attribute_of_keras_is_decided():
    assert attributes_of_keras() == DECIDED


WRAPPERS = [
    *(optimizers.WeightDecay, optimizers.SGDW),
    *(optimizers.PAdam, optimizers.PathProx),
]


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize("name", sorted(DECIDED - OF_KERAS))
def test_a_wrapper_does_not_leave_it_to_keras(kind, name):
    # `stateless_apply` and `set_weights` go by `variables` and `apply`.
    if name in ("stateless_apply", "set_weights"):
        return
    found = inspect.getattr_static(kind, name)
    theirs = getattr(keras.optimizers.Optimizer, name, None)
    assert getattr(found, "__func__", found) is not getattr(
        theirs, "__func__", theirs
    )


@pytest.mark.parametrize("name", sorted(DECIDED))
def test_kfac_is_a_keras_optimizer_of_its_own(name):
    optimizer = optimizers.KFAC(0.1)
    theirs = inspect.getattr_static(keras.optimizers.Optimizer, name, None)
    ours = inspect.getattr_static(optimizers.KFAC, name, None)
    mine = {*("apply", "build", "update_step", "get_config", "from_config")}
    mine |= {"save_own_variables", "load_own_variables", "set_weights"}
    mine |= {"learning_rate", "variables"}  # of those inside too
    assert ours is theirs or name in mine
    assert hasattr(optimizer, name)


def ours(**inner):
    return optimizers.WeightDecay(
        SGD(0.1, momentum=0.9, **inner),
        decays.L2(0.3, where=where.everything()),
    )


def theirs(**arguments):
    return SGD(0.1, momentum=0.9, weight_decay=0.3, **arguments)


def start():
    return variables([np.full((2, 2), 2.0), np.ones((2, 3))])


def gradients(count):
    rng = np.random.default_rng(0)
    return [
        [rng.normal(size=shape).astype("float32") for shape in ((2, 2), (2, 3))]
        for _ in range(count)
    ]


def set_to(**values):
    def change(optimizer):
        for name, value in values.items():
            setattr(optimizer, name, value)

    return change


CHANGES = {
    "clipnorm": set_to(clipnorm=0.1),
    "clipvalue": set_to(clipvalue=0.1),
    "global_clipnorm": set_to(global_clipnorm=0.1),
    "loss_scale_factor": set_to(loss_scale_factor=8.0),
    "learning_rate": set_to(learning_rate=0.02),
    "weight_decay": set_to(weight_decay=0.9),
    "no weight_decay": set_to(weight_decay=None),
    "momentum": set_to(momentum=0.1),
    "nothing excluded": lambda o: None,
}
BEFORE = {
    **CHANGES,
    "gradient_accumulation_steps": set_to(gradient_accumulation_steps=2),
    "an average": set_to(
        use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "excluded": lambda o: o.exclude_from_weight_decay(
        var_names=["kernel_1", "bias"]
    ),
}


@pytest.mark.few_cases(3)
@pytest.mark.parametrize("name", BEFORE)
def test_before_building_it_acts_as_in_keras(name):
    found = []
    for optimizer in (ours(), theirs()):
        BEFORE[name](optimizer)
        found.append(take_steps(optimizer, start(), gradients(4)))
    for a, b in zip(*found, strict=True):
        assert_close(a, b, 1e-6)


@pytest.mark.few_cases(3)
@pytest.mark.parametrize("name", CHANGES)
def test_after_building_it_acts_as_in_keras(name):
    found = []
    for optimizer in (ours(), theirs()):
        weights = start()
        take_steps(optimizer, weights, gradients(1))
        CHANGES[name](optimizer)
        found.append(take_steps(optimizer, weights, gradients(3)))
    for a, b in zip(*found, strict=True):
        assert_close(a, b, 1e-6)


def test_accumulation_and_average_change_after_building():
    found = []
    for optimizer in (
        ours(gradient_accumulation_steps=4),
        theirs(gradient_accumulation_steps=4),
    ):
        weights = start()
        optimizer.build(weights)
        optimizer.gradient_accumulation_steps = 2
        found.append(take_steps(optimizer, weights, gradients(4)))
        assert int(optimizer.iterations) == 2
    for a, b in zip(*found, strict=True):
        assert_close(a, b, 1e-6)
    wrapper = optimizers.WeightDecay(SGD(0.1), decays.L2(0.3), use_ema=True)
    wrapper.build(start())
    wrapper.use_ema = False
    wrapper.use_ema = True
    assert wrapper.use_ema


def test_what_is_set_is_read_and_saved():
    optimizer = ours()
    for name, value in {
        "clipnorm": 0.5,
        "loss_scale_factor": 8.0,
        "gradient_accumulation_steps": 4,
        "use_ema": True,
        "ema_momentum": 0.5,
        "ema_overwrite_frequency": 7,
        "weight_decay": 0.25,
        "momentum": 0.5,
        "name": "mine",
    }.items():
        setattr(optimizer, name, value)
        assert getattr(optimizer, name) == value
        loaded = optimizers.WeightDecay.from_config(optimizer.get_config())
        if name != "weight_decay":
            assert getattr(loaded, name) == value


REFUSED = {
    "accumulation after building": (
        set_to(gradient_accumulation_steps=2),
        "before the optimizer is built",
    ),
    "one step of accumulation": (
        set_to(gradient_accumulation_steps=1),
        "integer >= 2",
    ),
    "an average after building": (
        set_to(use_ema=True),
        "before the optimizer is built",
    ),
    "a momentum": (set_to(ema_momentum=2), r"<= 1. Received: ema_momentum=2"),
    "a frequency": (set_to(ema_overwrite_frequency=0), "integer >= 1"),
    "two kinds of clipping": (
        set_to(clipnorm=1.0, clipvalue=1.0),
        "Set clipnorm=None first",
    ),
    "a negative limit": (set_to(clipnorm=-1.0), "number >= 0"),
    "a loss scale": (set_to(loss_scale_factor=0.0), "number > 0"),
    "a rate": (set_to(weight_decay=-1.0), "number >= 0"),
    "a schedule": (
        set_to(weight_decay=schedules.WarmupHold(0.1, 3)),
        "number >= 0",
    ),
    "an exclusion after building": (
        lambda o: o.exclude_from_weight_decay(var_names=["bias"]),
        "before the optimizer is built.*where.regex",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_have_no_effect_is_refused(name):
    change, message = REFUSED[name]
    optimizer = ours()
    optimizer.build(start())
    with pytest.raises(ValueError, match=message):
        change(optimizer)


@pytest.mark.parametrize(
    "name", ["decay", "decays", "inner_optimizer", "jit_compile", "iterations"]
)
def test_what_cannot_be_set_says_so(name):
    optimizer = ours()
    with pytest.raises(AttributeError, match=name):
        setattr(optimizer, name, 3)


def test_a_step_of_one_variable_is_refused():
    with pytest.raises(NotImplementedError, match="without the decays"):
        ours().update_step(None, None, 0.1)


def test_several_decays_have_no_single_rate():
    rules = [decays.L2(0.1), decays.L1(0.2)]
    optimizer = optimizers.WeightDecay(SGD(), rules)
    with pytest.raises(AttributeError, match="current_weight_decay"):
        _ = optimizer.weight_decay
    with pytest.raises(ValueError, match="one of 'l2', 'l1'"):
        optimizer.weight_decay = 0.1
    optimizer.set_weight_decay(0.1, "l1")
    assert optimizer.weight_decay == 0.1


def test_hyperparameters_of_the_inner_optimizer_are_read_and_set():
    optimizer = optimizers.PAdam(beta_1=0.8)
    assert optimizer.beta_1 == 0.8
    optimizer.beta_1 = 0.7
    assert optimizer.inner_optimizer.beta_1 == 0.7
    with pytest.raises(AttributeError, match="'PAdam'.*nor has the 'Adam'"):
        _ = optimizer.nesterov
    optimizer.mine = 3
    assert not hasattr(optimizer.inner_optimizer, "mine")


@pytest.mark.slow(reason="compiles a step for each setting")
@pytest.mark.compiled
@pytest.mark.parametrize(
    "change",
    catalogue.quick(
        {
            "clipnorm": set_to(clipnorm=0.1),
            "momentum": set_to(momentum=0.5),
            "ema_momentum": set_to(ema_momentum=0.5),
        },
        "momentum",
    ),
)
def test_a_compiled_step_that_cannot_change_is_reported(change):
    optimizer = optimizers.SGDW(0.1, momentum=0.9, use_ema=True)
    model = compiled_network(optimizer, jit_compile=True)
    x, y = data(1)
    model.train_on_batch(x, y)
    with pytest.warns(UserWarning, match="model.compile"):
        change(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The value it has already, and what a variable holds.
        change(optimizer)
        optimizer.weight_decay = 0.1
        optimizer.learning_rate = 0.1


class SetRate(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.optimizer.weight_decay = 0.0


def test_a_callback_sets_the_rate():
    x, y = data(2)
    found = []
    for callbacks, rates in (([SetRate()], [0.9]), ([], [0.9, 0.0])):
        model = compiled_network(optimizers.SGDW(0.1, weight_decay=0.9))
        for rate in rates:
            if not callbacks:
                model.optimizer.weight_decay = rate
            size = 16 if not callbacks else 32
            first = 16 * rates.index(rate)
            model.fit(
                x[first : first + size],
                y[first : first + size],
                batch_size=16,
                shuffle=False,
                verbose=0,
                callbacks=callbacks,
            )
        found.append(model.get_weights())
    assert_close(*found, 1e-6)


# Exclusion.


@pytest.mark.slow(reason="trains, copies and trains")
def test_excluded_variables_stay_excluded_in_a_copy(tmp_path):
    for arguments in (
        {"var_names": ["dense_1/kernel"]},
        {"var_list": "second kernel"},
    ):
        keras.utils.clear_session(free_memory=False)
        optimizer = optimizers.SGDW(0.1, weight_decay=1.0)
        model = compiled_network(optimizer)
        if "var_list" in arguments:
            arguments = {"var_list": [model.layers[1].kernel]}
        optimizer.exclude_from_weight_decay(**arguments)
        model.save(tmp_path / "untrained.keras")
        x, y = data(1)
        zero = {"sample_weight": np.zeros(len(x))}
        model.fit(x, y, verbose=0, **zero)
        model.save(tmp_path / "trained.keras")
        loaded = keras.models.load_model(tmp_path / "trained.keras")
        for one in (model, loaded):
            before = one.get_weights()
            one.fit(x, y, verbose=0, **zero)
            after = one.get_weights()
            assert_close(after[:1], [0.9 * before[0]], 1e-6)
            np.testing.assert_array_equal(after[2], before[2])


def test_a_second_exclusion_replaces_the_first():
    optimizer = optimizers.WeightDecay(
        SGD(0.1), [decays.L2(0.3, where=where.everything())]
    )
    given = optimizer.decay[0].where
    optimizer.exclude_from_weight_decay(var_names=["kernel_0"])
    optimizer.exclude_from_weight_decay(var_names=["kernel_1"])
    assert optimizer.decays["l2"].where == given & ~where.regex("kernel_1")
    optimizer.exclude_from_weight_decay()
    assert optimizer.decays["l2"].where == given


def test_whole_units_cannot_be_excluded_one_by_one():
    pair = decays.HomogeneousUnits("a/kernel", "b/kernel")
    optimizer = optimizers.PathProx([pair], 0.1)
    with pytest.raises(ValueError, match="PathNorm.*`units`"):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(ValueError, match="must be a list of strings"):
        optimizers.SGDW().exclude_from_weight_decay(var_names="bias")


# Loops of one's own.


def test_pairs_of_gradients_and_variables():
    weights = start()
    optimizer = ours()
    steps = gradients(1)[0]
    pairs = [
        (keras.ops.convert_to_tensor(g), w)
        for g, w in zip(steps, weights, strict=True)
    ]
    assert int(optimizer.apply_gradients(pairs)) == 1
    expected = take_steps(ours(), start(), [steps])[0]
    assert_close([w.numpy() for w in weights], expected, 0)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="tf.Variable is TensorFlow's",
)
def test_variables_of_tensorflow_itself():
    import tensorflow as tf

    weights = [
        tf.Variable(w.numpy(), name=f"layer_{i}/kernel")
        for i, w in enumerate(start())
    ]
    optimizer = optimizers.WeightDecay(
        SGD(0.1, momentum=0.9),
        [decays.L2(0.3), decays.Lp(0.1, p=0.8, where=where.paths("layer_1/*"))],
        use_ema=True,
    )
    same = optimizers.WeightDecay(
        SGD(0.1, momentum=0.9),
        [decays.L2(0.3), decays.Lp(0.1, p=0.8, where=where.paths("kernel_1"))],
    )
    for grads in gradients(2):
        tensors = map(tf.convert_to_tensor, grads)
        optimizer.apply_gradients(zip(tensors, weights, strict=True))
    expected = take_steps(same, start(), gradients(2))[-1]
    assert_close([w.numpy() for w in weights], expected, 1e-6)
    optimizer.finalize_variable_values(weights)


def test_a_model_without_anything_to_train():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Flatten()])
    model.compile(optimizers.SGDW(), "mse")
    with warnings.catch_warnings():
        # TensorFlow warns that there is nothing to train.
        warnings.simplefilter("ignore")
        model.fit(np.ones((4, 2)), np.ones((4, 2)), verbose=0)
    assert model.optimizer.weight_decay == pytest.approx(5e-4)


def test_a_decay_of_the_biases_that_balancing_scales_is_refused():
    stack = [keras.layers.Dense(4, "relu", name=name) for name in "abcd"]
    model = keras.Sequential([keras.Input((3,)), *stack])
    rules = [
        decays.PathNorm(0.1, graph.homogeneous_units(model)),
        decays.L2(0.1, where=where.paths("bias")),
    ]
    with pytest.raises(ValueError, match="another decay.*bias"):
        optimizers.WeightDecay(SGD(), rules).build(model.trainable_variables)
