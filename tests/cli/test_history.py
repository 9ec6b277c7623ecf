"""The logs of the epochs as CSV: what was not measured is a gap."""

import math

from keras_wd.cli import history
from keras_wd.cli import picture


def write(folder, *logs):
    writer = history.writer(str(folder))
    for epoch, each in enumerate(logs):
        writer.on_epoch_end(epoch, each)


def test_what_an_epoch_did_not_measure_is_empty(tmp_path):
    write(tmp_path, {"loss": 1.0, "norm": 2.0}, {"loss": 0.5}, {"loss": 0.2})
    text = (tmp_path / history.NAME).read_text().splitlines()
    assert text == ["epoch,loss,norm", "0,1.0,2.0", "1,0.5,", "2,0.2,"]
    assert history.read(str(tmp_path))[1] == {"epoch": 1.0, "loss": 0.5}


def test_a_number_may_begin_later(tmp_path):
    write(tmp_path, {"loss": 1.0}, {"loss": 0.5, "angle": 0.1})
    first, second = history.read(str(tmp_path))
    assert "angle" not in first and second["angle"] == 0.1
    history.truncate(str(tmp_path), 1)
    assert len(history.read(str(tmp_path))) == 1


def test_nan_is_a_number_that_was_measured(tmp_path):
    write(tmp_path, {"loss": math.nan})
    assert math.isnan(history.read(str(tmp_path))[0]["loss"])


def test_a_picture_of_a_course_with_gaps(tmp_path):
    rows = [
        {
            "epoch": 0.0,
            "loss": 1.0,
            "val_loss": 1.0,
            "accuracy": 0.5,
            "val_accuracy": 0.5,
            "zeros": 0.0,
            "sparsity": 0.0,
            "weight_norm": 1.0,
            "learning_rate": 0.1,
        },
        {
            "epoch": 1.0,
            "loss": 0.5,
            "zeros": 0.0,
            "accuracy": 0.6,
            "sparsity": 0.0,
            "learning_rate": 0.1,
        },
    ]
    path = tmp_path / "picture.png"
    picture.draw(rows, str(path), "a run", 0.5)
    assert path.read_bytes().startswith(b"\x89PNG")
