"""How much the outputs of a network move with its inputs."""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.errors import check_choice
from keras_wd.errors import check_count
from keras_wd.errors import check_name
from keras_wd.errors import check_seed
from keras_wd.kfac.batch_tensors import is_wide
from keras_wd.metrics.probing import batches_of
from keras_wd.metrics.probing import checked_inputs
from keras_wd.metrics.probing import count_examples
from keras_wd.metrics.probing import output_sizes
from keras_wd.metrics.probing import program_of
from keras_wd.metrics.probing import tapped_outputs

# More outputs than this are measured by random projections by default: there
# is a pass through the network for each.
MOST_EXACT_OUTPUTS = 32
METHODS = ("auto", "exact", "random")
# Pull-backs that share one forward pass; more would take longer to compile.
_AT_ONCE = 16
# Random signs in memory at once, 128 MiB, if one projection is not more.
_MOST_SIGNS = 2**25


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number that was measured, and how far off it may be.

    Args:
        value: the number.
        standard_error: of the random projections; 0 if it is exact.
        method: `"exact"` or `"random"`.

    >>> from keras_wd.metrics import Estimate
    >>> float(Estimate(2.0, 0.0, "exact"))
    2.0
    """

    value: float
    standard_error: float
    method: str

    def __float__(self) -> float:
        return self.value


def jacobian_norm(
    model: keras.Model,
    x: object,
    method: str = "auto",
    projections: int = 8,
    batch_size: int = 512,
    seed: int = 0,
) -> Estimate:
    """Mean squared Frobenius norm of d outputs / d inputs: `E |J(x)|_F^2`.

    The outputs are those of the model at inference, so give it a model that
    ends in logits; several are taken together, as one vector. Ids, such as
    those of tokens, cannot be differentiated by: in their place stand the
    vectors that an `Embedding` looks up for them.

    Exact: one pull-back per output, for all examples at once. Random:
    `E |v^T J|^2` over vectors v of random signs, which has no bias; its
    standard error is that of the mean over the projections.

    Args:
        model: a built model with outputs `(examples, outputs)` or of any
            shape; an example must not see the others, as in inference.
        x: inputs as `predict` takes them, arrays of n examples: floats, or ids
            that an `Embedding` looks up.
        method: `"exact"`, `"random"`, or `"auto"`: exact for up to 32
            outputs.
        projections: how many random vectors, at least 2.
        batch_size: examples at a time, which bounds the memory.
        seed: of the random vectors.

    Returns:
        An `Estimate`; `float()` of it is the number. Units: outputs squared
        per input squared.

    Raises:
        ValueError: if an argument is out of range, the model is not built,
            or `x` is empty, not finite, or neither of floats nor looked up.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import metrics
    >>> model = keras.Sequential([
    ...     keras.Input((3,)),
    ...     keras.layers.Dense(2, kernel_initializer="ones"),
    ... ])
    >>> metrics.jacobian_norm(model, np.ones((4, 3)))
    Estimate(value=6.0, standard_error=0.0, method='exact')

    Source: Zhang, Wang, Xu and Grosse, 2019, "Three Mechanisms of Weight
    Decay Regularization", section 4.2.
    """
    autodiff.require("jacobian_norm")
    check_choice("method", method, METHODS)
    projections = check_count("projections", projections, minimum=2)
    batch_size = check_count("batch_size", batch_size)
    inputs = checked_inputs(model, x)
    outputs = sum(output_sizes(model, inputs))
    if method == "auto":
        method = "exact" if outputs <= MOST_EXACT_OUTPUTS else "random"
    count = outputs if method == "exact" else projections
    rng = np.random.default_rng(seed)
    dtype = "float64" if is_wide(model) else "float32"
    eye = None
    if method == "exact":
        eye = np.eye(outputs, dtype=dtype)[:, None]
    sums = np.zeros(count)
    for batch in batches_of(inputs, batch_size):
        examples = len(keras.tree.flatten(batch)[0])
        at_once = _AT_ONCE
        if method == "random":
            at_once = max(1, min(_AT_ONCE, _MOST_SIGNS // (examples * outputs)))
        for first in range(0, count, at_once):
            if eye is not None:
                vectors = eye[first : first + at_once]
            else:
                size = (min(at_once, count - first), examples, outputs)
                vectors = _signs(rng, size).astype(dtype)
            sums[first : first + len(vectors)] += _squares(
                model, batch, vectors
            )
    means = sums / count_examples(inputs)
    if method == "exact":
        return Estimate(float(means.sum()), 0.0, method)
    error = float(means.std(ddof=1) / math.sqrt(projections))
    return Estimate(float(means.mean()), error, method)


@keras.saving.register_keras_serializable("keras_wd.metrics")
class JacobianNorm(keras.metrics.Metric):
    """`jacobian_norm` as a Keras metric: the mean over all it is shown.

    Args:
        method: `"exact"`, `"random"` or `"auto"`, as in `jacobian_norm`.
        projections: how many random vectors per update, at least 2.
        seed: of the random vectors of the first update.
        name: of the metric.
        dtype: of its result.

    Raises:
        ValueError: if an argument is out of range.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import metrics
    >>> model = keras.Sequential([
    ...     keras.Input((3,)),
    ...     keras.layers.Dense(2, kernel_initializer="ones"),
    ... ])
    >>> metric = metrics.JacobianNorm()
    >>> metric.update_state(model, np.ones((4, 3)))
    >>> float(metric.result())
    6.0
    """

    def __init__(
        self,
        method: str = "auto",
        projections: int = 8,
        seed: int = 0,
        name: str = "jacobian_norm",
        dtype: str | None = None,
    ):
        autodiff.require("JacobianNorm")
        super().__init__(name=check_name("name", name), dtype=dtype)
        self.method = check_choice("method", method, METHODS)
        self.projections = check_count("projections", projections, minimum=2)
        self.seed = check_seed("seed", seed)
        self._updates = 0
        self.total = self.add_weight(
            shape=(), initializer="zeros", dtype=self.dtype, name="total"
        )
        self.count = self.add_weight(
            shape=(), initializer="zeros", dtype=self.dtype, name="count"
        )

    def update_state(self, model: keras.Model, x: object) -> None:
        """Measure a model on some inputs."""
        estimate = jacobian_norm(
            model,
            x,
            self.method,
            self.projections,
            seed=self.seed + self._updates,
        )
        self._updates += 1
        examples = count_examples(checked_inputs(model, x))
        self.total.assign_add(float(estimate) * examples)
        self.count.assign_add(float(examples))

    def result(self):
        """The mean over the examples; 0 before anything was measured."""
        return self.total / ops.maximum(self.count, 1.0)

    def get_config(self) -> dict:
        """The constructor's arguments as plain Python."""
        return {
            **super().get_config(),
            "method": self.method,
            "projections": self.projections,
            "seed": self.seed,
        }


def _signs(rng, size):
    return 2 * rng.integers(0, 2, size, dtype="int8") - 1


def _squares(model, batch, vectors):
    """`sum over examples of |v^T J|^2` for every v: (vectors,), float64.

    Args:
        model: the model.
        batch: of inputs.
        vectors: `(vectors, examples or 1, outputs)`; squares are added up
            in its dtype.
    """
    program = program_of(model, "jacobian", lambda: _pull_back_through(model))
    found = program(ops.convert_to_tensor(vectors), batch)
    return ops.convert_to_numpy(found).astype("float64")


def _pull_back_through(model):
    # Such as the kernels of convolutions.
    unrolled = any(len(weight.shape) > 2 for weight in model.weights)

    def squares(vectors, batch):
        outputs, _, pullback = autodiff.tapped_vjp(
            lambda tap: (tapped_outputs(model, batch, tap), None)
        )

        def square(vector):
            cotangents, start = [], 0
            for output in outputs:
                size = math.prod(output.shape[1:])
                part = vector[..., start : start + size]
                part = ops.broadcast_to(part, (output.shape[0], size))
                part = ops.reshape(part, output.shape)
                cotangents.append(ops.cast(part, output.dtype))
                start += size
            return sum(
                ops.sum(ops.square(ops.cast(part, vectors.dtype)))
                for part in pullback(cotangents)
            )

        return autodiff.for_each(square, vectors, unrolled)

    return squares
