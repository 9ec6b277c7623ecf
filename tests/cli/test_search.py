"""The search of a comparison, from folders of trials that were trained."""

import csv
import json
import os
import re

import pytest

pytest.importorskip("optuna", reason="pip install 'keras_wd[search]'")

from keras_wd.cli import search  # noqa: E402
from keras_wd.cli.usage_errors import UsageError  # noqa: E402


def settings_of(cell):
    return {"flags": cell.flags}


def searches(folder, method="decoupled", budget=24):
    return search.Search(
        *("adam", method, search.space("adam", method, [], [])),
        *(6, budget, 0, settings_of, str(folder)),
    )


def train(job):
    """Leave in its folder what a trial leaves that was trained so far."""
    settings, folder, until = job
    os.makedirs(folder, exist_ok=True)
    (rate,) = re.findall(r"learning_rate=(\S+?)'", str(settings))
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump({"format": 1, "flags": settings, "environment": {}}, file)
    with open(os.path.join(folder, "history.csv"), "w") as file:
        file.write("epoch,loss,val_accuracy,val_loss\n")
        for epoch in range(until):
            loss = "nan" if float(rate) > 0.005 else 1 / (epoch + 1)
            accuracy = 10 * float(rate) + epoch / 100
            file.write(f"{epoch},{loss},{accuracy},{loss}\n")
    open(os.path.join(folder, "checkpoint.npz"), "w").close()


def finish(one):
    jobs = []
    while job := one.next_job():
        jobs.append(job)
        train(job)
    return jobs


def test_what_was_trained_before_is_not_trained_again(tmp_path):
    whole = finish(searches(tmp_path / "whole"))
    first = searches(tmp_path / "parts")
    for _ in range(len(whole) // 2):
        train(first.next_job())
    # The search ends here and is started again.
    second = searches(tmp_path / "parts")
    rest = finish(second)
    done = len(whole) // 2
    assert [job[2] for job in rest] == [job[2] for job in whole[done:]]
    assert [job[0] for job in rest] == [job[0] for job in whole[done:]]
    assert searches(tmp_path / "parts").next_job() is None


def test_the_outcome_is_the_best_in_validation_of_those_that_did_not_diverge(
    tmp_path,
):
    one = searches(tmp_path)
    finish(one)
    outcome = one.outcome
    assert any(trial.failed for trial in outcome.trials)
    assert outcome.best.learning_rate == max(
        t.learning_rate
        for t in outcome.trials
        if t.epochs == 6 and t.failed < 1
    )
    assert one.budget == 24 <= outcome.epochs < 24 + 6
    search.write_table([outcome], str(tmp_path / "search.csv"))
    with open(tmp_path / "search.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(outcome.trials)
    (chosen,) = [row for row in rows if row["status"] == "chosen"]
    assert float(chosen["learning_rate"]) == outcome.best.learning_rate
    assert float(chosen["val_accuracy"]) == pytest.approx(
        10 * outcome.best.learning_rate + 0.05
    )
    for row in rows:
        assert (row["status"] == "failed") == (row["val_loss"] == "")
    # Nobody goes on from there.
    assert not list(tmp_path.rglob("checkpoint.npz"))


def test_no_seed_that_is_compared_is_searched_with(tmp_path):
    settings, *_ = searches(tmp_path).next_job()
    assert settings["flags"][-1] == f"--seed={search.FIRST_SEED}"


def test_a_trial_whose_process_is_lost_counts_as_failed(tmp_path):
    one = searches(tmp_path)
    assert one.next_job()[1].endswith("trial-000")
    assert one.next_job("killed")[1].endswith("trial-001")


def test_a_folder_with_trials_of_other_flags_is_refused(tmp_path):
    settings, folder, until = searches(tmp_path).next_job()
    train(({"flags": "learning_rate=1'"}, folder, until))
    with pytest.raises(UsageError, match="runs with other flags: --flags"):
        searches(tmp_path).next_job()


def test_the_end_of_a_range_is_pointed_out(tmp_path):
    one = search.Search(
        *("sgd", "none", search.space("sgd", "none", [], [1e-4, 2e-4])),
        *(1, 1, 0, settings_of, str(tmp_path)),
    )
    finish(one)
    assert one.outcome.best.learning_rate == 1.41e-4
    assert search.notes([one.outcome]) == []
    one.outcome.best.learning_rate = 1.9e-4
    (note,) = search.notes([one.outcome])
    assert "0.00019, is at an end of what was searched, 0.0001 to" in note


@pytest.mark.parametrize("text", ["0.1", "0.1,0.01", "0,1", "1,2,3", "a,b"])
def test_limits_are_two_numbers_the_lower_first(text):
    with pytest.raises(UsageError, match=f"--rates must be .*--rates={text}"):
        search.limits("rates", text)
    assert search.limits("rates", "0.01,0.1") == [0.01, 0.1]
    assert search.limits("rates", None) == []
