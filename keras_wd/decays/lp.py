"""Decays of the p-norms: the penalty is `(rate / p) * sum |w|^p`."""

from collections.abc import Sequence

import keras

from keras_wd import backend
from keras_wd import where as selections
from keras_wd.decays.decay import SeparableDecay
from keras_wd.decays.shared_options import check_not_zero
from keras_wd.errors import check_flag
from keras_wd.errors import check_number
from keras_wd.ops import lp_gradient
from keras_wd.ops import lp_penalty
from keras_wd.ops import lp_shrink
from keras_wd.ops import prox_lp
from keras_wd.schedules import Rate


class _PowerDecay(SeparableDecay):
    """A decay with an exponent p."""

    by_magnitude = True

    def __init__(
        self,
        weight_decay: Rate,
        p: float,
        where: selections.Selection | None = None,
        coupling: str = "decoupled",
        name: str | None = None,
        **options,
    ):
        super().__init__(weight_decay, where, coupling, name, **options)
        self.p = self._check_p(p)

    @staticmethod
    def _check_p(p):
        return check_number("p", p, above=0)

    def gradient_one(self, weight):
        return lp_gradient(weight, self.p, backend.tracing_for_xla())

    def penalty_one(self, weight):
        return lp_penalty(weight, self.p)

    def get_config(self) -> dict:
        return {**super().get_config(), "p": self.p}


@keras.saving.register_keras_serializable("keras_wd.decays")
class Lp(_PowerDecay):
    """Decoupled decay for any p-norm: `w <- w+ / (1 + s |w-|^(p-2))`.

    With `X = |w-|^(2-p)` this is `w+ X / (X + s)`; at p = 2, `w+ / (1 + s)`.
    For p < 1 small weights fall to zero faster and faster and most of a
    network ends there (below 1e-13, not by a threshold); 1 < p < 2 shrinks
    gently without exact zeros.

    Penalty: `(rate / p) * sum |w|^p`, so that every p reads like weight decay;
    `lambda_p` of the authors' code is `rate / p`.

    Convention: `s = learning_rate * rate` (`"decoupled"`) or `s = rate`
    (`"independent"`); `"coupled"` adds `rate * sign(w) |w|^(p-1)` to the
    gradient (0 at w = 0), which never becomes sparse and diverges easily for
    p < 1.

    Zero is absorbing for p < 2: a weight at exactly 0 stays there, so a
    variable that is all zero when the optimizer is built is refused.

    Args:
        weight_decay: the rate, a number >= 0, or a schedule or function of
            iterations.
        p: exponent > 0.
        where: which variables; `kernels()` if None. Any shape.
        coupling: `"decoupled"`, `"independent"` or `"coupled"`.
        name: the name of the rate in logs.
        cautious: decay a weight only where the step moved it toward zero,
            through zero or not at all: where `(w- - w+) * w- >= 0`, whatever
            other decays did in between.
        late: `|w+|` in place of `|w-|`, the authors' `PAdam_late`: a weight
            that the step takes to zero stays there at once, and its size
            before the step is not read.
        touched_rows: decay only the rows (axis 0) whose gradient is not zero
            in this update, the tokens of an embedding table that the batch
            has; all others stay as the step leaves them.

    Raises:
        ValueError: if an argument is out of range; when the optimizer is
            built, if p < 2 and a selected variable is all zero. (On
            TensorFlow not for a model that its first batch in `fit` builds:
            its weights have no values before the compiled step runs.)

    >>> import keras
    >>> from keras_wd import decays, optimizers
    >>> optimizer = optimizers.WeightDecay(
    ...     keras.optimizers.Adam(1e-3), decays.Lp(1e-2, p=0.8)
    ... )

    Source: Outmezguine and Levi, 2024, "Decoupled Weight Decay for Any p
    Norm", the pAdam update; `late`: their released code; `cautious`: Chen et
    al., 2025, "Cautious Weight Decay".
    """

    def __init__(
        self,
        weight_decay: Rate,
        p: float,
        where: selections.Selection | None = None,
        coupling: str = "decoupled",
        name: str | None = None,
        cautious: bool = False,
        late: bool = False,
        touched_rows: bool = False,
    ):
        super().__init__(
            weight_decay,
            p,
            where,
            coupling,
            name,
            cautious=cautious,
            touched_rows=touched_rows,
        )
        self.late = check_flag("late", late)
        if late and self.coupling == "coupled":
            raise ValueError(
                "`late` must be False for a coupled decay, which adds a "
                "gradient before the step. Received: late=True with "
                "coupling='coupled'. Use coupling='decoupled' or "
                "'independent'."
            )
        self.needs_previous = not late

    def check(self, variables: Sequence[keras.Variable]) -> None:
        if self.p < 2 and self.coupling != "coupled":
            check_not_zero(
                variables,
                self.where,
                f"Lp with p={self.p:g} < 2 keeps a zero at zero for ever",
            )

    def shrink_one(self, weight, previous, strength):
        size = weight if self.late else previous
        return lp_shrink(
            weight, size, strength, self.p, backend.tracing_for_xla()
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "late": self.late}


@keras.saving.register_keras_serializable("keras_wd.decays")
class ProximalLp(_PowerDecay):
    """The exact proximal step: argmin of `(s/p) |w|^p + (w - w+)^2 / 2`.

    For p <= 1 it gives exact zeros, and for p < 1 the minimiser jumps to
    them. Unlike `Lp`, a zero may leave zero again, and one step does not
    depend on the weights before the inner step. The result is exact to
    rounding: to 16 units in the last place in float32, to 1e-12 in float64.
    p in {1, 3/2, 2, 3} has a closed form; every other p costs a polynomial,
    and one within 0.2 of 1 (or float64) two Newton steps besides.

    Penalty: `(rate / p) * sum |w|^p`.

    Convention: `s = learning_rate * rate` (`"decoupled"`) or `s = rate`
    (`"independent"`). There is no coupled form: `Lp(..., coupling="coupled")`
    adds the gradient of the same penalty.

    Args:
        weight_decay: the rate, a number >= 0, or a schedule or function of
            iterations.
        p: exponent in [0.1, 4].
        where: which variables; `kernels()` if None. Any shape.
        coupling: `"decoupled"` or `"independent"`.
        name: the name of the rate in logs.
        metric: None, or `"optimizer"`: the proximal step measures distances
            as the inner optimizer does, `s / d` in place of s for every
            weight, where its step divides by d (Adam's `sqrt(v) + epsilon`,
            bias corrected). With that, the weights come to rest where the
            penalized loss is least, also after an adaptive optimizer; without
            it, elsewhere. For Adam, Nadam, Adamax, RMSprop, Adagrad and
            Adafactor.
        touched_rows: decay only the rows (axis 0) whose gradient is not zero
            in this update, the tokens of an embedding table that the batch
            has; all others stay as the step leaves them.

    Raises:
        ValueError: if an argument is out of range.

    >>> import keras
    >>> from keras_wd import decays, optimizers
    >>> optimizer = optimizers.WeightDecay(
    ...     keras.optimizers.SGD(0.1), decays.ProximalLp(1e-3, p=0.5)
    ... )

    p = 3/2 after Adam is `AdamL3_2` of the authors of pAdam.

    Source: see `keras_wd.ops.prox_lp`; `metric`: Yun, Lozano and Yang, 2021,
    "Adaptive Proximal Gradient Methods for Structured Neural Networks".
    """

    needs_previous = False
    couplings = ("decoupled", "independent")

    def __init__(
        self,
        weight_decay: Rate,
        p: float,
        where: selections.Selection | None = None,
        coupling: str = "decoupled",
        name: str | None = None,
        metric: str | None = None,
        touched_rows: bool = False,
    ):
        if isinstance(coupling, str) and coupling == "coupled":
            raise ValueError(
                "`coupling` must be 'decoupled' or 'independent' for a "
                "proximal step. Received: coupling='coupled'. Use "
                "decays.Lp(..., coupling='coupled'), which adds the gradient "
                "of the same penalty."
            )
        super().__init__(
            weight_decay,
            p,
            where,
            coupling,
            name,
            metric=metric,
            touched_rows=touched_rows,
        )

    @staticmethod
    def _check_p(p):
        return check_number("p", p, minimum=0.1, maximum=4)

    def shrink_one(self, weight, previous, strength):
        return prox_lp(weight, strength, self.p, backend.tracing_for_xla())
