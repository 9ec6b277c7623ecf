"""The decays with the exponents 1 and 2."""

from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_wd import where as selections
from keras_wd.decays.decay import SeparableDecay
from keras_wd.errors import check_flag
from keras_wd.ops import lp_penalty
from keras_wd.ops import soft_threshold
from keras_wd.schedules import Rate


@keras.saving.register_keras_serializable("keras_wd.decays")
class L2(SeparableDecay):
    """Weight decay: `w <- w+ - s * w-`, exactly Keras's own decoupled decay.

    Penalty: `(rate / 2) * sum w^2`.

    Convention: with `coupling="decoupled"`, `s = learning_rate * rate`
    (Keras, PyTorch); with `"independent"`, `s = rate` (TensorFlow Addons; and
    Loshchilov and Hutter at a constant learning rate); with `"coupled"` the
    gradient gets `rate * w`, which is half of what
    `keras.regularizers.L2(rate)` adds: that has no 1/2.

    Args:
        weight_decay: the rate, a number >= 0, or a schedule or function of
            iterations.
        where: which variables; `kernels()` if None. Any shape.
        coupling: `"decoupled"`, `"independent"` or `"coupled"`.
        name: the name of the rate in logs.
        cautious: decay a weight only where the step moved it toward zero,
            through zero or not at all: where `(w- - w+) * w- >= 0`, whatever
            other decays did in between.
        anchor: None, or what the weights are pulled toward in place of zero:
            `"start"`, the weights when the optimizer is built; a built model,
            or the path of a `.keras` file, with weights of the same names.
            All of the above then holds for the differences from it. The
            wrapper keeps a copy of the selected weights and saves it. The
            configuration names a model's weights `"start"`.
        touched_rows: decay only the rows (axis 0) whose gradient is not zero
            in this update, the tokens of an embedding table that the batch
            has; all others stay as the step leaves them.
        layerwise: the strength of every tensor has a factor of its own, 1 at
            the start, which the wrapper keeps and saves and
            `callbacks.LayerwiseDecay` moves.

    Raises:
        ValueError: if an argument is out of range.

    >>> import keras
    >>> from keras_wd import decays, optimizers
    >>> optimizer = optimizers.WeightDecay(
    ...     keras.optimizers.Adam(1e-3), decays.L2(0.004)
    ... )

    Source: Loshchilov and Hutter, 2019, "Decoupled Weight Decay
    Regularization", algorithm 2; the three mechanisms it acts by: Zhang et
    al., 2019, "Three Mechanisms of Weight Decay Regularization"; `cautious`:
    Chen et al., 2025, "Cautious Weight Decay"; `anchor`: Li, Grandvalet and
    Davoine, 2018, "Explicit Inductive Bias for Transfer Learning with
    Convolutional Networks", L2-SP.
    """

    def __init__(
        self,
        weight_decay: Rate,
        where: selections.Selection | None = None,
        coupling: str = "decoupled",
        name: str | None = None,
        cautious: bool = False,
        anchor: str | keras.Model | None = None,
        layerwise: bool = False,
        touched_rows: bool = False,
    ):
        super().__init__(
            weight_decay,
            where,
            coupling,
            name,
            cautious=cautious,
            anchor=anchor,
            touched_rows=touched_rows,
        )
        self.layerwise = self.prepares = check_flag("layerwise", layerwise)
        if layerwise and self.coupling == "coupled":
            raise ValueError(
                "`layerwise` must be False for a coupled decay, which has no "
                "step of its own. Received: layerwise=True with "
                "coupling='coupled'. Use coupling='decoupled' or "
                "'independent'."
            )

    def slots(self, shape: Sequence[int]) -> dict[str, np.ndarray]:
        """The factor of a tensor, if it has one."""
        return {"factor": np.ones(())} if self.layerwise else {}

    def prepare(self, previous, strength, step, slots: Mapping):
        """The strength times the factor of the tensor."""
        return strength * slots["factor"], {}

    @property
    def takes_complex(self) -> bool:
        """Whether the rule acts on complex weights: it is linear."""
        return not self.cautious

    def _shrunk(self, weight, previous, strength):
        # Not by the magnitude: the weights before the step may point elsewhere.
        return self.shrink_one(weight, previous, strength)

    def shrink_one(self, weight, previous, strength):
        decayed = weight - ops.cast(strength, weight.dtype) * previous
        return ops.where(strength > 0, decayed, weight)

    def gradient_one(self, weight):
        return weight

    def penalty_one(self, weight):
        return lp_penalty(weight, 2)

    def get_config(self) -> dict:
        return {**super().get_config(), "layerwise": self.layerwise}


@keras.saving.register_keras_serializable("keras_wd.decays")
class L1(SeparableDecay):
    """Soft threshold: `w <- sign(w+) * max(|w+| - s, 0)`, with exact zeros.

    Penalty: `rate * sum |w|`; the step is its exact proximal operator. With
    momentum or an adaptive optimizer a zero may move again at the next step.

    Convention: `s = learning_rate * rate` (`"decoupled"`) or `s = rate`
    (`"independent"`); `"coupled"` adds `rate * sign(w)` to the gradient, as
    `keras.regularizers.L1(rate)` does, and never gives exact zeros.

    Args:
        weight_decay: the rate, a number >= 0, or a schedule or function of
            iterations.
        where: which variables; `kernels()` if None. Any shape.
        coupling: `"decoupled"`, `"independent"` or `"coupled"`.
        name: the name of the rate in logs.
        cautious: decay a weight only where the step moved it toward zero,
            through zero or not at all: where `(w- - w+) * w- >= 0`, whatever
            other decays did in between.
        metric: None, or `"optimizer"`: the proximal step measures distances
            as the inner optimizer does, `s / d` in place of s for every
            weight, where its step divides by d (Adam's `sqrt(v) + epsilon`,
            bias corrected). With that, the weights come to rest where the
            penalized loss is least, also after an adaptive optimizer; without
            it, elsewhere. For Adam, Nadam, Adamax, RMSprop, Adagrad and
            Adafactor.
        anchor: None, or what the weights are pulled toward in place of zero:
            `"start"`, the weights when the optimizer is built; a built model,
            or the path of a `.keras` file, with weights of the same names.
            All of the above then holds for the differences from it. The
            wrapper keeps a copy of the selected weights and saves it. The
            configuration names a model's weights `"start"`.
        touched_rows: decay only the rows (axis 0) whose gradient is not zero
            in this update, the tokens of an embedding table that the batch
            has; all others stay as the step leaves them.

    Raises:
        ValueError: if an argument is out of range.

    >>> import keras
    >>> from keras_wd import decays, optimizers
    >>> optimizer = optimizers.WeightDecay(
    ...     keras.optimizers.SGD(0.1), decays.L1(1e-4)
    ... )

    Source: Daubechies, Defrise and De Mol, 2004, iterative soft thresholding;
    `cautious`: Chen et al., 2025, "Cautious Weight Decay"; `metric`: Yun,
    Lozano and Yang, 2021, "Adaptive Proximal Gradient Methods for Structured
    Neural Networks".
    """

    needs_previous = False

    by_magnitude = True

    def __init__(
        self,
        weight_decay: Rate,
        where: selections.Selection | None = None,
        coupling: str = "decoupled",
        name: str | None = None,
        cautious: bool = False,
        metric: str | None = None,
        anchor: str | keras.Model | None = None,
        touched_rows: bool = False,
    ):
        super().__init__(
            weight_decay,
            where,
            coupling,
            name,
            cautious=cautious,
            metric=metric,
            anchor=anchor,
            touched_rows=touched_rows,
        )

    def shrink_one(self, weight, previous, strength):
        return soft_threshold(weight, strength)

    def gradient_one(self, weight):
        return ops.sign(weight)

    def penalty_one(self, weight):
        return lp_penalty(weight, 1)
