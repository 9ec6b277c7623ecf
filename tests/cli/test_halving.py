"""What a search tries, on an objective that takes no training."""

import itertools
import math

import pytest

pytest.importorskip("optuna", reason="pip install 'keras_wd[search]'")

from keras_wd.cli import halving  # noqa: E402
from keras_wd.cli.halving import Space  # noqa: E402

SPACE = Space((1e-4, 1e-1), (1e-3, 1e1), (1e-3, 1.0))
BEST = (1e-2, 1e-1)


def quality(trial, until):
    """More after more epochs, most at `BEST`."""
    rates = (trial.learning_rate, trial.weight_decay)
    away = sum(
        math.log10(rate / best) ** 2
        for rate, best in zip(rates, BEST, strict=True)
    )
    return (1 - away / 20) * (1 - 0.5**until), -away


def course(objective=quality, space=SPACE, epochs=20, budget=400, seed=0):
    stages = halving.trials(space, epochs, budget, seed)
    course, answer = [], None
    while True:
        try:
            trial, until = stages.send(answer)
        except StopIteration as end:
            return end.value, course
        course.append((trial.number, until))
        answer = objective(trial, until)


def test_the_rates_found_are_near_the_best_and_better_than_the_first():
    found, _ = course()
    best = halving.best(found)
    assert best.epochs == 20
    assert best.merit > found[0].merit
    assert abs(math.log10(best.learning_rate / BEST[0])) < 0.5
    assert abs(math.log10(best.weight_decay / BEST[1])) < 0.5


def test_the_usual_rates_are_tried_first_and_to_the_end():
    found, stages = course()
    assert (found[0].learning_rate, found[0].weight_decay) == SPACE.first
    assert stages[:3] == [(0, 3), (0, 9), (0, 20)]


def test_a_rung_lets_through_what_is_in_its_best_third():
    """The rule of Li et al., 2020, as each trial arrives."""
    found, stages = course()
    reached = dict.fromkeys(range(len(found)), 0)
    for number, until in stages:
        reached[number] = max(reached[number], until)
    for stop, after in ((3, 9), (9, 20)):
        before = []
        for trial in found:
            if reached[trial.number] < stop:
                continue
            before.append(quality(trial, stop)[0])
            place = sorted(before, reverse=True).index(before[-1])
            is_let_through = place < max(1, len(before) // 3)
            assert (reached[trial.number] >= after) == is_let_through
    assert len(found) / 2 < sum(trial.epochs == 3 for trial in found)


@pytest.mark.parametrize("epochs, budget", [(20, 20), (20, 121), (1, 5)])
@pytest.mark.parametrize("decays", [True, False])
def test_a_budget_is_used_up_and_exceeded_by_the_last_trial_alone(
    epochs, budget, decays
):
    space = SPACE if decays else Space(SPACE.learning_rate, None, (1e-3, None))

    def objective(trial, until):
        assert decays or trial.weight_decay is None
        return (-abs(math.log(trial.learning_rate * 200)) / until,)

    found, _ = course(objective, space, epochs, budget)
    spent = sum(trial.epochs for trial in found)
    assert budget - halving.rungs(epochs)[0] < spent < budget + epochs
    assert spent - found[-1].epochs <= budget


def test_a_last_trial_that_does_well_is_not_cut_off():
    def objective(trial, until):
        return (float(trial.number),)  # always better than those before

    found, _ = course(objective, budget=30)
    assert [trial.epochs for trial in found] == [20, 20]
    assert halving.best(found) is found[1]


def test_the_same_seed_tries_the_same_and_another_does_not():
    assert course(budget=100) == course(budget=100)
    assert course(budget=100)[0] != course(budget=100, seed=1)[0]


def test_a_larger_budget_goes_on_where_the_smaller_one_ended():
    small, large = course(budget=100)[1], course(budget=200)[1]
    assert large[: len(small)] == small and len(large) > len(small)


def test_a_trial_that_diverges_is_never_chosen():
    def objective(trial, until):
        if trial.number % 2 == 0:
            return (math.nan,)
        return quality(trial, until)

    found, _ = course(objective)
    assert [trial.failed for trial in found[:4]] == [True, False, True, False]
    assert all(trial.epochs == 3 for trial in found if trial.failed)
    assert not halving.best(found).failed

    every, _ = course(lambda trial, until: (math.nan,), budget=30)
    assert halving.best(every) is every[0]


def test_equal_accuracies_are_decided_by_the_loss():
    losses = itertools.count(10, -1)
    found, _ = course(lambda trial, until: (0.5, -float(next(losses))))
    ended = [trial for trial in found if trial.epochs == 20]
    assert halving.best(found) is ended[-1]
