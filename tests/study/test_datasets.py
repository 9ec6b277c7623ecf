import numpy as np
import pytest
import tensorflow_datasets as tfds

from keras_wd.study import datasets
from keras_wd.study.errors import UsageError


class _Made(tfds.core.GeneratorBasedBuilder):
    """A tiny set made here; a subclass says of what."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = {"train": 40}
    IMAGE = tfds.features.Image(shape=(6, 6, 3))
    LABEL = tfds.features.ClassLabel(num_classes=4)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"image": self.IMAGE, "label": self.LABEL}
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {
            name: self._generate_examples(offset, count)
            for offset, (name, count) in enumerate(self.SPLITS.items())
        }

    def _generate_examples(self, offset, count):
        rng = np.random.default_rng(offset)
        for index in range(count):
            image = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            image[..., 2] = 7
            yield index, {"image": image, "label": index % 4}


class MadeColour(_Made):
    SPLITS = {"train": 40, "test": 8}


class MadeTrainOnly(_Made):
    pass


class MadeWithValidation(_Made):
    SPLITS = {"train": 40, "validation": 8}


class MadeOfAllSizes(_Made):
    IMAGE = tfds.features.Image(shape=(None, None, 3))


class MadeToRegress(_Made):
    LABEL = tfds.features.Scalar(dtype=np.int64)


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


def test_images_of_different_sizes_are_resized(tmp_path):
    data = datasets.load("made_of_all_sizes", str(tmp_path))
    assert data.input_shape == (6, 6, 3)
    data = datasets.load("made_of_all_sizes", str(tmp_path), image_size="4,8")
    assert data.input_shape == (4, 8, 3)


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


@pytest.mark.parametrize(
    "name, message",
    [
        ("made_to_regress", "is not an image-classification set"),
        ("digist", "is not a data set of .* Did you mean 'digits'"),
        ("emnist/leters", "is not a form .* Did you mean 'letters'"),
        ("mnist:9.9.9", "is not a form or version of mnist"),
    ],
)
def test_load_rejects(name, message, tmp_path):
    with pytest.raises(UsageError, match=f"--dataset={name} {message}"):
        datasets.load(name, str(tmp_path))


def test_load_rejects_a_folder_that_is_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(UsageError, match="--data_dir=.*cannot be written to"):
        datasets.load("digits", str(path / "x"))
