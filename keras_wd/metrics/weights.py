"""Measurements that need the weights alone."""

import math
from collections.abc import Sequence

import keras
import numpy as np

from keras_wd import backend
from keras_wd.errors import check_number
from keras_wd.where import Selection
from keras_wd.where import kernels
from keras_wd.where import selected_indices
from keras_wd.where import trainable_variables


def sparsity(
    model_or_variables: keras.Model | Sequence[keras.Variable],
    threshold: float = 0.0,
    where: Selection | None = None,
) -> float:
    """Share of the weights with `|w| <= threshold`.

    The default counts exact zeros. Results on p-norm decay count weights below
    1e-13, which the multiplicative step reaches long before zero.

    Args:
        model_or_variables: a built model, or a list of variables.
        threshold: magnitude up to which a weight counts, >= 0.
        where: which variables count; `where.kernels()` if None.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: if `threshold` is negative, nothing is selected or the
            model is not built.

    >>> import keras
    >>> from keras_wd import metrics
    >>> w = keras.Variable([[0.0, 1.0], [1e-14, 2.0]], name="kernel")
    >>> metrics.sparsity([w]), metrics.sparsity([w], threshold=1e-13)
    (0.25, 0.5)
    """
    threshold = check_number("threshold", threshold, minimum=0)
    arrays = _arrays(model_or_variables, where)
    small = sum(np.count_nonzero(np.abs(w) <= threshold) for w in arrays)
    return float(small / sum(w.size for w in arrays))


def weight_norm(
    model_or_variables: keras.Model | Sequence[keras.Variable],
    where: Selection | None = None,
) -> float:
    """Euclidean norm of all the weights together: `sqrt(sum w^2)`.

    Args:
        model_or_variables: a built model, or a list of variables.
        where: which variables count; `where.kernels()` if None.

    Raises:
        ValueError: if nothing is selected or the model is not built.

    >>> import keras
    >>> from keras_wd import metrics
    >>> metrics.weight_norm([keras.Variable([[3.0], [4.0]], name="kernel")])
    5.0
    """
    arrays = _arrays(model_or_variables, where)
    return math.sqrt(
        sum(float(np.sum(np.square(w, dtype="float64"))) for w in arrays)
    )


def _arrays(model_or_variables, where):
    variables = trainable_variables(model_or_variables)
    chosen = selected_indices(where or kernels(), variables)
    return [
        np.asarray(backend.concrete_value(variables[i]), dtype="float64")
        for i in chosen
    ]
