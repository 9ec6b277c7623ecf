"""Estimators: which vectors are sent backwards through the model.

"fisher"              labels drawn from the model's own predictions
"fisher_exact"        its expectation, one pass per output
"gauss_newton"        identity metric on the outputs, random signs
"gauss_newton_exact"  its expectation, one pass per output
"empirical"           the labels of the data
"""

from collections.abc import Sequence

import keras
from keras import ops

from keras_wd.kfac.distributions import Distribution
from keras_wd.kfac.distributions import Identity
from keras_wd.kfac.losses import OutputLoss
from keras_wd.kfac.losses import loss_elements

ESTIMATORS = (
    "fisher",
    "fisher_exact",
    "gauss_newton",
    "gauss_newton_exact",
    "empirical",
)

# A pass per output is unrolled in the compiled program.
MOST_PASSES = 256


def metrics_of(
    estimator: str, losses: Sequence[OutputLoss] | None, count: int
) -> list[tuple[Distribution, float]]:
    """The metric and the weight of every output; raise if there is none.

    Args:
        estimator: one of `ESTIMATORS`, not "empirical".
        losses: the losses of the outputs, or None if there are none.
        count: number of outputs.
    """
    if losses is not None and len(losses) != count:
        raise ValueError(
            "`loss` must have one entry per output. Received: "
            f"{len(losses)} losses for {count} outputs."
        )
    if estimator.startswith("fisher"):
        return [(one.distribution(), one.weight) for one in losses]
    for one in losses or []:
        # The identity on probabilities is not the Gauss-Newton metric meant.
        if not getattr(one.loss, "from_logits", True):
            raise ValueError(
                "`loss` must be from_logits=True, and the model's last layer "
                f"without activation, for estimator={estimator!r}. Received: "
                f"loss={one.loss.name!r} with from_logits=False."
            )
    return [(Identity(), 1.0)] * count


def cotangents(
    estimator: str,
    metrics: Sequence[tuple[Distribution, float]],
    outputs: Sequence,
    sample_weights: Sequence,
    seed: keras.random.SeedGenerator,
) -> list[list]:
    """One list of vectors, one per output, for every backward pass.

    All are scaled so that the sum of squares at a tap, divided by the loss
    elements of the first output, is the curvature of the mean loss.
    """
    scaled = []
    for output, (_, weight), sample_weight in zip(
        outputs, metrics, sample_weights, strict=True
    ):
        ratio = loss_elements(outputs[0]) / loss_elements(output)
        scale = (weight * ratio) ** 0.5
        if sample_weight is not None:
            rows = ops.cast(sample_weight, "float32")
            rows = ops.reshape(rows, rows.shape + (1,) * _missing(output, rows))
            scale = scale * ops.sqrt(rows)
        scaled.append(scale)

    def vector(position, value):
        output = outputs[position]
        return ops.cast(value * scaled[position], output.dtype)

    precise = [_precise(output) for output in outputs]
    if not estimator.endswith("_exact"):
        return [
            [
                vector(i, metrics[i][0].drawn(output, seed))
                for i, output in enumerate(precise)
            ]
        ]
    passes = sum(output.shape[-1] for output in outputs)
    if passes > MOST_PASSES:
        raise ValueError(
            f"`estimator` must not need more than {MOST_PASSES} passes. "
            f"Received: estimator={estimator!r} for {passes} outputs. Use "
            f"estimator={estimator.removesuffix('_exact')!r}."
        )
    return [
        [
            vector(i, metrics[i][0].column(output, index))
            if i == position
            else ops.zeros_like(outputs[i])
            for i, output in enumerate(precise)
        ]
        for position, output in enumerate(outputs)
        for index in range(output.shape[-1])
    ]


def _missing(output, rows):
    return len(output.shape) - len(rows.shape)


def _precise(output):
    """float32, or float64 if it is."""
    dtype = keras.backend.standardize_dtype(output.dtype)
    return ops.cast(output, dtype if dtype == "float64" else "float32")
