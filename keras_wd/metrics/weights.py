"""Measurements that need the weights alone."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_wd import backend
from keras_wd.decays import HomogeneousUnits
from keras_wd.decays import PathNorm
from keras_wd.errors import check_name
from keras_wd.errors import check_number
from keras_wd.graph import homogeneous_units
from keras_wd.graph.removal import plan_removal
from keras_wd.graph.structure import read
from keras_wd.where import Selection
from keras_wd.where import check_selection
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


def layer_sparsity(
    model_or_variables: keras.Model | Sequence[keras.Variable],
    threshold: float = 0.0,
    where: Selection | None = None,
) -> dict[str, float]:
    """`sparsity` of every weight by itself.

    Args:
        model_or_variables: a built model, or a list of variables.
        threshold: magnitude up to which a weight counts, >= 0.
        where: which variables count; `where.kernels()` if None.

    Returns:
        A share in [0, 1] by the path of the weight.

    Raises:
        ValueError: as `sparsity`.

    >>> import keras
    >>> from keras_wd import metrics
    >>> w = keras.Variable([[0.0, 1.0]], name="kernel")
    >>> metrics.layer_sparsity([w])
    {'kernel': 0.5}
    """
    threshold = check_number("threshold", threshold, minimum=0)
    variables = trainable_variables(model_or_variables)
    chosen = selected_indices(where or kernels(), variables)
    return {
        variables[i].path: float(
            np.mean(np.abs(_array(variables[i])) <= threshold)
        )
        for i in chosen
    }


def dead_units(model: keras.Model, threshold: float = 0.0) -> dict[str, int]:
    """How many units of every layer nothing depends on.

    These are what `keras_wd.graph.compact` removes: units that nothing reads
    with a weight that is not zero, and units that are constant.

    Args:
        model: a built Sequential or Functional model.
        threshold: units with a path product of at most this count too.

    Returns:
        A number by the name of the Dense or convolution layer.

    Raises:
        ValueError: if the structure of the model cannot be read.

    >>> import keras
    >>> from keras_wd import metrics
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, "relu", kernel_initializer="zeros",
    ...                        name="hidden"),
    ...     keras.layers.Dense(2, name="output"),
    ... ])
    >>> metrics.dead_units(model)
    {'hidden': 7, 'output': 0}
    """
    threshold = check_number("threshold", threshold, minimum=0)
    removal = plan_removal(read(model), threshold)
    return {
        weighted.step.path: int((~removal.kept[weighted.made]).sum())
        for weighted in removal.analysis.weighted
    }


def path_norm(
    model: keras.Model, units: Sequence[HomogeneousUnits] | None = None
) -> float:
    """Sum over pairs of layers of `sum_i |w_i| |v_i|`.

    `w_i` and `v_i` are the input and output weights of unit i; the norms are
    Euclidean. It is the penalty of `decays.PathNorm` at rate one.

    Args:
        model: a built model.
        units: the pairs; those of `graph.homogeneous_units(model)` if None.

    Raises:
        ValueError: if the model has no pairs, or `units` do not fit it.

    >>> import keras
    >>> from keras_wd import metrics
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(3, "relu", kernel_initializer="ones"),
    ...     keras.layers.Dense(1, kernel_initializer="ones"),
    ... ])
    >>> metrics.path_norm(model)
    6.0

    Source: Yang et al., 2022, "PathProx: A Proximal Gradient Algorithm for
    Weight Decay Regularized Deep Neural Networks", section 3.
    """
    if units is None:
        units = homogeneous_units(model)
    return PathNorm(0.0, units, coupling="coupled").value(model)


@keras.saving.register_keras_serializable("keras_wd.metrics")
class Sparsity(keras.metrics.Metric):
    """`sparsity` as a Keras metric, over everything it is shown.

    Args:
        threshold: magnitude up to which a weight counts, >= 0.
        where: which variables count; `where.kernels()` if None.
        name: of the metric.
        dtype: of its result.

    Raises:
        ValueError: if `threshold` is negative.

    >>> import keras
    >>> from keras_wd import metrics
    >>> metric = metrics.Sparsity()
    >>> metric.update_state([keras.Variable([[0.0, 1.0]], name="kernel")])
    >>> float(metric.result())
    0.5
    """

    def __init__(
        self,
        threshold: float = 0.0,
        where: Selection | None = None,
        name: str = "sparsity",
        dtype: str | None = None,
    ):
        super().__init__(name=check_name("name", name), dtype=dtype)
        self.threshold = check_number("threshold", threshold, minimum=0)
        self.where = (
            kernels() if where is None else check_selection("where", where)
        )
        self.small = self.add_weight(
            shape=(), initializer="zeros", dtype=self.dtype, name="small"
        )
        self.count = self.add_weight(
            shape=(), initializer="zeros", dtype=self.dtype, name="count"
        )

    def update_state(
        self, model_or_variables: keras.Model | Sequence[keras.Variable]
    ) -> None:
        """Count the weights of a model, or of a list of variables."""
        variables = trainable_variables(model_or_variables)
        for i in selected_indices(self.where, variables):
            weights = ops.abs(ops.convert_to_tensor(variables[i]))
            small = ops.cast(weights <= self.threshold, self.dtype)
            self.small.assign_add(ops.sum(small))
            self.count.assign_add(ops.cast(ops.size(weights), self.dtype))

    def result(self):
        """The share of small weights; 0 before anything was counted."""
        return self.small / ops.maximum(self.count, 1.0)

    def get_config(self) -> dict:
        """The constructor's arguments as plain Python."""
        where = keras.saving.serialize_keras_object(self.where)
        return {
            **super().get_config(),
            "threshold": self.threshold,
            "where": where,
        }

    @classmethod
    def from_config(cls, config: dict) -> "Sparsity":
        """The inverse of `get_config`."""
        where = keras.saving.deserialize_keras_object(config["where"])
        return cls(**{**config, "where": where})


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
    return [_array(variables[i]) for i in chosen]


def _array(variable):
    return np.asarray(backend.concrete_value(variable), dtype="float64")
