"""The digits of scikit-learn, split as `keras-wd train` splits them."""

import numpy as np
from sklearn.datasets import load_digits

from keras_wd.cli.digits import indices_of


def digits():
    """Images `(n, 64)` in [0, 1] and labels, for training and for test."""
    images, labels = load_digits(return_X_y=True)
    test = indices_of("test", labels)
    train = np.setdiff1d(np.arange(len(labels)), test)
    images = (images / 16).astype("float32")
    return (images[train], labels[train]), (images[test], labels[test])
