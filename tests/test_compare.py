"""`keras-wd compare` as a user runs it."""

import csv
import json
import re

import pytest

from keras_wd.__main__ import main
from keras_wd.cli import executors
from keras_wd.cli import worker
from tests.pages import Page

pytestmark = pytest.mark.one_backend
FLAGS = (
    "--optimizers=sgd",
    "--decays=none,lp",
    "--seeds=1",
    "--epochs=2",
    "--hidden_units=16",
)


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*flags):
        status = main(["compare", *flags])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.mark.slow(reason="trains, and draws the whole report twice")
def test_a_comparison_from_flags_to_report_and_again(compare, tmp_path):
    # Only with normalization do directions have a learning rate of their own.
    flags = (*FLAGS, "--batch_norm", "--workers=1")
    status, out, _ = compare(*flags)
    assert status == 0
    assert "Answer:\n  - Take SGD" in out
    folder = tmp_path / "comparison"
    page = Page((folder / "report.html").read_text("utf-8"))
    header, *rows = page.tables["results"]
    assert [row[:2] for row in rows] == [
        ["sgd", "none"],
        ["sgd", "p-norm decay"],
    ]
    with open(folder / "runs.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    column = header.index("test accuracy")
    for row, run in zip(rows, runs, strict=True):
        assert row[column] == f"{float(run['test_accuracy']):.2%}"
    titles = [title for title, _ in page.pictures]
    assert titles[:2] == ["Test accuracy", "Test loss"]
    assert "Effective learning rate" in titles and "Jacobian norm" in titles
    for _, source in page.pictures:
        assert source.startswith("data:image/svg+xml;base64,")

    # Again: what is complete is not repeated, what is missing is made up.
    (lost,) = (folder / "runs").glob("sgd-lp-*")
    before = {
        path: path.stat().st_mtime_ns for path in folder.rglob("summary.json")
    }
    (lost / "summary.json").unlink()
    status, out, _ = compare(*flags)
    assert status == 0 and "1 of them done before" in out
    after = {
        path: path.stat().st_mtime_ns for path in folder.rglob("summary.json")
    }
    changed = [path for path in after if after[path] != before[path]]
    assert [path.parent for path in changed] == [lost]
    with open(folder / "runs.csv", newline="") as file:
        again = list(csv.DictReader(file))
    for one, other in zip(runs, again, strict=True):
        assert one["test_loss"] == other["test_loss"]

    # Other flags do not mix with the runs that are there.
    status, _, errors = compare(
        *FLAGS[:-1], "--batch_norm", "--hidden_units=17"
    )
    assert status == 2
    assert "has runs with other flags: --hidden_units. Choose" in errors


@pytest.mark.weekly(reason="a second comparison, for one row of it")
def test_a_run_that_diverges_is_told_and_the_others_go_on(compare, tmp_path):
    status, out, _ = compare(
        *FLAGS[:1],
        "--decays=none,decoupled",
        *FLAGS[2:],
        "--rates=1e30",
        "--nobatch_norm",
    )
    assert status == 0
    assert "with decoupled decay at 1e+30, 1 diverged" in " ".join(out.split())
    stored = tmp_path / "comparison" / "runs" / "sgd-decoupled-1e+30-seed0"
    assert (
        json.loads((stored / "summary.json").read_text())["test_loss"] is None
    )


@pytest.mark.weekly(reason="trains what test_search.py tests in parts")
def test_a_search_chooses_the_rates_that_are_compared(compare, tmp_path):
    pytest.importorskip("optuna", reason="pip install 'keras_wd[search]'")
    flags = (
        *FLAGS,
        "--decays=lp",
        "--epochs=3",
        "--search=asha",
        "--search_budget=2",
    )
    status, out, _ = compare(*flags)
    assert status == 0
    folder = tmp_path / "comparison"
    with open(folder / "search.csv", newline="") as file:
        trials = list(csv.DictReader(file))
    with open(folder / "runs.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    assert 6 <= sum(int(row["epochs"]) for row in trials) < 6 + 3
    (chosen,) = [row for row in trials if row["status"] == "chosen"]
    (run,) = runs
    assert chosen["epochs"] == "3"
    for rate in "learning_rate", "weight_decay":
        assert run[rate] == chosen[rate]
    # Another seed: other weights, other batches.
    assert run["val_loss"] != chosen["val_loss"]
    rate = f"learning rate {float(chosen['learning_rate']):g}"
    assert f"sgd lp: {rate}" in " ".join(out.split())
    page = Page((folder / "report.html").read_text("utf-8"))
    assert len(page.tables["trials"]) == 1 + len(trials)
    assert "learning rate" in page.tables["results"][0]

    # A trial that was stopped, resumed, is a run like any other.
    stage = trials[0]
    status = main(
        [
            "train",
            "--optimizer=sgd",
            "--decay=lp",
            "--hidden_units=16",
            "--epochs=3",
            "--batch_size=20",
            "--train_examples=300",
            "--seed=1000000",
            f"--weight_decay={stage['weight_decay']}",
            f"--learning_rate={stage['learning_rate']}",
            f"--output_dir={tmp_path / 'plain'}",
        ]
    )
    assert status == 0
    for path in (
        folder / "search" / "sgd-lp" / "trial-000" / "history.csv",
        tmp_path / "plain" / "history.csv",
    ):
        with open(path, newline="") as file:
            last = list(csv.DictReader(file))[-1]
        assert float(last["val_loss"]) == pytest.approx(
            float(stage["val_loss"]), rel=1e-4
        )

    # Again: nothing is searched, and nothing changes.
    before = (folder / "search.csv").read_bytes()
    (folder / "search.csv").unlink()
    status, out, _ = compare(*flags)
    assert status == 0 and "1 of them done before" in out
    assert (folder / "search.csv").read_bytes() == before

    status, _, errors = compare(*flags, "--learning_rate=0.1")
    assert status == 2 and "Use --learning_rates=LOWEST,HIGHEST" in errors
    status, _, errors = compare(*flags, "--rates=0.1")
    assert status == 2 and "--rates must be the lowest and the high" in errors
    status, _, errors = compare(*flags, "--hidden_units=17")
    assert status == 2 and "with other flags: --hidden_units" in errors


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--optimizers=sdg"], r"--optimizers must be one of sgd.*mean 'sgd'"),
        (["--decays=none,l2"], "--decays must be one of none, coupled"),
        (["--decays=none,none"], "--decays must be distinct names"),
        (["--seeds=0"], "--seeds must be an integer in the range .1, 10000."),
        (["--rates=-1"], "--rates must be numbers from 0 up"),
        (["--search=grid"], "--search must be one of none, asha"),
        (["--search_budget=2"], "search_budget applies only with --search=a"),
        (["--learning_rates=1,2"], "rates applies only with --search=asha"),
        (["--executor=slurm"], "--executor must be one of local, ray"),
        (["--optimizer=sgd"], "is what the comparison varies. Use --optimi"),
        (["--seed=3"], "is what the comparison varies. Use --seeds"),
        (["--weight_decay=3"], "comparison varies. Use --rates"),
        (["--epoch=3"], "--epoch=3 is not a flag of compare. .*'--epochs'"),
        (["--epochs"], "--epochs needs a value, as in --epochs=VALUE"),
        (["--dataset", "t.csv"], "--dataset=.*t.csv does not exist"),
        (["t.csv"], "'t.csv' is not a flag; flags look like --dataset"),
        (["--model=no.keras"], "--model=.*no.keras does not exist"),
        (["--epochs=0"], "--epochs must be a positive integer"),
        (["--dataset=digist"], "--dataset=digist is not a data set"),
        (["--output_dir=file"], "--output_dir=.*file.* is a file"),
        (
            ["--decays=fixed_norm", "--nobatch_norm"],
            "fixed_norm needs --batch_norm",
        ),
        (
            ["--decays=none,path_norm", "--batch_norm"],
            "path_norm needs --nobatch_norm",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    compare, tmp_path, flags, message
):
    (tmp_path / "file").write_text("")
    status, _, errors = compare(*flags)
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert errors.startswith("keras-wd compare: ")
    assert re.search(message, errors), errors
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_first_run_refuses_ends_the_comparison(
    compare, tmp_path, monkeypatch
):
    def here(jobs, workers):
        while jobs:
            job = jobs.pop(0)
            yield job[1], worker.run(*job)

    monkeypatch.setitem(executors.EXECUTORS, "local", here)
    status, _, errors = compare(*FLAGS, "--where=layer('none')")
    assert status == 2
    assert "--where=layer('none') with --decay=lp: " in errors
    assert not list(tmp_path.iterdir())


def test_help_lists_the_flags(compare):
    status, out, _ = compare("--help")
    assert status == 0
    for flag in ("--optimizers [sgd,adam,kfac]", "--seeds [5]", "--executor"):
        assert flag in out
