"""Estimators: which vectors are sent backwards through the model.

"fisher"              labels drawn from the model's own predictions
"gauss_newton"        identity metric on the outputs, random signs
"generalized_gauss_newton"
                      the second derivatives of the loss by the outputs, which
                      automatic differentiation finds for any loss
"empirical"           the labels of the data

The first three have a noise-free form, one pass per output: "fisher_exact",
"gauss_newton_exact", "generalized_gauss_newton_exact".
"""

from collections.abc import Callable
from collections.abc import Sequence

import keras
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.kfac.objective import Share

ESTIMATORS = (
    "fisher",
    "fisher_exact",
    "gauss_newton",
    "gauss_newton_exact",
    "generalized_gauss_newton",
    "generalized_gauss_newton_exact",
    "empirical",
)

# A pass per output is unrolled in the compiled program.
MOST_PASSES = 256


def cotangents(
    estimator: str,
    shares: Sequence[Share],
    outputs: Sequence,
    seed: keras.random.SeedGenerator,
) -> tuple[list[list], object]:
    """What is sent backwards, and what that has to be scaled by.

    An element's vectors are multiplied with the square root of its c. For the
    sake of float16 they are then divided by that of the largest c, s: the
    sum of squares at a tap, times s, is the curvature.

    Args:
        estimator: one of `ESTIMATORS`.
        shares: of the loss.
        outputs: the model's, flattened.
        seed: where labels and signs are drawn from.

    Returns:
        One list of vectors, one per output, for every backward pass; and s.

    Raises:
        ValueError: if there are more passes than `MOST_PASSES`.
    """
    wide = any(_dtype(share.outputs) == "float64" for share in shares)
    dtype = "float64" if wide else "float32"
    largest = ops.max(
        ops.stack([ops.cast(ops.max(share.weights), dtype) for share in shares])
    )
    safe = ops.where(largest > 0, largest, ops.ones_like(largest))
    exact = estimator.endswith("_exact")
    passes = sum(share.outputs.shape[-1] for share in shares)
    by_hessian = estimator.startswith("generalized")
    if (exact or by_hessian) and passes > MOST_PASSES:
        cheaper = "gauss_newton" if by_hessian else estimator[: -len("_exact")]
        raise ValueError(
            f"`estimator` must not need more than {MOST_PASSES} passes. "
            f"Received: estimator={estimator!r} for {passes} outputs. Use "
            f"estimator={cheaper!r}."
        )
    found = [
        (share, _vectors(estimator, share, seed, exact), _root(share, safe))
        for share in shares
    ]

    def one_pass(chosen):
        """The vectors of a pass: zero for outputs without one."""
        vectors = [ops.zeros_like(output) for output in outputs]
        for share, vector, root in chosen:
            output = outputs[share.output]
            vector = ops.reshape(vector * root, output.shape)
            vectors[share.output] = vectors[share.output] + ops.cast(
                vector, output.dtype
            )
        return vectors

    if not exact:
        drawn = [(share, vector(), root) for share, (vector,), root in found]
        return [one_pass(drawn)], largest
    return [
        one_pass([(share, vector(), root)])
        for share, vectors, root in found
        for vector in vectors
    ], largest


def _vectors(estimator, share, seed, exact) -> list[Callable]:
    """What makes the vectors of one output: one, or one per column."""
    size = share.outputs.shape[-1]
    if estimator == "empirical":
        return [lambda: _gradient(share.summed, share.outputs)]
    if share.metric is None:
        columns = _hessian_root(share)
        if exact:
            return [lambda j=j: columns[..., j] for j in range(size)]
        noise = keras.random.uniform(
            share.outputs.shape, dtype=share.outputs.dtype, seed=seed
        )
        signs = ops.where(noise < 0.5, -1.0, 1.0)
        signs = ops.cast(signs, share.outputs.dtype)
        return [lambda: ops.sum(columns * signs[..., None, :], axis=-1)]
    if exact:
        return [
            lambda j=j: share.metric.column(share.outputs, j)
            for j in range(size)
        ]
    return [lambda: share.metric.drawn(share.outputs, seed)]


def _root(share, safe):
    """The root of c over s, one for all outputs of an element."""
    weights = share.weights / ops.cast(safe, share.weights.dtype)
    missing = len(share.outputs.shape) - len(weights.shape)
    return ops.sqrt(ops.reshape(weights, (*weights.shape, *(1,) * missing)))


def _gradient(function, at):
    _, _, pullback = autodiff.tapped_vjp(
        lambda tap: ([function(tap(at))], None)
    )
    return pullback([ops.ones((), at.dtype)])[0]


def _hessian_root(share):
    """V with `V V^T` the second derivatives of every element, (..., k, k).

    Of a loss that is not convex in the outputs, the positive part.
    """

    def slope(tap):
        return [_gradient(share.summed, tap(share.outputs))], None

    (gradient,), _, pullback = autodiff.tapped_vjp(slope)
    size = share.outputs.shape[-1]
    rows = [
        pullback(
            [
                ops.broadcast_to(
                    ops.one_hot(j, size, dtype=gradient.dtype), gradient.shape
                )
            ]
        )[0]
        for j in range(size)
    ]
    hessian = ops.stack(rows, axis=-1)
    if size == 1:
        return ops.sqrt(ops.maximum(hessian, 0.0))
    hessian = (hessian + ops.swapaxes(hessian, -1, -2)) / 2.0
    values, vectors = ops.linalg.eigh(hessian)
    return vectors * ops.sqrt(ops.maximum(values, 0.0))[..., None, :]


def _dtype(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)
