import itertools

import numpy as np
import pytest

from keras_wd.cli import batches
from keras_wd.cli.datasets import DataSet
from keras_wd.cli.datasets import Split


@pytest.fixture
def data():
    """50 colour images; all pixels of image i have the value i."""
    labels = np.arange(50)
    images = np.broadcast_to(labels[:, None, None, None], (50, 6, 6, 3))
    split = Split(images.astype("uint8"), labels)
    return DataSet(
        name="numbered",
        train=split,
        validation=split.take(labels[:5]),
        test=split,
        classes=50,
        mean=np.zeros(3, "float32"),
        deviation=np.full(3, 2.0, "float32"),
    )


def _drawn(data, epochs, seed=3, augment=False):
    return list(batches.training_batches(data, 8, seed, epochs, augment))


def test_an_epoch_shows_every_image_at_most_once(data):
    drawn = _drawn(data, range(1))
    assert len(drawn) == batches.steps_per_epoch(data, 8) == 6
    labels = np.concatenate([labels for _, labels in drawn])
    assert len(set(labels)) == 48


def test_images_are_standardised_and_keep_their_labels(data):
    for images, labels in _drawn(data, range(1)):
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images[:, 0, 0, 0] * 2, labels)


def test_epochs_differ_and_seeds_differ(data):
    first, second = _drawn(data, range(1)), _drawn(data, range(1, 2))
    other = _drawn(data, range(1), seed=4)
    assert not np.array_equal(first[0][1], second[0][1])
    assert not np.array_equal(first[0][1], other[0][1])


@pytest.mark.parametrize("augment", [False, True])
def test_starting_at_a_later_epoch_gives_the_same_batches(data, augment):
    whole = _drawn(data, range(3), augment=augment)
    rest = _drawn(data, range(2, 3), augment=augment)
    for (a, b), (c, d) in zip(whole[12:], rest, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


@pytest.mark.parametrize("augment", [False, True])
def test_the_parts_of_all_processes_make_the_batch_of_one(data, augment):
    given = data, 8, 3, range(2), augment
    parts = [batches.training_batches(*given, (n, 4)) for n in range(4)]
    for whole, *own in zip(
        batches.training_batches(*given), *parts, strict=True
    ):
        for all_of_it, pieces in zip(
            whole, zip(*own, strict=True), strict=True
        ):
            assert [len(piece) for piece in pieces] == [2] * 4
            np.testing.assert_array_equal(np.concatenate(pieces), all_of_it)


def test_augmented_images_are_shifted_crops_perhaps_mirrored():
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (5, 7, 3), dtype=np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    possible = {
        crop[:, ::step].tobytes(): (top, left, step)
        for top, left, step in itertools.product(range(9), range(9), (1, -1))
        for crop in [padded[top : top + 5, left : left + 7]]
    }
    images = batches.crop_and_flip(np.stack([image] * 2000), rng)
    seen = {possible[np.ascontiguousarray(i).tobytes()] for i in images}
    assert len(seen) == 162  # all of them turn up


def test_evaluation_batches_are_as_equal_as_can_be(data):
    images, labels, size = batches.evaluation_arrays(data, data.test)
    assert size == 50
    assert images.shape == (50, 6, 6, 3)
    many = data.test.take(np.zeros(2500, int))
    assert batches.evaluation_arrays(data, many)[2] == 834


@pytest.mark.parametrize("devices", [2, 3])
@pytest.mark.parametrize("examples", [5, 7, 12, 1317])
def test_devices_evaluate_batches_that_they_divide(data, examples, devices):
    """Unless it has the training's size, which has a meaning on JAX."""
    split = Split(np.zeros([examples, 2, 2, 1], "uint8"), np.zeros(examples))
    for batch_size in (devices, 4 * devices, 64 * devices):
        given = batches.evaluation(data, split, batch_size, devices)
        size = given["batch_size"]
        assert size % devices == 0
        assert size <= examples or size == devices
        assert size != batch_size or examples < 2 * devices
