"""`keras-wd train --distribute=data`: devices that share every batch."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_wd.__main__ import main
from keras_wd.cli import checkpoint
from keras_wd.cli import config
from keras_wd.cli import distribute
from keras_wd.cli import history
from keras_wd.cli.executors import environment
from tests.distribution.processes import finish
from tests.distribution.processes import free_addresses
from tests.distribution.processes import start

# What K-FAC compiles takes long with JAX.
OPTIMIZER = {
    "tensorflow": ["kfac", "--curvature_every=4", "--invert_every=7"],
    "jax": ["momentum"],
}[keras.backend.backend()]
FLAGS = [
    "--decay=l2",
    "--hidden_units=8",
    "--batch_norm",
    "--batch_size=128",
    "--epochs=2",
    "--train_examples=1024",
    f"--optimizer={OPTIMIZER[0]}",
    *OPTIMIZER[1:],
]
ON_TWO = ["--distribute=data", "--devices=2"]
PROGRAM = """
import sys
import keras
from keras_wd.__main__ import main
from tests import initial_values

if keras.backend.backend() == "jax":
    initial_values.draw_by_numpy()

flags = sys.argv[3:]
assert main(["train", *flags, f"--output_dir={sys.argv[1]}"]) == 0
resumed = ["--resume", f"--output_dir={sys.argv[2]}"]
devices = [f for f in flags if f.startswith(("--distribute", "--devices"))]
assert main(["train", *resumed, *devices]) == 0
"""


def trained(folder):
    model = keras.saving.load_model(folder / "model.keras")
    return [np.asarray(variable) for variable in model.weights]


def losses(folder):
    rows = history.read(str(folder))
    return [[row["loss"], row["val_loss"]] for row in rows]


def assert_same_runs(folders, alone):
    for folder in folders:
        np.testing.assert_allclose(losses(folder), losses(alone), rtol=1e-5)
        for a, b in zip(trained(folder), trained(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def interrupt(self, epoch, logs=None, store=checkpoint.Checkpoint.on_epoch_end):
    store(self, epoch, logs)
    raise KeyboardInterrupt


@pytest.mark.weekly(reason="four runs; tests/distribution has the steps")
# What a run that is interrupted leaves open, its process closes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_devices_train_as_one_and_resume_its_runs(tmp_path, monkeypatch):
    # TensorFlow draws other labels for the curvature when it compiles.
    jit = "false" if keras.backend.backend() == "tensorflow" else "auto"
    flags = [*FLAGS, f"--data_dir={tmp_path / 'tfds'}"]
    alone, two, cut = (tmp_path / name for name in ("alone", "two", "cut"))
    on_one = [*flags, f"--jit={jit}"]
    assert main(["train", *on_one, f"--output_dir={alone}"]) == 0
    with monkeypatch.context() as context:
        context.setattr(checkpoint.Checkpoint, "on_epoch_end", interrupt)
        assert main(["train", *on_one, f"--output_dir={cut}"]) == 130
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, two, cut, *flags, *ON_TWO],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ran out of data" not in done.stderr
    stored = json.loads((two / "config.json").read_text("utf-8"))["flags"]
    assert (stored["distribute"], stored["devices"]) == ("data", 2)
    assert_same_runs((two, cut), alone)


if keras.backend.backend() == "jax":

    @pytest.mark.weekly(reason="four runs; tests/distribution has the steps")
    @pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning"
    )
    def test_two_processes_train_as_one_and_resume_its_runs(
        tmp_path, data_dir, monkeypatch
    ):
        flags = [*FLAGS, f"--data_dir={data_dir}"]
        flags += ["--augment=true", "--stream=true"]
        alone, two, cut = (tmp_path / name for name in ("alone", "two", "cut"))
        assert main(["train", *flags, f"--output_dir={alone}"]) == 0
        with monkeypatch.context() as context:
            context.setattr(checkpoint.Checkpoint, "on_epoch_end", interrupt)
            assert main(["train", *flags, f"--output_dir={cut}"]) == 130
        addresses = free_addresses(2)
        first, second = finish(
            *(
                start(
                    *("-c", PROGRAM, two, cut, "--distribute=data", *flags),
                    KERAS_DISTRIBUTION_JOB_ADDRESSES=addresses,
                    KERAS_DISTRIBUTION_NUM_PROCESSES="2",
                    KERAS_DISTRIBUTION_PROCESS_ID=str(index),
                )
                for index in range(2)
            )
        )
        assert "test accuracy" in first and "test accuracy" not in second
        assert_same_runs((two, cut), alone)


def test_the_configuration_keeps_the_devices(tmp_path):
    settings = config.from_command_line(ON_TWO)
    config.write(settings, str(tmp_path))
    again = config.from_command_line([f"--config={tmp_path / 'config.json'}"])
    assert {**again, "config": None} == settings
    other = [f"--config={tmp_path / 'config.json'}", "--distribute=none"]
    assert config.from_command_line(other)["devices"] is None


MISTAKES = [
    (["--devices=2"], "--devices applies only with --distribute=data"),
    (["--distribute=workers"], "--distribute must be one of none, data"),
    (
        ["--distribute=data"],
        "this machine has one cpu. To try it on a CPU, add --dev",
    ),
    (["--distribute=data", "--devices=1"], "--devices must be at least 2"),
    (
        ["--distribute=data", "--devices=4"],
        "--devices must be at most 1, the cpu devices that are here. Received: "
        "--devices=4 (too late)",
    ),
]


@pytest.mark.parametrize("flags, message", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(
    flags, message, monkeypatch, capsys
):
    def split_cpu(count):
        raise RuntimeError("too late")

    monkeypatch.setattr(distribute.devices, "split_cpu", split_cpu)
    monkeypatch.setattr(distribute.devices, "available", lambda: ("cpu", 1))
    assert main(["train", *flags]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_a_batch_is_divided_evenly(monkeypatch, capsys):
    monkeypatch.setattr(distribute.devices, "available", lambda: ("gpu", 3))
    assert main(["train", "--distribute=data"]) == 2
    assert (
        "--batch_size must be a multiple of 3, the devices that share a "
        "batch. Received: --batch_size=32" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "value, message",
    [
        ("{'cluster'", "TF_CONFIG must be a JSON object"),
        ("[]", "TF_CONFIG must be a JSON object"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}}',
            "TF_CONFIG names 2 tasks, with which Keras cannot `fit`. Unset",
        ),
    ],
)
def test_a_cluster_is_no_machine(value, message, monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", value)
    assert main(["train", *ON_TWO]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "number, flags, message",
    [
        ("2", [], "KERAS_DISTRIBUTION_PROCESS_ID must be from 0 to 1"),
        ("x", [], "KERAS_DISTRIBUTION_PROCESS_ID must be a whole number"),
        ("1", ["--devices=2"], "--devices is for one process"),
        *(
            [("1", [], "NUM_PROCESSES is set. Several processes need the jax")]
            if keras.backend.backend() == "tensorflow"
            else []
        ),
    ],
)
def test_a_process_knows_its_place(number, flags, message, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", number)
    assert main(["train", "--distribute=data", *flags]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


@pytest.mark.parametrize(
    "command, fix",
    [
        (["train"], "Add --distribute=data"),
        (["tune"], "Unset it"),
        (["compare"], "Unset it"),
        (
            ["compare", "--executor=ray", "--distribute=data", "--devices=2"],
            "Unset it",
        ),
    ],
)
def test_processes_do_not_do_the_same_each(command, fix, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    assert main(command) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"2 processes do the same. {fix}" in line
    # Nor the runs of a cluster whose nodes have such variables.
    assert environment()["KERAS_DISTRIBUTION_NUM_PROCESSES"] == "1"


if keras.backend.backend() == "tensorflow":

    def test_tensorflow_does_not_compile_what_devices_share(
        monkeypatch, capsys
    ):
        monkeypatch.setattr(distribute.devices, "available", lambda: ("gpu", 2))
        assert main(["train", "--distribute=data", "--jit=true"]) == 2
        assert "--jit=true is not possible" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command, message",
    [
        ("compare", "--distribute needs --executor=ray"),
        ("tune", "--distribute is for a single run"),
    ],
)
def test_other_commands_have_single_runs_on_one_device(
    command, message, capsys
):
    assert main([command, "--distribute=data"]) == 2
    assert message in capsys.readouterr().err
