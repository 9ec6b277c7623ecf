import numpy as np
import pytest

from keras_wd.cli import datasets
from keras_wd.cli.usage_errors import UsageError
from tests.cli import made  # noqa: F401  (registers its sets)


@pytest.mark.parametrize(
    "name, sizes, carved",
    [
        ("made_train_only", (32, 4, 4), ("test", "validation")),
        ("made_with_validation", (36, 4, 8), ("validation",)),
    ],
)
def test_missing_splits_are_cut_off_the_training_images(
    name, sizes, carved, tmp_path
):
    data = datasets.load(name, str(tmp_path))
    assert (len(data.train), len(data.validation), len(data.test)) == sizes
    assert data.carved == carved
    assert data.input_shape == (6, 6, 3)
    assert data.classes == 4
    assert data.is_colour
    again = datasets.load(name, str(tmp_path))
    np.testing.assert_array_equal(
        data.validation.inputs, again.validation.inputs
    )


def test_carved_splits_share_no_image():
    images = np.arange(50).reshape(50, 1, 1, 1)
    rest, cut = datasets.carve(datasets.Split(images, np.arange(50)))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([rest.targets, cut.targets])), np.arange(50)
    )
    np.testing.assert_array_equal(cut.inputs.ravel(), cut.targets)
    assert len(cut) == 5


def test_few_training_images_leave_the_others_to_the_test(digits):
    few = datasets.few(digits, 300, seed=3)
    assert (len(few.train), len(few.test)) == (300, 364 + 953)
    assert few.validation is digits.validation

    def sorted_images(*splits):
        rows = np.concatenate([s.inputs.reshape(-1, 64) for s in splits])
        return rows[np.lexsort(rows.T)]

    np.testing.assert_array_equal(
        sorted_images(few.train, few.test),
        sorted_images(digits.train, digits.test),
    )
    pixels = few.standardise(few.train.inputs)
    assert abs(pixels.mean()) < 1e-5 and abs(pixels.std() - 1) < 1e-5
    again, other = (datasets.few(digits, 300, seed) for seed in (3, 4))
    np.testing.assert_array_equal(again.train.inputs, few.train.inputs)
    assert not np.array_equal(other.train.inputs, few.train.inputs)
    assert datasets.few(digits, None, 0) is digits
    with pytest.raises(UsageError, match="--train_examples must be at most"):
        datasets.few(digits, 1254, 0)


def test_standardised_training_images_have_mean_0_and_deviation_1(tmp_path):
    data = datasets.load("made_colour", str(tmp_path))
    pixels = data.standardise(data.train.inputs)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), 0, atol=1e-5)
    # The third channel never varies: it is zero, not divided by zero.
    np.testing.assert_allclose(pixels.std((0, 1, 2)), [1, 1, 0], atol=1e-5)


def test_digits_are_not_colour_and_need_no_carving(digits):
    assert not digits.is_colour
    assert digits.carved == ()
    assert digits.classes == 10
