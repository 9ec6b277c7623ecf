import keras
import numpy as np
import pytest

from keras_wd import where
from keras_wd.callbacks import Curvature
from keras_wd.cli import config
from keras_wd.cli import decay_factory
from keras_wd.cli import optimizer_factory
from keras_wd.cli import rate_schedules
from keras_wd.cli.usage_errors import UsageError

pytestmark = pytest.mark.eager

STEPS = 10  # in an epoch


def _settings(*flags):
    return config.from_command_line(["--epochs=20", *flags])


def _rates(rate, steps):
    if isinstance(rate, float):
        return [rate for _ in steps]
    return [float(rate(step)) for step in steps]


@pytest.mark.parametrize(
    "flags, expected",
    [
        (("--lr_schedule=constant",), [0.1, 0.1, 0.1, 0.1]),
        (("--lr_schedule=cosine",), [0.1, 0.09938, 0.05, 0.0]),
        (("--lr_schedule=step",), [0.1, 0.1, 0.01, 0.0001]),
        (
            ("--lr_schedule=constant", "--warmup_epochs=2"),
            [0.0, 0.05, 0.1, 0.1],
        ),
        (
            ("--lr_schedule=cosine", "--warmup_epochs=2"),
            [0.0, 0.05, 0.05868, 0.0],
        ),
    ],
)
def test_learning_rate_at_start_one_epoch_half_and_end(flags, expected):
    settings = _settings("--learning_rate=0.1", *flags)
    rate = rate_schedules.learning_rate(settings, STEPS)
    np.testing.assert_allclose(
        _rates(rate, (0, 10, 100, 200)), expected, rtol=1e-3, atol=1e-7
    )


@pytest.mark.parametrize(
    "flags, expected",
    [
        ((), [0.2, 0.2, 0.2]),
        (("--decay_schedule=warmup_hold",), [0.0, 0.2, 0.2]),
        (
            (
                "--decay_schedule=warmup_hold",
                "--decay_warmup_epochs=20",
            ),
            [0.0, 0.1, 0.199],
        ),
        (("--decay_schedule=stepwise",), [0.2, 0.02, 0.002]),
        (
            ("--decay_schedule=stepwise", "--decay_factors=0,2"),
            [0.0, 0.4, 0.4],
        ),
        (("--decay_schedule=proportional",), [0.2, 0.1, 0.0]),
        (
            ("--decay_schedule=constant_timescale", "--lr_schedule=step"),
            [0.2, 2.0, 200.0],
        ),
    ],
)
def test_decay_rate_at_start_half_and_end(flags, expected):
    settings = _settings("--weight_decay=0.2", *flags)
    decay = decay_of(settings)
    np.testing.assert_allclose(
        _rates(decay.weight_decay, (0, 100, 199)),
        expected,
        rtol=1e-4,
        atol=2e-4,
    )


@pytest.mark.few_cases(3)
@pytest.mark.parametrize("name", optimizer_factory.OPTIMIZERS)
def test_every_optimizer_trains_with_a_decay(name):
    settings = _settings(f"--optimizer={name}", "--decay=l2")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]
    )
    model.compile(
        optimizer_factory.optimizer(settings, STEPS, model), loss="mse"
    )
    before = model.get_weights()
    x, y = np.ones((8, 4)), np.ones((8, 2))
    measure = [Curvature(x)] if name == "kfac" else []
    model.fit(x, y, verbose=0, callbacks=measure)
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.isfinite(new).all()
        assert not np.array_equal(old, new)


@pytest.mark.parametrize(
    "name, coupling",
    [
        (name, coupling)
        for name in decay_factory.RULES
        for coupling in decay_factory.RULES[name].couplings
    ],
)
def test_every_rule_takes_the_flags(name, coupling):
    settings = _settings(
        f"--decay={name}", f"--coupling={coupling}", "--where=head/*"
    )
    decay = decay_of(settings)
    assert type(decay) is decay_factory.RULES[name]
    assert decay.coupling == coupling
    assert decay.where == where.paths("head/*")
    assert getattr(decay, "p", 0.8) == 0.8


def test_no_decay_is_the_plain_optimizer():
    optimizer = optimizer_factory.optimizer(
        _settings("--decay=none"), STEPS, None
    )
    assert type(optimizer) is keras.optimizers.Adam


@pytest.mark.parametrize(
    "text, expected",
    [
        ("kernels", where.kernels()),
        ("everything", where.everything()),
        ("a/*, b/*", where.paths("a/*") | where.paths("b/*")),
        ("~a/*", where.kernels() & ~where.paths("a/*")),
        (
            "everything,~a,~b",
            where.everything() & ~(where.paths("a") | where.paths("b")),
        ),
    ],
)
def test_selections(text, expected):
    assert decay_factory.selection(text) == expected


def decay_of(settings, model=None):
    rate = rate_schedules.decay_rate(settings, STEPS)
    return decay_factory.decay(settings, rate, model, STEPS)


def test_path_norm_is_path_prox_around_any_optimizer():
    settings = _settings("--decay=path_norm", "--hidden_units=5,4")
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(5, "relu", name="hidden_1"),
            keras.layers.Dense(4, "relu", name="hidden_2"),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    pairs, rest = decay_of(settings, model)
    assert [p.kernels for p in pairs.units] == [
        ("hidden_1/kernel", "hidden_2/kernel")
    ]
    assert where.resolve(rest.where, model) == [model.layers[2].kernel.path]
    assert rest.coupling == "coupled"
    optimizer = optimizer_factory.optimizer(settings, STEPS, model)
    assert type(optimizer.inner_optimizer) is keras.optimizers.Adam


def test_auto_l2_starts_with_the_rate_as_a_number():
    settings = _settings("--decay=l2", "--decay_schedule=auto_l2")
    assert decay_of(settings).weight_decay == 0.1


def test_a_fixed_norm_needs_a_normalization():
    with pytest.raises(UsageError, match="fixed_norm needs --batch_norm"):
        _settings("--kernel_constraint=fixed_norm")


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--decay=l2", "--cautious"], {"cautious": True}),
        (["--decay=lp", "--late", "--touched_rows"], {"late": True}),
        (["--decay=l1", "--touched_rows"], {"touched_rows": True}),
        (["--decay=l2", "--anchor=start"], {"anchor": "start"}),
        (
            ["--decay=group_lasso", "--metric=optimizer"],
            {"metric": "optimizer"},
        ),
        (["--decay=l2", "--layerwise"], {"layerwise": True}),
        (["--decay=l2"], {"cautious": False, "anchor": None}),
    ],
)
def test_options_of_a_rule(flags, expected):
    decay = decay_of(_settings(*flags))
    assert {name: getattr(decay, name) for name in expected} == expected


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["--decay=group_lasso", "--cautious"],
            "--cautious applies only with --decay=l2, l1 or lp",
        ),
        (
            ["--decay=l2", "--cautious", "--coupling=coupled"],
            "--cautious must be False for a coupled decay",
        ),
        (
            ["--decay=l2", "--anchor=nowhere.keras"],
            "--anchor must be start, or the path",
        ),
        (["--decay=l1", "--metric=l2"], "--metric must be one of optimizer"),
        (
            ["--decay=l2", "--layerwise", "--decay_schedule=proportional"],
            "--layerwise applies only with --decay_schedule=constant",
        ),
    ],
)
def test_options_that_do_not_go_together(flags, message):
    with pytest.raises(UsageError, match=message):
        _settings(*flags)


def test_a_metric_that_the_optimizer_does_not_have_is_refused():
    settings = _settings("--optimizer=sgd", "--decay=l1", "--metric=optimizer")
    with pytest.raises(UsageError, match="--decay=l1 with --optimizer=sgd"):
        optimizer_factory.optimizer(settings, STEPS, None)
