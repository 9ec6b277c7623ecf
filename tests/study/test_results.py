"""Summing up runs, and what is said of them."""

import csv

import numpy as np
import pytest

from keras_wd.study import findings
from keras_wd.study import page
from keras_wd.study import results
from keras_wd.study.grid import Cell


def run(method, seed, accuracy, optimizer="sgd", rate=0.1, status="done",
        sparsity=0.0, course=(4.0, 2.0), **numbers):  # fmt: skip
    """A run as `results.read` returns it."""
    epochs = [
        {
            "epoch": epoch,
            "val_loss": 1.0,
            "learning_rate": 0.5,
            "effective_learning_rate": value,
            "jacobian_norm": value,
        }
        for epoch, value in enumerate(course)
    ]
    found = {
        "test_accuracy": accuracy,
        "test_loss": 1 - accuracy,
        "val_accuracy": accuracy,
        "val_loss": 1 - accuracy,
        "sparsity": sparsity,
        "jacobian_norm": course[-1],
        "seconds": 1.0,
        **numbers,
    }
    cell = Cell(optimizer, method, None if method == "none" else rate, seed)
    problem = "" if status == "done" else "the loss was not finite"
    return results.Run(cell, status, problem, found, epochs)


def test_means_and_standard_errors_over_seeds():
    runs = [run("none", seed, a) for seed, a in enumerate((0.9, 0.92, 0.97))]
    (row,) = results.rows(runs)
    mean = row.means["test_accuracy"]
    assert mean.value == pytest.approx(0.93)
    assert mean.error == pytest.approx(
        np.std([0.9, 0.92, 0.97], ddof=1) / 3**0.5
    )
    (row,) = results.rows(runs[:1])
    assert row.means["test_accuracy"].error is None


def test_curves_are_means_over_the_epochs_all_runs_have():
    runs = [
        run("none", 0, 0.9, course=(4.0, 2.0, 1.0)),
        run("none", 1, 0.9, course=(2.0, 4.0)),
    ]
    (row,) = results.rows(runs)
    epochs, values = row.curve("jacobian_norm")
    assert epochs.tolist() == [1, 2] and values.tolist() == [3.0, 3.0]
    assert row.curve("relative_rate")[1].tolist() == [6.0, 6.0]
    assert row.curve("effective_damping") is None


def test_a_rate_of_zero_says_nothing_of_the_effective_one():
    one = run("none", 0, 0.9, course=(4.0, 2.0, 1.0))
    one.epochs[2]["learning_rate"] = 0.0
    (row,) = results.rows([one])
    assert row.curve("relative_rate")[0].tolist() == [1, 2]


def test_the_rate_best_in_validation_is_chosen():
    runs = [
        run("lp", 0, 0.9, rate=0.1, val_accuracy=0.95),
        run("lp", 0, 0.99, rate=0.2, val_accuracy=0.94),
        run("lp", 0, 0.5, rate=0.3, status="diverged"),
    ]
    (row,) = results.chosen(results.rows(runs))
    assert row.weight_decay == 0.1


def sentences(runs):
    return findings.findings(results.chosen(results.rows(runs)))


def test_a_difference_within_two_standard_errors_is_none():
    runs = [
        *(run("none", s, a) for s, a in enumerate((0.90, 0.94))),
        *(run("decoupled", s, a) for s, a in enumerate((0.92, 0.95))),
    ]
    text = " ".join(sentences(runs))
    assert "cannot be told from SGD without decay" in text
    assert "1.50 points, standard error 2.50" in text


def test_a_larger_difference_is_one():
    runs = [
        *(run("none", s, a) for s, a in enumerate((0.90, 0.91))),
        *(run("coupled", s, a) for s, a in enumerate((0.90, 0.91))),
        *(run("decoupled", s, a) for s, a in enumerate((0.95, 0.96))),
    ]
    text = " ".join(sentences(runs))
    assert "is higher in test accuracy than SGD without decay" in text
    assert "Decoupled decay is higher than coupled decay for SGD" in text


def test_one_seed_proves_nothing():
    text = " ".join(sentences([run("none", 0, 0.9), run("lp", 0, 0.5)]))
    assert "run more seeds" in text and "is higher" not in text


def test_the_mechanisms_are_told_from_the_numbers():
    runs = [
        run("none", 0, 0.9, course=(8.0, 2.0)),
        run("decoupled", 0, 0.9, course=(8.0, 12.0)),
    ]
    text = " ".join(sentences(runs))
    assert "went to 0.25 times its first value without decay" in text
    assert "1.5 times with decoupled decay" in text
    assert "ended at 2 without decay and at 12" in text


def test_sparse_methods_at_their_cost():
    runs = [
        run("none", 0, 0.9),
        run("lp", 0, 0.85, sparsity=0.9),
        run("path_prox", 0, 0.9, sparsity=0.5),
    ]
    text = " ".join(sentences(runs))
    assert "p-norm decay at 0.1 leaves 10.0% of the weights, 5.00" in text


def test_lost_runs_are_told():
    runs = [run("lp", 0, 0.9), run("lp", 1, 0.1, status="diverged")]
    assert "Of 2 runs of SGD with p-norm decay at 0.1 1 diverged." in (
        sentences(runs)
    )


def test_the_page_escapes_what_users_name(tmp_path):
    runs = [run("none", 0, 0.9), run("lp", 0, 0.8, sparsity=0.5)]
    named = Cell("<script>1</script>", "lp", 0.1, 0)
    runs.append(results.Run(named, "failed", "<script>2", {}, []))
    path = tmp_path / "report.html"
    page.write(runs, str(path), "<b>digits</b>", "&", "cmd '<x>'", "env")
    text = path.read_text()
    assert "&lt;b&gt;digits" in text and "<b>digits" not in text
    assert "&lt;x&gt;" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert 'src="http' not in text and "<script" not in text


def test_a_comparison_in_which_everything_was_lost_still_has_a_page(tmp_path):
    path = tmp_path / "report.html"
    lost = results.Run(Cell("sgd", "none", None, 0), "failed", "killed", {}, [])
    found = page.write([lost], str(path), "digits", "", "", "")
    assert "Of 1 runs of SGD without decay 1 failed." in found
    assert "failed: killed" in path.read_text()


def test_the_table_has_a_line_per_run(tmp_path):
    runs = [run("none", 0, 0.9), run("lp", 1, 0.1, status="diverged")]
    path = tmp_path / "runs.csv"
    results.write_table(runs, str(path))
    with open(path, newline="") as file:
        none, lp = csv.DictReader(file)
    assert (none["method"], none["weight_decay"]) == ("none", "")
    assert float(none["test_accuracy"]) == 0.9
    assert (lp["status"], lp["seed"]) == ("diverged", "1")
