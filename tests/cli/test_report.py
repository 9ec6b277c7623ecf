import json

import pytest

from keras_wd.cli import config
from keras_wd.cli import picture
from keras_wd.cli import report
from tests import catalogue


def _rows(epochs, **changes):
    return [
        {
            "epoch": epoch,
            "loss": 1.0 / (epoch + 1),
            "val_loss": 1.1,
            "accuracy": 0.8,
            "val_accuracy": 0.7,
            "sparsity": 0.5,
            "zeros": 0.4,
            "weight_norm": 3.0,
            "learning_rate": 0.1,
            "weight_decay": 0.2,
            **changes,
        }
        for epoch in range(epochs)
    ]


@pytest.mark.parametrize(
    "case",
    catalogue.quick(
        {
            "run": (_rows(20), 0.9),
            "one epoch": (_rows(1), 0.9),
            "diverged": (
                _rows(2, loss=float("nan"), val_loss=float("nan")),
                None,
            ),
            "no rate": (
                [{k: v for k, v in _rows(1)[0].items() if k != "weight_decay"}],
                0.5,
            ),
        },
        "run",
    ),
)
def test_the_picture_is_a_png(case, tmp_path):
    rows, accuracy = case
    path = tmp_path / "picture"
    picture.draw(rows, str(path), "a run", accuracy)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_summary_is_json_even_if_the_loss_is_not_finite(tmp_path):
    numbers = dict.fromkeys(report.NUMBERS, 0.25)
    values = report.summary(**{**numbers, "test_loss": float("nan")})
    report.write(values, str(tmp_path))
    text = (tmp_path / report.NAME).read_text()
    assert json.loads(text) == {**numbers, "test_loss": None}
    assert report.read(str(tmp_path)) == values


@pytest.mark.parametrize(
    "flags, line",
    [
        ([], "digits, mlp, adam 0.001, lp 0.1 with p = 0.8"),
        (["--decay=none"], "digits, mlp, adam 0.001, no decay"),
        (
            ["--decay=l2", "--coupling=coupled"],
            "digits, mlp, adam 0.001, l2 0.1 (coupled)",
        ),
    ],
)
def test_a_run_is_described_in_a_line(flags, line):
    assert report.describe(config.from_command_line(flags)) == line


def test_the_name_of_a_file_is_no_formula(tmp_path):
    path = tmp_path / "picture.png"
    picture.draw(_rows(1), str(path), r"digits, $\frac{$.keras", 0.5)
    assert path.stat().st_size
