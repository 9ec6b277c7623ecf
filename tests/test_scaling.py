"""The decay of another run keeps what its rule says it keeps."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_wd import schedules
from keras_wd import tune

SIZES = st.tuples(st.floats(1, 1e6), st.floats(1, 1e6))
RATES = st.floats(1e-6, 1.0)


@given(decay=RATES, rate=RATES, new=RATES, batch=SIZES, examples=SIZES)
def test_the_timescale_in_epochs_stays(decay, rate, new, batch, examples):
    scaled = tune.scale_weight_decay(
        decay,
        rate,
        rule="timescale",
        batch_size=batch,
        examples=examples,
        new_learning_rate=new,
    )
    before = batch[0] / (rate * decay * examples[0])
    after = batch[1] / (
        scaled.learning_rate * scaled.weight_decay * examples[1]
    )
    assert scaled.learning_rate == pytest.approx(new)
    assert after == pytest.approx(before)


@given(decay=RATES, rate=RATES, batch=SIZES, examples=SIZES)
def test_the_root_of_the_batch_keeps_it_too(decay, rate, batch, examples):
    root = tune.scale_weight_decay(
        decay,
        rate,
        rule="square_root_of_batch",
        batch_size=batch,
        examples=examples,
    )
    assert root.learning_rate == pytest.approx(
        rate * (batch[1] / batch[0]) ** 0.5
    )
    told = tune.scale_weight_decay(
        decay,
        rate,
        rule="timescale",
        batch_size=batch,
        examples=examples,
        new_learning_rate=root.learning_rate,
    )
    assert root == pytest.approx(told)


@given(decay=RATES, rate=RATES, width=SIZES)
def test_the_rules_of_width(decay, rate, width):
    grows = width[1] / width[0]
    linear = tune.scale_weight_decay(decay, rate, rule="width", width=width)
    root = tune.scale_weight_decay(
        decay, rate, rule="square_root_of_width", width=width
    )
    # mu-P: what a step takes off the weights stays.
    assert linear.weight_decay * linear.learning_rate == pytest.approx(
        decay * rate
    )
    assert linear.learning_rate == root.learning_rate
    assert linear.learning_rate == pytest.approx(rate / grows)
    assert root.weight_decay == pytest.approx(decay * grows**0.5)


def test_there_and_back_again():
    for rule, name in itertools.product(
        ("timescale", "square_root_of_batch"), ("batch_size", "examples")
    ):
        there = tune.scale_weight_decay(0.1, 1e-3, rule=rule, **{name: (8, 50)})
        assert there.weight_decay != 0.1
        back = tune.scale_weight_decay(*there, rule=rule, **{name: (50, 8)})
        assert back == pytest.approx((0.1, 1e-3))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rule": "linear", "width": (1, 2)}, "`rule` must be one of"),
        ({"rule": "width"}, "must be given for rule='width'"),
        ({"rule": "width", "batch_size": (1, 2)}, "not used by the rule"),
        ({"rule": "timescale", "width": (1, 2)}, "Use rule='width'"),
        ({"rule": "timescale", "examples": 4}, "two numbers"),
        ({"rule": "timescale", "examples": (1, 0)}, "must be a finite"),
        (
            {"rule": "timescale", "new_learning_rate": 0},
            "`new_learning_rate` must be",
        ),
        (
            {"rule": "square_root_of_batch", "new_learning_rate": 0.1},
            "not used by the rule",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tune.scale_weight_decay(0.1, 1e-3, **arguments)


def test_the_schedule_counts_epochs():
    in_updates = schedules.ConstantTimescale(0.02, 300)
    in_epochs = schedules.ConstantTimescale(0.02, 3, steps_per_epoch=100)
    assert float(in_epochs(0)) == float(in_updates(0)) == pytest.approx(1 / 6)
    again = schedules.ConstantTimescale.from_config(in_epochs.get_config())
    assert float(again(5)) == float(in_epochs(5))
    with pytest.raises(
        ValueError, match="`steps_per_epoch` must be an integer"
    ):
        schedules.ConstantTimescale(0.02, 3, steps_per_epoch=0.5)
