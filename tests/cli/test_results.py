"""Summing up runs, and what is said of them."""

import csv
import re

import numpy as np
import pytest
from scipy import stats

from keras_wd.cli import comparisons
from keras_wd.cli import findings
from keras_wd.cli import history
from keras_wd.cli import html_report
from keras_wd.cli import report
from keras_wd.cli import results
from keras_wd.cli.grid import WORDS
from keras_wd.cli.grid import Cell
from tests import pages


def run(
    method,
    seed,
    accuracy,
    optimizer="sgd",
    rate=0.1,
    status="done",
    sparsity=0.0,
    course=(4.0, 2.0),
    **numbers,
):
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
        "weight_norm": 1.0,
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


def seeds(method, accuracies, **numbers):
    return [run(method, s, a, **numbers) for s, a in enumerate(accuracies)]


def test_pairs_of_one_seed_show_what_means_do_not():
    runs = [
        *seeds("none", (0.80, 0.90, 0.85, 0.95)),
        *seeds("coupled", (0.81, 0.89, 0.86, 0.94)),
        *seeds("decoupled", (0.8201, 0.9199, 0.8702, 0.9698)),
    ]
    rows = {row.method: row for row in results.rows(runs)}
    found = comparisons.comparisons(list(rows.values()))
    assert len(found) == 6
    p_values = [
        stats.ttest_rel(
            *(
                [r.numbers[c.number] for r in each.done]
                for each in (c.row, c.other)
            )
        ).pvalue
        for c in found
    ]
    for one, p in zip(found, p_values, strict=True):
        assert one.difference.p == pytest.approx(p)
        smaller = sum(other < p * 0.999 for other in p_values)
        assert one.p >= min(1, p * (6 - smaller)) * 0.999
    certain = {(c.row.method, c.other.method) for c in found if c.is_certain}
    assert certain == {("decoupled", "none")}
    text = sentences(runs)
    (sentence,) = text.certain
    assert "decoupled decay at 0.1 is better than no decay: test" in sentence
    assert "test accuracy +2.00 ± 0.01 points" in sentence
    assert "Take SGD with decoupled decay at 0.1" in text.answer[0]
    assert "is certain" in text.answer[1]
    # What the fewest seeds would resolve comes first.
    assert "decoupled decay at 0.1 cannot be told from coupled" in text.open[0]
    assert "seeds would resolve the" in text.open[0]


def test_a_verdict_names_the_number_that_is_certain():
    runs = [
        *(run("none", seed, 0.9, test_loss=0.5) for seed in range(3)),
        *(
            run("decoupled", seed, 0.9 + gain, test_loss=0.4 + gain / 1e3)
            for seed, gain in enumerate((-0.02, 0.01, 0.02))
        ),
    ]
    (sentence,) = sentences(runs).certain
    verdict, *numbers = re.split("[:;] ", sentence)
    assert verdict.endswith("is better than no decay in test loss")
    assert [number[:9] for number in numbers] == ["test loss", "test accu"]


def test_who_is_ahead_while_runs_end():
    leader = results.Leader()
    assert str(leader) == "training"
    leader.add(run("lp", 0, 0.5, val_accuracy=0.99, status="diverged"))
    assert str(leader) == "training"
    leader.add(run("none", 0, 0.5, val_accuracy=0.9))
    leader.add(run("lp", 0, 0.5, val_accuracy=0.94))
    assert str(leader) == "best so far: sgd lp 0.1, 94.0%"
    leader.add(run("lp", 1, 0.5, val_accuracy=0.8))
    assert str(leader) == "best so far: sgd none, 90.0%"


def test_one_seed_proves_nothing():
    text = sentences([run("none", 0, 0.9), run("lp", 0, 0.5)])
    assert "a single seed proves nothing" in text.open[0]
    assert not text.certain


def test_the_answer_is_chosen_in_validation():
    runs = [
        *seeds("none", (0.8, 0.81, 0.82), val_accuracy=0.95),
        *seeds("lp", (0.9, 0.91, 0.93), val_accuracy=0.90),
    ]
    assert "Take SGD without decay" in sentences(runs).answer[0]
    runs = [
        *seeds("none", (0.9, 0.9101, 0.93, 0.9), val_accuracy=0.90),
        *seeds("lp", (0.8, 0.81, 0.8301, 0.8), val_accuracy=0.95),
    ]
    assert "certainly worse" in sentences(runs).answer[1]


def test_a_run_without_its_pair_is_left_out():
    runs = [
        *seeds("none", (0.9, 0.8, 0.7)),
        *seeds("lp", (0.91, 0.81)),
        run("lp", 2, 0.1, status="diverged"),
    ]
    found = comparisons.comparisons(results.rows(runs))
    assert [c.difference.seeds for c in found] == [2, 2]
    assert "Of 3 runs of SGD with p-norm decay at 0.1, 1 diverged." in (
        sentences(runs).notes
    )


@pytest.mark.parametrize(
    "optimizer, effect, expected",
    [
        ("sgd", {"relative_rate": (0.3, 3.0)}, "effective learning rate"),
        ("kfac", {"effective_damping": (4.0, 1.0)}, "effective damping"),
        ("kfac", {"jacobian_norm": (4.0, 1.0)}, "Jacobian norm"),
    ],
)
def test_the_mechanism_that_moved_is_named(optimizer, effect, expected):
    ((name, (without, with_decay)),) = effect.items()
    steady = {"jacobian_norm": 1.0}
    runs = [
        *seeds(
            "none", (0.8, 0.9), optimizer=optimizer, **{**steady, name: without}
        ),
        *seeds(
            "decoupled",
            (0.8, 0.9),
            optimizer=optimizer,
            **{**steady, name: with_decay},
        ),
    ]
    (sentence,) = sentences(runs).mechanisms
    assert f"acted through the {expected}" in sentence
    assert f"{with_decay / without:.2g} times" in sentence


def test_no_mechanism_is_named_that_one_seed_contradicts():
    runs = [
        run("none", 0, 0.9, jacobian_norm=2.0),
        run("none", 1, 0.9, jacobian_norm=2.0),
        run("decoupled", 0, 0.9, jacobian_norm=1.0),
        run("decoupled", 1, 0.9, jacobian_norm=3.0),
    ]
    assert "none of the known mechanisms" in sentences(runs).mechanisms[0]


def test_sparse_methods_at_their_cost():
    runs = [
        run("none", 0, 0.9),
        run("lp", 0, 0.85, sparsity=0.9),
        run("path_norm", 0, 0.9, sparsity=0.5),
    ]
    (sentence,) = sentences(runs).notes
    assert "p-norm decay at 0.1 leaves 10.0% of the weights" in sentence
    assert "-5.00 points" in sentence


def test_the_effective_rate_is_of_the_epochs_that_measured_it():
    """A schedule moves between two measurements; their ratio stays."""
    one = run("none", 0, 0.9, course=(1.0, 1.0, 1.0, 1.0))
    for epoch, rate in enumerate((0.4, 0.3, 0.2, 0.1)):
        one.epochs[epoch]["learning_rate"] = rate
        del one.epochs[epoch]["effective_learning_rate"]
    for epoch in (0, 3):  # what K-FAC measures is what is scheduled
        rate = one.epochs[epoch]["learning_rate"]
        one.epochs[epoch]["effective_learning_rate"] = rate
    (row,) = results.rows([one])
    epochs, values = row.curve("relative_rate")
    assert epochs.tolist() == [1, 4] and values.tolist() == [1.0, 1.0]


@pytest.mark.skipif(not pages.BROWSER, reason="no Chromium or Chrome is here")
@pytest.mark.slow(reason="opens a browser")
@pytest.mark.one_backend
def test_the_page_fits_a_screen_and_a_telephone(tmp_path):
    runs = [
        run(method, seed, 0.5 + 0.01 * place, optimizer=optimizer)
        for place, method in enumerate(WORDS)
        for optimizer in ("sgd", "adam", "kfac")
        for seed in range(3)
    ]
    path = tmp_path / "report.html"
    command = "keras-wd compare --optimizers=sgd,adam,kfac " + 9 * "--flag=x "
    html_report.write(runs, str(path), "digits, mlp", "sub", command, "env")
    for width in (1280, 400):
        found = pages.widths(path, width)
        assert abs(found["room"] - width) < 20
        assert found["width"] <= found["room"] and not found["wide"], found
    shown = pages.Page(pages.rendered(path))
    assert len(shown.tables["results"]) == 1 + 3 * len(WORDS)
    assert len(shown.pictures) >= 4


def test_the_page_escapes_what_users_name(tmp_path):
    runs = [run("none", 0, 0.9), run("lp", 0, 0.8, sparsity=0.5)]
    named = Cell("<script>1</script>", "lp", 0.1, 0)
    runs.append(results.Run(named, "failed", "<script>2", {}, []))
    path = tmp_path / "report.html"
    html_report.write(runs, str(path), "<b>digits</b>", "&", "cmd '<x>'", "env")
    text = path.read_text()
    assert "&lt;b&gt;digits" in text and "<b>digits" not in text
    assert "&lt;x&gt;" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert 'src="http' not in text and "<script" not in text


def test_a_comparison_in_which_everything_was_lost_still_has_a_page(tmp_path):
    path = tmp_path / "report.html"
    lost = results.Run(Cell("sgd", "none", None, 0), "failed", "killed", {}, [])
    found = html_report.write([lost], str(path), "digits", "", "", "")
    assert "Of 1 runs of SGD without decay, 1 failed." in found.notes
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


def test_the_metrics_of_a_model_are_columns_and_in_the_page(tmp_path):
    scores = [0.25, 0.75]
    runs = [
        run("none", seed, 0.9, test_recall=score, val_recall=score)
        for seed, score in enumerate(scores)
    ]
    path = tmp_path / "runs.csv"
    results.write_table(runs, str(path))
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["test_recall"]) for row in rows] == scores
    assert [float(row["val_recall"]) for row in rows] == scores
    page = tmp_path / "report.html"
    html_report.write(runs, str(page), "digits", "", "", "")
    shown = pages.Page(page.read_text())
    header, cells = shown.tables["results"]
    assert cells[header.index("test recall")].startswith("0.5")


def test_a_summary_with_other_metrics_is_read_back(tmp_path):
    values = dict.fromkeys(report.NUMBERS, 1.0)
    report.write({**values, "test_recall": 0.5}, str(tmp_path))
    (tmp_path / history.NAME).write_text(
        "epoch,val_loss,val_recall,recall\n0,2.0,0.25,1.0\n"
    )
    found = results.read(Cell("sgd", "none", None, 0), str(tmp_path), "")
    assert found.status == "done"
    assert found.numbers["test_recall"] == 0.5
    assert found.numbers["val_recall"] == 0.25
    assert "recall" not in found.numbers
