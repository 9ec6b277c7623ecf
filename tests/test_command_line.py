import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import keras_wd
import keras_wd_command
from keras_wd.__main__ import COMMANDS
from keras_wd.__main__ import main
from keras_wd.cli import options

SMALL = ["--hidden_units=16", "--batch_size=128"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


def _command(*arguments):
    return [sys.executable, "-m", "keras_wd", *map(str, arguments)]


def _weights(folder):
    model = keras.saving.load_model(folder / "model.keras")
    return [
        np.asarray(variable)
        for variable in [*model.weights, *model.optimizer.variables]
    ]


def _history(folder):
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.weekly(reason="three runs; test_damage.py resumes one, too")
@pytest.mark.one_backend
def test_a_killed_run_resumes_to_the_same_weights(tmp_path, data_dir, capsys):
    flags = ["train", f"--data_dir={data_dir}", *SMALL, "--epochs=12"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = subprocess.Popen(
        _command(*flags, f"--output_dir={cut}"), stdout=subprocess.DEVNULL
    )
    while not (cut / "checkpoint.npz").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cut / "summary.json").exists()

    assert main([*flags, f"--output_dir={whole}"]) == 0
    printed = capsys.readouterr().out
    assert "test accuracy" in printed
    assert "below 1e-13" in printed

    assert main(["train", "--resume", f"--output_dir={cut}"]) == 0
    assert f"Resuming {cut} after epoch" in capsys.readouterr().out
    for expected, value in zip(_weights(whole), _weights(cut), strict=True):
        np.testing.assert_array_equal(value, expected)
    assert _history(whole) == _history(cut)
    assert sorted(os.listdir(cut)) == [
        "config.json",
        "history.csv",
        "model.keras",
        "picture.png",
        "summary.json",
        "tensorboard",
    ]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train(data_dir, here, capsys):
    """Runs the command in this process: status, output, errors."""

    def run(*arguments):
        status = main(["train", f"--data_dir={data_dir}", *arguments])
        return status, *capsys.readouterr()

    return run


@pytest.mark.weekly(reason="trains four times by the command")
def test_a_fresh_folder_for_each_run_and_its_files(train, here):
    flags = [*SMALL, "--epochs=2", "--decay=l2", "--optimizer=momentum"]
    status, printed, _ = train(*flags)
    assert status == 0
    assert "digits: 1253 training, 180 validation and 364 test" in printed
    first = here / "runs" / "digits-mlp-momentum-l2-1"
    rows = _history(first)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert float(rows[0]["weight_decay"]) == pytest.approx(0.001)
    assert float(rows[1]["learning_rate"]) == 0
    summary = json.loads((first / "summary.json").read_text())
    assert 0 <= summary["test_accuracy"] <= 1
    assert summary["zeros"] == 0

    # A run that is complete is shown, not run again.
    status, printed, _ = train("--resume", f"--output_dir={first}")
    assert status == 0
    assert "The run is complete." in printed
    assert _history(first) == rows

    status, _, _ = train(f"--config={first}/config.json")
    assert status == 0
    second = here / "runs" / "digits-mlp-momentum-l2-2"
    for a, b in zip(_weights(first), _weights(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow(reason="trains by the command")
def test_a_saved_model_is_trained_further(train, here):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.save("mine.keras")
    status, printed, errors = train(
        "--model=mine.keras", "--epochs=1", "--output_dir=out"
    )
    assert status == 0, errors
    assert "mine.keras, adam" in printed
    # A softmax is not taken for logits: the loss starts near log(10).
    assert float(_history(here / "out")[0]["loss"]) < 3


@pytest.mark.slow(reason="trains by the command")
def test_low_precision_leaves_no_trace_in_the_process(train):
    # float16 brings loss scaling, an optimizer around the decay.
    flags = ["--dtype_policy=mixed_float16", "--jit=false", "--epochs=1"]
    status, printed, errors = train(*SMALL, *flags)
    assert status == 0, errors
    assert "weight norm" in printed
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.slow(reason="a whole run")
def test_a_loss_that_is_not_finite_is_a_failure(train, here):
    status, printed, errors = train(
        *SMALL,
        "--epochs=3",
        "--optimizer=sgd",
        "--learning_rate=1e30",
        "--jit=false",
        "--output_dir=out",
    )
    assert status == 1
    assert "Try a smaller --learning_rate" in errors
    assert "not finite" in printed
    assert json.loads((here / "out/summary.json").read_text())["epochs"] < 3


@pytest.fixture(scope="module")
def wrong_models(tmp_path_factory):
    """A folder with models of other classes and other images."""
    folder = tmp_path_factory.mktemp("models")
    for name, shape, classes in (("seven", 8, 7), ("four", 4, 10)):
        keras.Sequential(
            [
                keras.Input((shape, shape, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(classes),
            ]
        ).save(folder / f"{name}.keras")
    return folder


@pytest.mark.few_cases(12)
@pytest.mark.one_backend
@pytest.mark.parametrize(
    "flags, message",
    [
        (["--epochs=-1"], "--epochs must be a positive integer"),
        (["--epoch=3"], "--epoch is not a flag of train. .*'--epochs'"),
        (["--epochs=x"], "--epochs must be a positive integer"),
        (["--epochs=99999999999"], "--epochs must be at most 2147483647"),
        (["--epochs"], "--epochs needs a value, as in --epochs=VALUE"),
        (["--data_dir="], "--data_dir must not be empty"),
        (["--decay=L2"], "--decay must be one of .* Did you mean 'l2'"),
        (["--learning_rate=-1"], "--learning_rate must be a non-negative"),
        (["--learning_rate=0"], "--learning_rate must be above 0"),
        (["--learning_rate=nan"], "--learning_rate must be a finite number"),
        (["--weight_decay=-1"], "--weight_decay must be a non-negative"),
        (["--p=0"], "--p must be above 0"),
        (["--p=2", "--decay=l2"], "--p applies only with --decay=lp"),
        (["--bias=perhaps"], "--bias must be true or false"),
        (["--hidden_units=0"], "--hidden_units must be whole numbers"),
        (["--hidden_units=5", "--model=cnn"], "only with --model=mlp"),
        (["--dataset=digist"], "--dataset=digist is not a data set"),
        (["--optimizer=adan"], "--optimizer must be one of sgd, momentum"),
        (["--optimizer=adamw"], "--optimizer=adam --decay=l2"),
        (["--model=nlp"], "--model must be one of mlp, cnn, vgg16, resnet32"),
        (["--decay=l3"], "--decay must be one of none, l2, l1, lp"),
        (["--coupling=loose"], "--coupling must be one of decoupled"),
        (
            ["--coupling=coupled", "--decay=proximal_lp"],
            "--coupling=coupled does not apply to a proximal step",
        ),
        (["--dtype_policy=int8"], "--dtype_policy must be one of float32"),
        (["--where=nosuch/*"], r"--where=nosuch/\* .* hidden_1/kernel"),
        (["--where=everything"], "--where=everything .* hidden_1/bias"),
        (["--batch_size=5000"], "--batch_size must be at most 1253"),
        (["--config=nosuch.json"], "--config=nosuch.json cannot be read"),
        (["--model=nosuch.keras"], "--model=.*nosuch.keras does not exist"),
        (["--model=bad.keras"], "--model=.*bad.keras cannot be loaded"),
        (["--model=seven.keras"], "must give one number per class, 10"),
        (["--model=four.keras"], "must take images of 8 x 8 x 1"),
        (["--output_dir=full"], "--output_dir=full is not empty"),
        (["--output_dir=bad.keras"], "--output_dir=bad.keras is a file"),
        (["--output_dir=bad.keras/x"], "--output_dir=bad.keras/x cannot"),
        (["--resume"], "--resume needs --output_dir"),
        (["--resume", "--output_dir=full"], "config.json is missing"),
        (["run1"], "'run1' is not a flag"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    train, here, wrong_models, flags, message
):
    (here / "full").mkdir()
    (here / "full" / "kept").write_text("")
    (here / "bad.keras").write_text("not a model")
    shutil.copytree(wrong_models, here, dirs_exist_ok=True)
    before = sorted(here.rglob("*"))
    status, _, errors = train(*flags)
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert errors.startswith("keras-wd train: ")
    assert re.search(message, errors), errors
    assert sorted(here.rglob("*")) == before


def test_a_missing_library_is_named_with_the_command(monkeypatch, train):
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: name != "matplotlib"
    )
    status, _, errors = train()
    assert status == 2
    assert "needs matplotlib" in errors
    assert "pip install 'keras_wd[study]'" in errors


def test_help_explains_every_flag(train):
    status, printed, _ = train("--help")
    assert status == 0
    for row in options.TRAIN:
        assert f"  --{row.name}" in printed


@pytest.mark.parametrize(
    "arguments, status", [([], 2), (["--help"], 0), (["-h"], 0)]
)
def test_usage_lists_the_commands(arguments, status, capsys):
    assert main(arguments) == status
    printed = capsys.readouterr().out
    for command in COMMANDS:
        assert command in printed


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"keras-wd {keras_wd.__version__}\n"


@pytest.mark.one_backend
def test_the_command_keeps_tensorflow_quiet_and_nothing_else():
    log = [
        "WARNING: All log messages before absl::InitializeLog() is called",
        "I0000 00:00:17.63 1 cudart_stub.cc:31] Could not find cuda drivers",
        "W0000 00:00:17.63 1 gpu_device.cc:1] Cannot dlopen some libraries",
    ]
    others = ["E0000 00:00:17.63 1 x.cc:1] failed", "Illegal", "", "INFO: x"]
    assert all(map(keras_wd_command.is_chatter, log))
    assert not any(map(keras_wd_command.is_chatter, others))


def test_an_unknown_command_is_refused_with_the_choices(capsys):
    assert main(["trian"]) == 2
    errors = capsys.readouterr().err
    assert "Choose one of: compare, train, tune" in errors
    assert "Did you mean 'train'" in errors
