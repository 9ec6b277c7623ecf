"""The decay for a budget: what short runs say, and the command."""

import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import optimizers
from keras_wd import tune
from keras_wd.__main__ import main
from keras_wd.tune import _concluded
from keras_wd.tune import _probe

STEPS = np.arange(10, 410, 10)


def losses(best, noise=0.0, seed=0):
    """Validation losses with their least value at a step."""
    rng = np.random.default_rng(seed)
    return np.square(np.log(STEPS / best)) + 1 + noise * rng.normal(size=40)


def test_the_peak_of_a_probe_is_where_its_loss_is_least():
    probe = _probe(3, STEPS, losses(150), pace=0.02)
    assert probe.peak == pytest.approx(150, abs=10)
    assert probe.constant == pytest.approx(0.02 * probe.peak)
    assert (probe.seed, probe.reason) == (3, "")


def test_single_measurements_are_smoothed():
    values = losses(150)
    values[30] = 0.5
    assert _probe(0, STEPS, values, 0.02).peak == pytest.approx(150, abs=10)


@pytest.mark.parametrize(
    "values, reason",
    [
        (losses(1000), "the loss still falls at its end"),
        (losses(1), "the loss rises from the start"),
        (np.full(40, np.nan), "the run diverged"),
    ],
)
def test_a_probe_without_a_peak_says_why(values, reason):
    probe = _probe(0, STEPS, values, 0.02)
    assert probe.peak is None and reason in probe.reason
    prediction = _concluded([probe], [1.0], 1000, 0.1, 0.2)
    assert prediction.weight_decay is None and not prediction.holds
    assert "The law does not hold" in str(prediction)


def test_the_decay_is_the_constant_over_learning_rate_and_budget():
    probes = [
        _probe(i, STEPS, losses(b), 0.02) for i, b in enumerate((100, 200))
    ]
    prediction = _concluded(probes, [1.0, 1.0], 5000, 0.1, 0.2)
    constants = [probe.constant for probe in probes]
    center = np.sqrt(constants[0] * constants[1])
    assert prediction.holds and prediction.findings == ()
    assert prediction.constant == pytest.approx(center)
    assert prediction.weight_decay == pytest.approx(center / (0.1 * 5000))
    error = np.hypot(
        np.std(np.log(constants), ddof=1) / np.sqrt(2),
        0.02 * 10 / center / np.sqrt(12),
    )
    assert prediction.high / prediction.weight_decay == pytest.approx(
        np.exp(2 * error)
    )
    assert prediction.weight_decay / prediction.low == pytest.approx(
        np.exp(2 * error)
    )


def test_what_speaks_against_the_law_is_said():
    probes = [
        _probe(0, STEPS, losses(100), 0.02),
        _probe(1, STEPS, losses(9999), 0.02),
    ]
    prediction = _concluded(probes, [0.7, 0.6], 5000, 0.1, 0.2)
    assert prediction.weight_decay is not None and not prediction.holds
    text = str(prediction)
    assert "does not hold in 1 of 2 probes" in text
    assert "fitted to 70.0% at most" in text


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
        jit_compile=True,
    )
    return model


def test_short_runs_of_a_network():
    data, validation = problem()
    prediction = tune.predict_weight_decay(
        model_fn, data, 2000, validation, runs=2, batch_size=20, horizon=4.0,
        measurements=20,
    )  # fmt: skip
    assert prediction.probe_weight_decay == pytest.approx(4 / (0.2 * 1000))
    assert prediction.learning_rate == pytest.approx(0.2)
    assert [len(probe.steps) for probe in prediction.probes] == [20, 20]
    for probe in prediction.probes:
        assert probe.steps[-1] == 1000
        assert np.isfinite(probe.losses).all()


@pytest.mark.parametrize(
    "make, arguments, message",
    [
        (model_fn, {"steps": 1}, "`steps` must be an integer >= 2"),
        (model_fn, {"runs": 0}, "`runs` must be an integer >= 1"),
        (model_fn, {"horizon": 0}, "`horizon` must be a finite number > 0"),
        (model_fn, {"weight_decay": 0}, "`weight_decay` must be a finite numb"),
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


def test_the_command_writes_a_picture_and_the_numbers(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    status = main(
        ["tune", "--epochs=12", "--hidden_units=32", "--runs=1",
         "--learning_rate=0.3", "--output_dir=out"]
    )  # fmt: skip
    out = capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "tune.json").read_text())
    assert status == (0 if document["weight_decay"] is not None else 1)
    assert document["steps"] == 12 * (1253 // 32)
    assert len(document["probes"][0]["losses"]) == 40
    assert "lr * decay * step" in out
    picture = (tmp_path / "out" / "tune.png").read_bytes()
    assert picture[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--weight_decay=0.1", "is what is predicted. Use --probe_weight_dec"),
        ("--decay=lp", "--decay is fixed: the law is that of l2 decay"),
        ("--lr_schedule=cosine", "at a constant learning rate"),
        ("--optimizer=kfac", "--optimizer=kfac has no such law"),
        ("--probe_weight_decay=0", "--probe_weight_decay must be above 0"),
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
