"""`keras-wd train --optimizer=kfac`, and its continuation."""

import keras
import numpy as np
import pytest

from keras_wd.__main__ import main
from keras_wd.cli import checkpoint
from keras_wd.cli import history

FLAGS = [
    "train",
    "--optimizer=kfac",
    "--decay=l2",
    "--hidden_units=8",
    "--batch_size=128",
    "--epochs=3",
    "--curvature_every=4",
    "--invert_every=7",
]


def interrupted_after(epochs, monkeypatch):
    """Checkpoints that stop the run as Ctrl-C does."""
    store = checkpoint.Checkpoint.on_epoch_end

    def stop(self, epoch, logs=None):
        store(self, epoch, logs)
        if epoch + 1 == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.Checkpoint, "on_epoch_end", stop)


def trained(folder):
    model = keras.saving.load_model(folder / "model.keras")
    variables = [*model.weights, *model.optimizer.variables]
    return [np.asarray(variable) for variable in variables]


def rows(folder):
    return [
        {k: v for k, v in row.items() if not k.endswith("_seconds")}
        for row in history.read(str(folder))
    ]


@pytest.mark.weekly(reason="three runs; test_checkpoint.py resumes one")
# What a run that is interrupted leaves open, its process closes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_kfac_run_is_continued_to_the_same_weights(tmp_path, monkeypatch):
    flags = [*FLAGS, f"--data_dir={tmp_path / 'tfds'}"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*flags, f"--output_dir={whole}"]) == 0
    with monkeypatch.context() as context:
        interrupted_after(2, context)
        assert main([*flags, f"--output_dir={cut}"]) == 130
    assert len(rows(cut)) == 2
    assert main(["train", "--resume", f"--output_dir={cut}"]) == 0
    for expected, value in zip(trained(whole), trained(cut), strict=True):
        np.testing.assert_array_equal(value, expected)
    assert rows(cut) == rows(whole)
    last = rows(whole)[-1]
    assert last["kfac_curvature_updates"] == 1 + 27 // 4
    assert last["loss"] < rows(whole)[0]["loss"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["--optimizer=adam", "--damping=0.1"],
            "--damping applies only with --optimizer=kfac",
        ),
        (
            ["--optimizer=kfac", "--estimator=hessian"],
            "--estimator must be one of",
        ),
        (["--optimizer=kfac", "--damping=-1"], "--damping"),
        (["--optimizer=kfac", "--invert_every=0"], "--invert_every"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(flags, message, capsys):
    assert main(["train", *flags]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
