import numpy as np
import pytest

from keras_wd import errors

pytestmark = pytest.mark.one_backend


@pytest.mark.parametrize(
    "bounds, value",
    [
        ({}, -3),
        ({"above": 0}, 1e-9),
        ({"minimum": 0}, 0),
        ({"minimum": 0, "maximum": 1}, 1.0),
        ({"above": 0, "maximum": 4}, np.float64(4)),
    ],
)
def test_a_number_in_range_becomes_a_float(bounds, value):
    result = errors.check_number("rate", value, **bounds)
    assert type(result) is float or isinstance(result, float)
    assert result == value


@pytest.mark.parametrize(
    "bounds, value, expected",
    [
        ({}, "1", "a finite number"),
        ({}, None, "a finite number"),
        ({}, True, "a finite number"),
        ({}, [1.0], "a finite number"),
        ({}, float("nan"), "a finite number"),
        ({}, float("-inf"), "a finite number"),
        ({"above": 0}, 0, "a finite number > 0"),
        ({"minimum": 0}, -1e-9, "a finite number >= 0"),
        ({"maximum": 1}, 1.5, "a finite number <= 1"),
        ({"minimum": 0.1, "maximum": 4}, 5, "a finite number >= 0.1 and <= 4"),
    ],
)
def test_a_number_out_of_range_is_rejected(bounds, value, expected):
    with pytest.raises(ValueError) as error:
        errors.check_number("rate", value, **bounds)
    assert str(error.value) == (
        f"`rate` must be {expected}. Received: rate={value!r}"
    )


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int64])
def test_numpy_numbers_are_numbers(kind):
    assert errors.check_number("rate", kind(2), minimum=0) == 2.0


def test_counts():
    assert errors.check_count("steps", 3) == 3
    assert errors.check_count("steps", 0, minimum=0) == 0
    assert errors.check_count("steps", np.int64(3)) == 3


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_what_is_no_count_is_rejected(value):
    with pytest.raises(ValueError) as error:
        errors.check_count("steps", value)
    assert str(error.value) == (
        f"`steps` must be an integer >= 1. Received: steps={value!r}"
    )


def test_choices():
    assert errors.check_choice("mode", "min", ["min", "max"]) == "min"
    with pytest.raises(ValueError) as error:
        errors.check_choice("mode", "mim", iter(["min", "max"]))
    assert str(error.value) == (
        "`mode` must be one of 'min', 'max'. Received: mode='mim'. "
        "Did you mean 'min'?"
    )
    with pytest.raises(ValueError) as error:
        errors.check_choice("mode", 3, ["min", "max"])
    assert str(error.value) == (
        "`mode` must be one of 'min', 'max'. Received: mode=3"
    )


def test_did_you_mean_is_empty_without_a_near_choice():
    assert errors.did_you_mean("zzz", ["min", "max"]) == ""
    assert errors.did_you_mean("maxx", ["min", "max"]) == (
        ". Did you mean 'max'?"
    )


@pytest.mark.parametrize(
    "value, none, expected",
    [
        (-1, False, -1),
        ([0, 1], False, (0, 1)),
        ((-1,), True, (-1,)),
        (None, True, None),
    ],
)
def test_axes(value, none, expected):
    assert errors.check_axis("axis", value, none=none) == expected


@pytest.mark.parametrize("value", [0.5, "0", (), (0, 0.5), True, None])
def test_what_is_no_axis_is_rejected(value):
    with pytest.raises(ValueError) as error:
        errors.check_axis("axis", value)
    assert str(error.value) == (
        "`axis` must be an integer or a tuple of integers. "
        f"Received: axis={value!r}"
    )
    if value is not None:
        with pytest.raises(ValueError, match="a tuple of integers or None"):
            errors.check_axis("axis", value, none=True)


def test_axes_that_fit():
    for axis in (-1, 1, (0, -1), None):
        errors.check_axis_fits("axis", axis, (3, 4), "m/kernel")


@pytest.mark.parametrize("axis", [2, -3, (0, 5)])
def test_axes_that_do_not_fit(axis):
    with pytest.raises(ValueError) as error:
        errors.check_axis_fits("axis", axis, (3, 4), "m/kernel")
    assert str(error.value) == (
        "`axis` must be an axis of every selected variable. Received: "
        f"axis={axis!r}, but m/kernel has shape (3, 4)."
    )
