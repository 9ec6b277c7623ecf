"""The decay for a budget: what short runs say, and the command."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from keras import layers

from keras_wd import optimizers
from keras_wd import tune
from keras_wd.__main__ import main
from keras_wd.cli import config
from keras_wd.cli import datasets
from keras_wd.cli import tune as study_tune
from keras_wd.cli.usage_errors import UsageError

STEPS = np.arange(10, 410, 10)
DECAYS = np.geomspace(1e-4, 1e-1, 7)


def probes_of(best, noise=0.0, seed=0):
    """Probes whose best decay after t steps is `best(t)`."""
    rng = np.random.default_rng(seed)
    return [
        tune.Probe.of(
            decay,
            STEPS,
            1
            + 0.1 * np.log(decay / best(STEPS)) ** 2
            + noise * rng.normal(size=40),
        )
        for decay in DECAYS
    ]


def test_single_measurements_are_smoothed():
    losses = np.ones(40)
    losses[20] = 6.0
    probe = tune.Probe.of(0.1, STEPS, losses)
    np.testing.assert_allclose(probe.smoothed[18:23], 2.0)
    np.testing.assert_allclose(probe.smoothed[:18], 1.0)
    np.testing.assert_array_equal(probe.losses, losses)


@given(
    constant=st.floats(0.1, 0.6),
    power=st.floats(-1.0, 0.0),
    budget=st.integers(400, 8000),
)
@settings(max_examples=30, deadline=None)
def test_the_power_of_the_probes_leads_to_the_budget(constant, power, budget):
    def best(t):
        return constant / 200 * (t / 200) ** power

    found = tune.predict(probes_of(best), budget, learning_rate=0.5)
    # Running means at the ends and five to the decade: not quite exact.
    assert found.power == pytest.approx(power, abs=0.08)
    assert found.weight_decay == pytest.approx(best(budget), rel=0.25)
    assert found.low <= found.weight_decay <= found.high


def test_a_law_that_holds_gives_its_constant():
    found = tune.predict(
        probes_of(lambda t: 0.6 / (0.5 * t)), 4000, learning_rate=0.5
    )
    assert found.holds and found.findings == ()
    assert found.constant == pytest.approx(0.6, rel=0.1)
    assert found.weight_decay == pytest.approx(0.6 / (0.5 * 4000), rel=0.2)


def test_a_law_that_does_not_hold_is_told():
    found = tune.predict(probes_of(lambda t: 3e-3 + 0 * t), 4000, 0.5)
    assert not found.holds
    assert found.weight_decay == pytest.approx(3e-3, rel=0.05)
    assert "does not hold in the probes: the power is" in str(found)
    # One that grows with the steps is not taken further.
    found = tune.predict(probes_of(lambda t: 1e-3 * (t / 400)), 4000, 0.5)
    assert found.power > 0.8
    assert 2.5e-4 < found.weight_decay < 1e-3


def test_noise_widens_the_range():
    widths = []
    for noise in (0.0, 0.02):
        probes = probes_of(lambda t: 1e-3 * (t / 400) ** -0.5, noise)
        found = tune.predict(probes, 4000, 0.5)
        widths.append(np.log(found.high / found.low))
        assert found.low < 1e-3 * 10**-0.5 * 1.5
        assert found.high > 1e-3 * 10**-0.5 / 1.5
    assert widths[0] < widths[1]


@pytest.mark.parametrize(
    "best, message",
    [
        (1e-6, "least at the smallest decay that was tried, 0.0001"),
        (9.0, "least at the largest decay that was tried, 0.1"),
    ],
)
def test_a_best_decay_outside_is_not_given(best, message):
    found = tune.predict(probes_of(lambda t: best + 0 * t), 4000, 0.5)
    assert found.weight_decay is None and not found.holds
    assert message in str(found)


def test_a_best_decay_that_is_just_found_is_not_given():
    # Larger than all others until the last measurements.
    found = tune.predict(
        probes_of(lambda t: np.where(t < 400, 9.0, 1e-3)), 4000, 0.5
    )
    assert found.weight_decay is None
    assert "Only at the end of the probes" in str(found)


def test_runs_that_diverge_are_left_out():
    probes = probes_of(lambda t: 1e-3 + 0 * t)
    for i in (5, 6):
        losses = np.full(40, np.nan)
        probes[i] = tune.Probe.of(DECAYS[i], STEPS, losses)
    found = tune.predict(probes, 4000, 0.5)
    assert found.weight_decay == pytest.approx(1e-3, rel=0.05)
    lost = [tune.Probe.of(p.weight_decay, STEPS, losses) for p in probes]
    found = tune.predict(lost, 4000, 0.5)
    assert found.weight_decay is None
    assert "All probes diverged" in str(found)


def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 10)).astype("float32")
    y = (x[:, 0] + 0.8 * rng.normal(size=600) > 0).astype("int32")
    return (x[:60], y[:60]), (x[60:], y[60:])


def model_fn(weight_decay, learning_rate=0.2):
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(64, "relu", use_bias=False),
            layers.Dense(2, use_bias=False),
        ]
    )
    model.compile(
        optimizers.SGDW(learning_rate, weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    return model


@pytest.mark.weekly(reason="trains seven networks")
@pytest.mark.one_backend
def test_short_runs_of_a_network():
    data, validation = problem()
    found = tune.predict_weight_decay(
        model_fn, data, 800, validation, batch_size=20, measurements=10
    )
    decays = [probe.weight_decay for probe in found.probes]
    assert 5 <= len(decays) <= 7 and decays == sorted(decays)
    np.testing.assert_allclose(np.diff(np.log10(decays)), 0.5, atol=0.01)
    assert decays[-1] >= 4 / (0.2 * 200) * 0.99
    assert found.learning_rate == 0.2 and found.probe_steps == 200
    for probe in found.probes:
        assert len(probe.steps) == 10 and np.isfinite(probe.losses).all()
    # The labels are noisy: decay helps, and it is found.
    assert decays[0] < found.weight_decay < decays[-1]


@pytest.mark.weekly(reason="trains several times")
def test_given_decays_and_a_given_length():
    data, validation = problem()
    found = tune.predict_weight_decay(
        model_fn,
        data,
        100,
        validation,
        weight_decays=(1.0, 0.01, 0.1),
        probe_steps=16,
        batch_size=20,
        measurements=8,
    )
    assert [probe.weight_decay for probe in found.probes] == [0.01, 0.1, 1.0]
    assert found.probe_steps == 16


@pytest.mark.weekly(reason="trains several times")
@pytest.mark.one_backend
def test_short_runs_around_a_decay_that_was_scaled():
    data, validation = problem()
    found = tune.predict_weight_decay(
        model_fn,
        data,
        60,
        validation,
        weight_decays=0.1,
        probe_steps=8,
        batch_size=20,
        measurements=8,
    )
    decays = [probe.weight_decay for probe in found.probes]
    assert {0.01, 0.0316, 0.1, 0.316, 1.0} <= set(decays)


@pytest.mark.one_backend
def test_the_command_starts_from_the_decay_of_another_run(tmp_path):
    flags = ["--decay=l2", "--optimizer=sgd", "--learning_rate=0.2"]
    other = config.from_command_line(
        [*flags, "--weight_decay=0.01", "--batch_size=64"]
    )
    config.write(other, str(tmp_path))
    here = config.from_command_line(
        [*flags, "--batch_size=32", "--train_examples=300"]
    )
    data = datasets.for_run(here)
    found = study_tune._scaled(str(tmp_path), here, data)
    assert found == pytest.approx(0.01 * (32 / 64) / (300 / 1253))
    config.write(config.from_command_line(["--decay=l1"]), str(tmp_path))
    with pytest.raises(UsageError, match="--like=.* must be a run with"):
        study_tune._scaled(str(tmp_path), here, data)


@pytest.mark.parametrize(
    "make, arguments, message",
    [
        (model_fn, {"steps": 1}, "`steps` must be an integer >= 2"),
        (model_fn, {"runs": 0}, "`runs` must be an integer >= 1"),
        (model_fn, {"weight_decays": (0, 1, 2)}, "`weight_decays` must be a f"),
        (model_fn, {"weight_decays": 0.0}, "`weight_decays` must be a f"),
        (model_fn, {"weight_decays": (1, 2)}, "three or more different"),
        (model_fn, {"weight_decays": (1, 2, 3, 3)}, "three or more different"),
        (model_fn, {"probe_steps": 3}, "`probe_steps` must be an integer >="),
        (model_fn, {"measurements": 3}, "`measurements` must be an integer"),
        (model_fn, {"data": problem()[0][0]}, "`data` must have labels"),
        (
            lambda wd: model_fn(
                wd, keras.optimizers.schedules.CosineDecay(0.1, 9)
            ),
            {},
            "constant learning rate, .* Received: a schedule",
        ),
        (
            lambda wd: keras.Sequential([layers.Dense(1)]),
            {},
            "`model_fn` must return a model compiled with .*WeightDecay",
        ),
    ],
)
def test_arguments_out_of_range(make, arguments, message):
    data, validation = problem()
    given = {"data": data, "steps": 100, **arguments}
    with pytest.raises(ValueError, match=message):
        tune.predict_weight_decay(make, validation_data=validation, **given)


@pytest.mark.slow(reason="trains three networks")
@pytest.mark.one_backend
def test_the_command_writes_a_picture_and_the_numbers(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    status = main(
        [
            "tune",
            "--epochs=12",
            "--hidden_units=32",
            "--runs=1",
            "--learning_rate=0.3",
            "--probe_weight_decays=0.1,0.01,0.001",
            "--output_dir=out",
        ]
    )
    out = capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "tune.json").read_text())
    assert status == (0 if document["weight_decay"] is not None else 1)
    assert document["steps"] == 12 * (1253 // 32)
    assert len(document["probes"][0]["losses"]) == 20
    assert "loss at the end" in out
    picture = (tmp_path / "out" / "tune.png").read_bytes()
    assert picture[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--weight_decay=0.1", "is what is predicted. Use --probe_weight"),
        ("--decay=lp", "--decay is fixed: the law is that of l2 decay"),
        ("--lr_schedule=cosine", "at a constant learning rate"),
        ("--optimizer=kfac", "--optimizer=kfac has no such law"),
        ("--probe_weight_decays=0,1,2", "must be three or more numbers"),
        (
            "--probe_weight_decays=0.1,x,2",
            "must be three or more numbers",
        ),
        ("--probe_weight_decays=1,2,3,3", "numbers above 0, all different"),
        ("--runs=0", "--runs must be a positive integer"),
        ("--batch_size=9999", "--batch_size must be at most 1253"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path, monkeypatch, capsys, flag, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["tune", flag]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("keras-wd tune: ") and message in errors
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.iterdir())
