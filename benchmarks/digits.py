"""The digits of scikit-learn: all, split as by `keras-wd train`, or drawn."""

import numpy as np
from sklearn.datasets import load_digits

from keras_wd.cli.digits import indices_of


def images_and_labels():
    """All images `(1797, 64)` in [0, 1], float32, and their labels."""
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype("float32"), labels


def digits():
    """Images and labels for training, and for the test."""
    x, y = images_and_labels()
    test = indices_of("test", y)
    train = np.setdiff1d(np.arange(len(y)), test)
    return (x[train], y[train]), (x[test], y[test])


def drawn(seed, count=500, data=None):
    """Images and labels to train on, drawn by a seed, and all others.

    Args:
        data: images and labels to draw from; all of them if not given.
    """
    x, y = data or images_and_labels()
    order = np.random.default_rng(seed).permutation(len(x))
    return [(x[rows], y[rows]) for rows in (order[:count], order[count:])]
