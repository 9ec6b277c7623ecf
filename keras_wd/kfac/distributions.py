"""What a model's outputs predict, and the metric that puts on them.

The curvature is `mean over loss elements of J^T M J` with J the derivative of
the outputs and M the metric: the Fisher information of the predictive
distribution, or the identity for the Gauss-Newton matrix. An estimator needs
M only through vectors v with `E[v v^T] = M` (drawn) or `sum v v^T = M` (one
per output), which are sent backwards through the model.

Legend: z outputs, (..., k); p probabilities; e_j the j-th unit vector.
"""

import abc
import dataclasses

import keras
from keras import ops


class Distribution(abc.ABC):
    """A metric on outputs of shape (..., k)."""

    @abc.abstractmethod
    def drawn(self, outputs, seed: keras.random.SeedGenerator):
        """A random v of the shape of the outputs, `E[v v^T] = M`."""

    @abc.abstractmethod
    def column(self, outputs, index: int):
        """The v of one output: over all indices, `sum v v^T = M`."""


def _unit(outputs, index):
    size = outputs.shape[-1]
    row = ops.one_hot(index, size, dtype=outputs.dtype)
    return ops.broadcast_to(row, ops.shape(outputs))


@dataclasses.dataclass(frozen=True)
class Identity(Distribution):
    """M = I: random signs, which have the variance 1 and the least noise."""

    def drawn(self, outputs, seed: keras.random.SeedGenerator):
        """Independent signs."""
        noise = keras.random.uniform(
            ops.shape(outputs), dtype=outputs.dtype, seed=seed
        )
        return ops.where(noise < 0.5, -1.0, 1.0) * ops.ones_like(outputs)

    def column(self, outputs, index: int):
        """e_j."""
        return _unit(outputs, index)


@dataclasses.dataclass(frozen=True)
class Gaussian(Distribution):
    """The mean squared error over k outputs: M = (2/k) I.

    Convention: the distribution whose negative log-likelihood is the loss
    (its variance is k/2), so that curvature and gradient agree in scale.
    """

    def drawn(self, outputs, seed: keras.random.SeedGenerator):
        """`(z - y) * 2/k` for y drawn around z."""
        noise = keras.random.normal(
            ops.shape(outputs), dtype=outputs.dtype, seed=seed
        )
        return noise * (2.0 / outputs.shape[-1]) ** 0.5

    def column(self, outputs, index: int):
        """`sqrt(2/k) e_j`."""
        return _unit(outputs, index) * (2.0 / outputs.shape[-1]) ** 0.5


@dataclasses.dataclass(frozen=True)
class Categorical(Distribution):
    """Classes: M = diag(p) - p p^T on logits, diag(1/p) on probabilities."""

    from_logits: bool

    def drawn(self, outputs, seed: keras.random.SeedGenerator):
        """The gradient of `-log p(y)` for y drawn from p."""
        noise = keras.random.uniform(
            ops.shape(outputs), dtype=outputs.dtype, seed=seed
        )
        logits = outputs
        if not self.from_logits:
            logits = ops.log(_clipped(outputs))
        # The largest of logits plus Gumbel noise is distributed as p.
        labels = ops.argmax(logits - ops.log(-ops.log(noise)), axis=-1)
        labels = ops.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)
        if self.from_logits:
            return ops.softmax(outputs) - labels
        return -labels / _clipped(outputs)

    def column(self, outputs, index: int):
        """`sqrt(p_j) (e_j - p)`, or `e_j / sqrt(p_j)`."""
        unit = _unit(outputs, index)
        if not self.from_logits:
            return unit / ops.sqrt(_clipped(outputs))
        probabilities = ops.softmax(outputs)
        root = ops.sqrt(probabilities[..., index : index + 1])
        return root * (unit - probabilities)


@dataclasses.dataclass(frozen=True)
class Bernoulli(Distribution):
    """k yes-or-no outputs: M = diag(p (1 - p)) / k on logits.

    Convention: the 1/k is the mean Keras takes over the last axis.
    """

    from_logits: bool

    def _probabilities(self, outputs):
        if self.from_logits:
            return ops.sigmoid(outputs)
        return _clipped(outputs)

    def _root(self, outputs):
        p = self._probabilities(outputs)
        root = ops.sqrt(p * (1.0 - p))
        return root if self.from_logits else 1.0 / root

    def drawn(self, outputs, seed: keras.random.SeedGenerator):
        """The gradient of `-log p(y)` for y drawn from p."""
        p = self._probabilities(outputs)
        noise = keras.random.uniform(
            ops.shape(outputs), dtype=outputs.dtype, seed=seed
        )
        residual = p - ops.cast(noise < p, outputs.dtype)
        if not self.from_logits:
            residual = residual / (p * (1.0 - p))
        return residual / outputs.shape[-1] ** 0.5

    def column(self, outputs, index: int):
        """`sqrt(p_j (1 - p_j) / k) e_j`, or its inverse root of p."""
        scale = self._root(outputs) / outputs.shape[-1] ** 0.5
        return scale * _unit(outputs, index)


@dataclasses.dataclass(frozen=True)
class Poisson(Distribution):
    """Counts of mean z: M = diag(1/z) / k.

    Convention: the 1/k is the mean Keras takes over the last axis.
    """

    def _root(self, outputs):
        rates = ops.maximum(outputs, keras.config.epsilon())
        return ops.rsqrt(rates * outputs.shape[-1])

    def drawn(self, outputs, seed: keras.random.SeedGenerator):
        """Random signs by the root of M: counts have no bounded sampler."""
        noise = keras.random.uniform(
            ops.shape(outputs), dtype=outputs.dtype, seed=seed
        )
        root = self._root(outputs)
        return ops.where(noise < 0.5, -root, root)

    def column(self, outputs, index: int):
        """`e_j / sqrt(k z_j)`."""
        return self._root(outputs) * _unit(outputs, index)


def _clipped(probabilities):
    """Within Keras's epsilon of 0 and 1, as in its losses."""
    epsilon = keras.config.epsilon()
    return ops.clip(probabilities, epsilon, 1.0 - epsilon)
