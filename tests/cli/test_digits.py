import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

SIZES = {"train": 1253, "validation": 180, "test": 364}


@pytest.fixture(scope="module")
def splits(data_dir):
    return {
        split: tfds.as_numpy(
            tfds.load("digits", split=split, data_dir=data_dir, batch_size=-1)
        )
        for split in SIZES
    }


def test_splits_hold_every_image_once(splits):
    assert {name: len(s["label"]) for name, s in splits.items()} == SIZES
    indices = np.concatenate([s["index"] for s in splits.values()])
    np.testing.assert_array_equal(np.sort(indices), np.arange(1797))


def test_pixels_and_labels_are_those_of_scikit_learn(splits):
    images, labels = load_digits(return_X_y=True)
    for split in splits.values():
        assert split["image"].shape[1:] == (8, 8, 1)
        assert split["image"].dtype == np.uint8
        np.testing.assert_array_equal(
            split["image"].reshape(-1, 64), images[split["index"]]
        )
        np.testing.assert_array_equal(split["label"], labels[split["index"]])


def test_every_split_has_the_classes_in_equal_shares(splits):
    _, labels = load_digits(return_X_y=True)
    overall = np.bincount(labels) / len(labels)
    for split in splits.values():
        shares = np.bincount(split["label"]) / len(split["label"])
        assert abs(shares - overall).max() < 0.01
