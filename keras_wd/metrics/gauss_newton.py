"""The size of the weights in the metric of the outputs."""

import collections
import math

import keras
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.errors import check_choice
from keras_wd.errors import check_count
from keras_wd.kfac.curvature import Settings
from keras_wd.kfac.curvature import without_optimizer
from keras_wd.kfac.summary import quadratic_form
from keras_wd.metrics.probing import batches_of
from keras_wd.metrics.probing import checked_inputs
from keras_wd.metrics.probing import count_examples
from keras_wd.metrics.probing import output_shape
from keras_wd.metrics.probing import program_of
from keras_wd.ops.precision import widened
from keras_wd.where import Selection
from keras_wd.where import kernels
from keras_wd.where import selected_indices

FORMS = ("full", "block", "kfac")
# Larger Kronecker factors keep their diagonal, as in `KFAC`.
_LARGEST_FACTOR = 8192


def gauss_newton_norm(
    model: keras.Model,
    x: object,
    form: str = "full",
    where: Selection | None = None,
    batch_size: int = 512,
) -> float:
    """Squared Gauss-Newton norm of the weights: `theta . G theta`.

    Formula, with `G = E[J^T J]`, J the Jacobian of the outputs in the
    weights, at inference: `"full"` is `E |J theta|^2`; `"block"` is
    `sum_l E |J_l theta_l|^2`, the blocks of single layers; `"kfac"` is
    `sum_l tr(W_l^T A_l W_l S_l)`, the Kronecker factors of those blocks.

    For n layers without biases and positively homogeneous activations
    `"full"` is `n^2 E |f|^2` and `"block"` is `n E |f|^2`: decay that shrinks
    these norms limits what the function can be. The forms `"full"` and
    `"block"` have no sampling noise, and `"kfac"` none but its
    approximation.

    Args:
        model: a built model with one output.
        x: inputs as `predict` takes them.
        form: `"full"`, `"block"` or `"kfac"`.
        where: which weights make up theta; `where.kernels()` if None.
        batch_size: examples at a time; `"kfac"` takes all at once.

    Returns:
        The number. Units: outputs squared.

    Raises:
        ValueError: if an argument is out of range, the model is not built,
            `x` is empty or not finite, or nothing is selected.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import metrics
    >>> model = keras.Sequential([
    ...     keras.Input((1,)),
    ...     keras.layers.Dense(1, "relu", use_bias=False,
    ...                        kernel_initializer="ones"),
    ...     keras.layers.Dense(1, use_bias=False, kernel_initializer="ones"),
    ... ])
    >>> x = np.ones((3, 1))
    >>> metrics.gauss_newton_norm(model, x), metrics.gauss_newton_norm(
    ...     model, x, form="block"
    ... )
    (4.0, 2.0)

    Source: Zhang, Wang, Xu and Grosse, 2019, "Three Mechanisms of Weight
    Decay Regularization", section 4.2, lemma 2.
    """
    autodiff.require("gauss_newton_norm")
    check_choice("form", form, FORMS)
    batch_size = check_count("batch_size", batch_size)
    inputs = checked_inputs(model, x, floats=False)
    elements = math.prod(output_shape(model, inputs)[:-1])
    variables = list(model.trainable_variables)
    chosen = selected_indices(where or kernels(), variables)
    if form == "kfac":
        # K-FAC takes the mean over all terms of a loss, not over examples.
        return elements * _kronecker(model, inputs, variables, chosen)
    groups = [chosen] if form == "full" else _by_layer(chosen, variables)
    total = 0.0
    for number, group in enumerate(groups):
        moving = [variables[index] for index in group]
        paths = tuple(variable.path for variable in moving)
        program = program_of(
            model,
            f"gauss_newton {number} {paths}",
            lambda moving=moving: _squared_motion(model, moving),
        )
        for batch in batches_of(inputs, batch_size):
            total += float(program(batch))
    return total / count_examples(inputs)


def _by_layer(chosen, variables):
    groups = collections.defaultdict(list)
    for index in chosen:
        groups[variables[index].path.rpartition("/")[0]].append(index)
    return list(groups.values())


def _squared_motion(model, moving):
    """`sum over examples of |J theta|^2`, theta the values of `moving`."""
    others = {id(variable) for variable in moving}
    constants = [v for v in model.variables if id(v) not in others]

    def squares(batch):
        (motion,) = keras.tree.flatten(
            autodiff.jvp(
                lambda: keras.tree.flatten(model(batch, training=False))[0],
                moving,
                [autodiff.read(variable) for variable in moving],
                constants,
            )
        )
        return ops.sum(ops.square(widened(motion)))

    return squares


def _kronecker(model, inputs, variables, chosen):
    curvature = without_optimizer(
        Settings("gauss_newton_exact", 0.0, _LARGEST_FACTOR, training=False),
        seed=0,
        variables=variables,
    )
    curvature.measure(model, (inputs, None, None), None, first_pass=True)
    return quadratic_form(curvature, {i: variables[i] for i in chosen})
