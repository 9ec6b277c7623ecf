"""The loss whose curvature is measured, and what counts in it.

The curvature of `loss = sum c_e l_e` over the loss's elements (examples,
tokens, pixels) is `sum c_e J_e^T M_e J_e`, with J_e the derivative of an
element's outputs and M_e its metric. The c come from the compiled loss: what
its reduction divides by, the weights of examples and outputs, masks and
ignored classes are in them.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_wd.kfac.distributions import Bernoulli
from keras_wd.kfac.distributions import Categorical
from keras_wd.kfac.distributions import Distribution
from keras_wd.kfac.distributions import Gaussian
from keras_wd.kfac.distributions import Identity
from keras_wd.kfac.distributions import Poisson
from keras_wd.losses import CompiledLoss
from keras_wd.losses import OutputLoss
from keras_wd.losses import Term

_CATEGORICAL = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.SparseCategoricalCrossentropy,
)
_KNOWN = (
    *_CATEGORICAL,
    keras.losses.BinaryCrossentropy,
    keras.losses.MeanSquaredError,
    keras.losses.Poisson,
)


def distribution_of(one: OutputLoss) -> Distribution:
    """The predictive distribution whose negative log-likelihood a loss is.

    Raises:
        ValueError: if none is known for the loss.
    """
    loss, settings = one.loss, one.settings
    kind = next((k for k in _KNOWN if isinstance(loss, k)), None)
    # A subclass with a formula of its own is another loss.
    if kind is None or type(loss).call is not kind.call:
        raise ValueError(
            "`loss` must be a (sparse) categorical crossentropy, a binary "
            "crossentropy, the mean squared error or the Poisson loss, for "
            f"estimator='fisher'. Received: loss={loss!r}. Use "
            "estimator='generalized_gauss_newton', which takes the second "
            "derivatives of any loss, 'gauss_newton' or 'empirical'."
        )
    if kind in _CATEGORICAL:
        if settings.get("axis", -1) != -1:
            raise ValueError(
                "`loss` must have its classes on the last axis. "
                f"Received: axis={settings['axis']}"
            )
        return Categorical(bool(settings["from_logits"]))
    if kind is keras.losses.BinaryCrossentropy:
        return Bernoulli(bool(settings["from_logits"]))
    return Gaussian() if kind is keras.losses.MeanSquaredError else Poisson()


def _metric(estimator, one):
    """The metric on one output; None where the labels decide it."""
    if estimator.startswith("fisher"):
        return distribution_of(one)
    if estimator == "empirical":
        return None
    if not one.settings.get("from_logits", True):
        # The identity on probabilities is not the metric that is meant.
        raise ValueError(
            "`loss` must be from_logits=True, and the model's last layer "
            f"without activation, for estimator={estimator!r}. Received: "
            f"loss={one.loss.name!r} with from_logits=False."
        )
    return Identity() if estimator.startswith("gauss_newton") else None


@dataclasses.dataclass(frozen=True)
class Share:
    """One output's share of the loss on one batch.

    Args:
        output: its position among the flattened outputs.
        outputs: (batch, ..., k), float32 or float64. An output of rank one
            is (batch, 1).
        weights: the c of the elements, (batch, ...).
        uniform: whether all c are the same, for sure.
        metric: on the outputs; None where the labels decide it.
        term: the loss and what it is called with.
    """

    output: int
    outputs: Any
    weights: Any
    uniform: bool
    metric: Distribution | None
    term: Term

    def summed(self, outputs):
        """The loss summed over its elements, each with weight one."""
        outputs = ops.reshape(outputs, self.term.prediction.shape)
        values = self.term.loss.call(self.term.target, outputs)
        factor = 1 if len(values.shape) else self.outputs.shape[0]
        return factor * ops.sum(values)


class Objective:
    """The compiled loss as an estimator sees it.

    Args:
        model: the model.
        estimator: see `keras_wd.kfac.estimators`.
        loss: in place of the compiled one.
        outputs: what the model returns; only the shapes matter.

    Raises:
        ValueError: if the estimator cannot use the loss, or there is none.
    """

    def __init__(
        self, model: keras.Model, estimator: str, loss: object, outputs
    ):
        if loss is None and getattr(model, "loss", None) is None:
            if not estimator.startswith("gauss_newton"):
                raise ValueError(
                    "`model` must be compiled with a loss, or `loss` given, "
                    f"for estimator={estimator!r}. Received: loss=None."
                )
            # Any loss whose elements all count alike.
            loss = "mse"
        self._compiled = CompiledLoss(model, loss)
        losses = self._compiled.of_outputs(outputs)
        self._metrics = {one.output: _metric(estimator, one) for one in losses}
        self.uses_labels = None in self._metrics.values() or any(
            one.settings.get("ignore_class") is not None for one in losses
        )

    def shares(self, y, outputs, sample_weight) -> list[Share]:
        """What the loss of a batch consists of.

        Args:
            y: the labels; None if they are not used.
            outputs: what the model returned, with their masks.
            sample_weight: as `fit` takes it.
        """
        labels = outputs if y is None else y
        terms = self._compiled.terms(labels, outputs, sample_weight)
        return [self._share(term, y is not None) for term in terms]

    def _share(self, term, labelled):
        prediction = term.prediction
        precise = _precise(prediction)
        if not labelled:
            term = dataclasses.replace(term, target=None)
        shape = precise.shape[:-1]
        if labelled and self._metrics[term.output] is None:
            term = dataclasses.replace(term, target=_as_float(term, precise))
            # A loss of one's own may be one number for a whole example.
            shape = term.loss.call(term.target, precise).shape
        weights = term.element_weights(shape)
        if not len(weights.shape):
            examples = precise.shape[0]
            weights = ops.broadcast_to(weights / examples, (examples,))
        if len(precise.shape) == 1:
            precise = ops.expand_dims(precise, -1)
        return Share(
            term.output,
            precise,
            ops.cast(weights, precise.dtype) * term.weight,
            term.sample_weight is None
            and term.mask is None
            and term.settings.get("ignore_class") is None,
            self._metrics[term.output],
            term,
        )


def _precise(output):
    """float32, or float64 if it is."""
    dtype = keras.backend.standardize_dtype(output.dtype)
    return ops.cast(output, dtype if dtype == "float64" else "float32")


def _as_float(term, precise):
    """The labels as the loss is called with them, but no less precise."""
    return keras.tree.map_structure(
        lambda part: ops.cast(part, precise.dtype), term.target
    )


class Importance:
    """How much the rows of a layer count in the loss.

    A row is one example, or one position of one: a token, a pixel. Only the
    proportions matter.

    Args:
        shares: of the loss.
        examples: how many the batch has.
    """

    def __init__(self, shares: Sequence[Share], examples: int):
        self.examples = examples
        self._elements = None
        if not all(share.uniform for share in shares):
            wide = any(
                keras.backend.standardize_dtype(share.weights.dtype)
                == "float64"
                for share in shares
            )
            self._elements = [
                ops.cast(share.weights, "float64" if wide else "float32")
                for share in shares
            ]

    def of_rows(self, places: Sequence[int], mask=None):
        """The weight of every row, flattened; None if all are alike.

        Where the loss has an element for every row, the row has the element's
        weight. Otherwise an example's weight is divided among its rows that
        the mask leaves.

        Args:
            places: shape of the axes that count rows, the examples first.
            mask: of the rows, over the leading axes; or None.
        """
        places = tuple(places)
        if mask is not None and tuple(mask.shape) != places[: len(mask.shape)]:
            mask = None
        if self._elements is None and mask is None:
            return None
        weights = self._of_elements(places)
        if mask is not None:
            valid = ops.cast(mask, "float32")
            if weights is None or len(weights.shape) < len(valid.shape):
                axes = list(range(1, len(valid.shape)))
                count = ops.sum(valid, axis=axes, keepdims=True)
                share = valid * ops.divide_no_nan(
                    ops.cast(math.prod(valid.shape[1:]), "float32"), count
                )
                valid = share
            weights = valid if weights is None else _over(weights, valid)
        if weights is None:
            return None
        missing = (1,) * (len(places) - len(weights.shape))
        weights = ops.reshape(weights, (*weights.shape, *missing))
        return ops.reshape(ops.broadcast_to(weights, places), (-1,))

    def _of_elements(self, places):
        """The weights of elements at these places, or of the examples."""
        if self._elements is None:
            return None
        at_places = [
            one
            for one in self._elements
            if len(one.shape) > 1 and math.prod(one.shape) == math.prod(places)
        ]
        if at_places:
            found = ops.reshape(sum(at_places), places)
        else:
            found = sum(
                ops.sum(ops.reshape(one, (self.examples, -1)), axis=1)
                for one in self._elements
            )
            if places[0] % self.examples:
                return None
            found = ops.repeat(found, places[0] // self.examples)
        return ops.divide_no_nan(found, ops.mean(found))


def _over(weights, valid):
    missing = (1,) * (len(valid.shape) - len(weights.shape))
    weights = ops.reshape(weights, (*weights.shape, *missing))
    return weights * ops.cast(valid, weights.dtype)
