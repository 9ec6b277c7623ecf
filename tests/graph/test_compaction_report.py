"""The figures of a compaction."""

import gzip
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from keras_wd import graph
from keras_wd.__main__ import main
from keras_wd.graph.sizes import csr_bytes
from tests.graph.architectures import assert_same_outputs
from tests.graph.architectures import examples
from tests.graph.architectures import randomize


@pytest.fixture
def model():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="relu", name="a"),
            layers.DepthwiseConv2D(2, name="depthwise"),
            layers.Flatten(),
            layers.Dense(10, "relu", name="b"),
            layers.Dense(3, name="c"),
        ]
    )
    randomize(model)
    kernel = np.asarray(model.get_layer("c").kernel).copy()
    kernel[:6] = 0
    model.get_layer("c").kernel.assign(kernel)
    return model


def test_the_figures_are_those_of_the_layers(model):
    smaller, report = graph.compact(model, report=True)
    before, after = report.before, report.after
    assert (before.units, after.units) == (4 + 10 + 3, 4 + 4 + 3)
    # Window * channels * units * positions, and inputs * units.
    shared = 9 * 2 * 4 * 16 + 4 * 4 * 9
    assert before.multiply_adds == shared + 36 * 10 + 10 * 3
    assert after.multiply_adds == shared + 36 * 4 + 4 * 3
    assert before.parameters == model.count_params()
    assert after.parameters == smaller.count_params()
    assert before.dense_bytes == 4 * model.count_params()
    assert after.file_bytes < before.file_bytes
    weights = b"".join(np.asarray(v).tobytes() for v in model.weights)
    assert before.gzip_bytes == len(gzip.compress(weights, 6))
    assert report.milliseconds_before > 0 and report.milliseconds_after > 0
    assert report.not_counted == ()
    rows = {row.layer: row for row in report.layers}
    assert (rows["b"].units_before, rows["b"].units_after) == (10, 4)
    assert "left whole: its output is an output" in rows["c"].note


def test_a_sparse_kernel_is_counted_as_rows():
    weights = np.zeros((3, 2, 5), "float32")
    weights[0, 0, :2] = 1
    assert csr_bytes(weights) == 2 * (4 + 4) + (6 + 1) * 4
    assert csr_bytes(np.ones(5, "float32")) == 20


def test_zeros_that_stay_are_sparse_and_not_fewer_multiplications():
    model = keras.Sequential([keras.Input((100,)), layers.Dense(100)])
    kernel = np.eye(100, dtype="float32")
    model.layers[0].kernel.assign(kernel)
    _, report = graph.compact(model, report=True)
    assert report.after.multiply_adds == 100 * 100
    assert report.after.csr_bytes < report.after.dense_bytes / 10
    assert report.after.gzip_bytes < report.after.dense_bytes / 10
    assert "make neither it nor its file faster" in str(report)


def test_the_report_is_a_table(model):
    _, report = graph.compact(model, report=True)
    text = str(report)
    for word in ("multiply-adds", "CSR", "gzip", "batch of 256", "file"):
        assert word in text
    assert f"{report.before.parameters:,}" in text


def test_sizes_that_are_not_fixed_are_left_open():
    model = keras.Sequential(
        [
            keras.Input((None, None, 2)),
            layers.Conv2D(4, 3, name="a"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(2),
        ]
    )
    _, report = graph.compact(model, report=True)
    assert report.before.multiply_adds is None
    assert report.milliseconds_before is None
    assert "-" in str(report)


def test_layers_that_are_not_counted_are_named():
    model = keras.Sequential(
        [keras.Input((4, 3)), layers.LSTM(5, name="memory"), layers.Dense(2)]
    )
    _, report = graph.compact(model, report=True)
    assert report.not_counted == ("memory",)
    said = "left whole: memory (LSTM) is recurrent"
    assert report.layers[0].note.startswith(said)
    assert "leave out: memory" in str(report)


# The command.


def test_the_command_writes_a_smaller_model(model, tmp_path, capsys):
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    source, target = str(tmp_path / "model.keras"), str(tmp_path / "s.keras")
    assert main(["compact", source, "-o", target]) == 0
    printed = capsys.readouterr().out
    assert "multiply-adds" in printed and f"Saved {target}" in printed
    smaller = keras.saving.load_model(target)
    assert smaller.get_layer("b").units == 4
    assert_same_outputs(model, smaller, examples(model))
    again = str(tmp_path / "again.keras")
    assert main(["compact", f"--output={again}", target]) == 0
    assert "No unit of" in capsys.readouterr().out
    assert keras.saving.load_model(again).get_layer("b").units == 4


MISTAKES = {
    "needs one saved model. Received: none": [],
    "nothing.keras does not exist": ["nothing.keras", "-o", "b.keras"],
    "-o must name the file": ["a.keras"],
    "ends in .keras. Received: b.h5": ["a.keras", "-o", "b.h5"],
    "Received: --threshold=-1": ["a.keras", "-o", "b.keras", "--threshold=-1"],
    "Unknown command line flag 'outptu'": ["a.keras", "--outptu=b.keras"],
    "cannot be loaded": ["broken.keras", "-o", "b.keras"],
    "cannot be written": ["a.keras", "-o", "missing/b.keras"],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(
    message, model, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    model.save("a.keras")
    (tmp_path / "broken.keras").write_text("no model")
    assert main(["compact", *MISTAKES[message]]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("keras-wd compact: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "b.keras").exists()


class Computed(keras.Model):
    def call(self, x):
        return x


def test_a_model_that_cannot_be_read_is_told_in_one_line(
    tmp_path, capsys, monkeypatch
):
    model = Computed()
    model(np.zeros((1, 2)))
    monkeypatch.setattr(
        keras.saving, "load_model", lambda *args, **kwargs: model
    )
    zipfile.ZipFile(tmp_path / "a.keras", "w").close()
    arguments = [str(tmp_path / "a.keras"), "-o", str(tmp_path / "b.keras")]
    assert main(["compact", *arguments]) == 2
    assert "must be a Sequential or Functional" in capsys.readouterr().err
