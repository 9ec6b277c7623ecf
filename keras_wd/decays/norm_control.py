"""Decays whose strength is another for every tensor, found from its norm."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Self

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_wd import where as selections
from keras_wd.decays.decay import WithoutPenalty
from keras_wd.decays.shared_options import check_not_zero
from keras_wd.errors import check_axis
from keras_wd.errors import check_axis_fits
from keras_wd.errors import check_count
from keras_wd.errors import check_flag
from keras_wd.errors import check_number
from keras_wd.ops.norms import reduced_axes
from keras_wd.ops.norms import total
from keras_wd.ops.radial import length
from keras_wd.ops.radial import share_to_norm
from keras_wd.schedules import check_rate
from keras_wd.schedules import deserialize_rate
from keras_wd.schedules import serialize_rate

# What a slot holds until the first step.
UNKNOWN = -1.0


class _NormDecay(WithoutPenalty):
    """`w <- w+ - s w-`, L2's step with another s for every tensor."""

    prepares = True

    def shrink_one(self, weight, previous, strength):
        return ops.where(strength != 0, weight - strength * previous, weight)


@keras.saving.register_keras_serializable("keras_wd.decays")
class NormControl(_NormDecay):
    """Weight norm control: `w <- w+ - s (1 - R / |w-|) w-`.

    Decay toward a norm R instead of toward zero: tensors above it shrink,
    tensors below it grow, by the share s of the difference per step. At
    `target=0` it is `L2`.

    R is `target` times the norm of the same tensor at the first step, or
    `target` itself with `relative=False`. Norms are Euclidean (Frobenius).

    Convention: `s = learning_rate * rate` (`"decoupled"`) or `s = rate`
    (`"independent"`): the update rate k of the source. There is no coupled
    form.

    Args:
        weight_decay: the rate, a number >= 0 or a schedule of iterations.
        target: the wanted norm, a number >= 0 or a schedule of iterations.
        relative: whether `target` is a multiple of the norm at the first
            step, which the wrapper keeps and saves: a number per tensor.
        axis: None for a norm per tensor; or the axis (or axes) that number
            its units, for a norm per unit, see `GroupLasso`.
        where: which variables; `kernels()` if None.
        coupling: `"decoupled"` or `"independent"`.
        name: the name of the rate in logs.

    Raises:
        ValueError: if an argument is out of range; when the optimizer is
            built, if a selected variable does not have the axis, or is all
            zero with `relative=True`.

    >>> import keras
    >>> from keras_wd import decays, optimizers
    >>> optimizer = optimizers.WeightDecay(
    ...     keras.optimizers.SGD(0.1),
    ...     decays.NormControl(0.5, target=2.0, coupling="independent"),
    ... )
    >>> w = keras.Variable([[3.0], [4.0]], name="kernel")
    >>> for _ in range(3):
    ...     optimizer.apply([keras.ops.zeros((2, 1))], [w])
    >>> [round(float(x), 4) for x in w.numpy()[:, 0]]
    [5.625, 7.5]

    Source: Loshchilov, 2023, "Weight Norm Control", equation 3.
    """

    def __init__(
        self,
        weight_decay: float | LearningRateSchedule,
        target: float | LearningRateSchedule = 1.0,
        relative: bool = True,
        axis: int | tuple[int, ...] | None = None,
        where: selections.Selection | None = None,
        coupling: str = "decoupled",
        name: str | None = None,
    ):
        super().__init__(weight_decay, where, coupling, name)
        self.target = check_rate("target", target)
        self.relative = check_flag("relative", relative)
        self.axis = check_axis("axis", axis, none=True)

    def check(self, variables: Sequence[keras.Variable]) -> None:
        for variable in variables:
            path = selections.path_of(variable)
            check_axis_fits("axis", self.axis, variable.shape, path)
        if self.relative:
            check_not_zero(
                variables,
                self.where,
                "NormControl with relative=True takes its target from their "
                "norm at the first step",
            )

    def slots(self, shape: Sequence[int]) -> dict[str, np.ndarray]:
        """The norms at the first step, of every tensor or unit."""
        if not self.relative:
            return {}
        reduced = reduced_axes(len(shape), self.axis)
        norms = [1 if a in reduced else size for a, size in enumerate(shape)]
        return {"first_norm": np.full(norms, UNKNOWN)}

    def prepare(self, previous, strength, step, slots: Mapping):
        """The share of the old weights to take off, negative below R."""
        norm = length(previous, self.axis)
        target = self.target
        if isinstance(target, LearningRateSchedule):
            target = ops.cast(target(step), norm.dtype)
        if not self.relative:
            return share_to_norm(norm, target, strength), {}
        first = slots["first_norm"]
        first = ops.where(first < 0, norm, first)
        share = share_to_norm(norm, target * first, strength)
        return share, {"first_norm": first}

    def get_config(self) -> dict:
        axis = list(self.axis) if isinstance(self.axis, tuple) else self.axis
        return {
            **super().get_config(),
            "target": serialize_rate(self.target),
            "relative": self.relative,
            "axis": axis,
        }

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """The inverse of `get_config`."""
        target = deserialize_rate(config["target"])
        return super().from_config({**config, "target": target})


@keras.saving.register_keras_serializable("keras_wd.decays")
class CPR(_NormDecay):
    """Constrained parameter regularization: a bound on the size of a tensor.

    Every tensor has a multiplier l, which grows while the mean square of its
    weights, `m = |w-|^2 / n`, is above the bound `kappa` and falls while it is
    below:

        l <- max(0, l + rate (m - kappa))
        w <- w+ - 2 l w-

    A tensor within its bound does not decay. `kappa` is `bound^2` times m
    after `warmup_steps` updates, before which nothing decays.

    Convention: the rate is the speed mu of the multiplier and is not
    multiplied by the learning rate (`coupling="independent"`, there is no
    other); 1 suits most networks, so that `warmup_steps` is what to choose:
    about twice the warm-up of the learning rate. m is a mean, as in the
    released code, where the paper has a sum, and that of the weights before
    the step, as in the paper, where the code has it after.

    The authors' third way to a bound, the size at the first inflection point
    of m (Kappa-IP), is not here: it is found from averages over hundreds of
    steps whose settings are two more numbers to choose. `warmup_steps` is one.

    Args:
        weight_decay: the rate mu, a number >= 0 or a schedule of iterations.
            At zero nothing decays.
        warmup_steps: updates after which the bound is taken, >= 0.
        bound: the largest norm, as a multiple of the norm at that time, > 0;
            or as a root mean square with `relative=False`.
        relative: whether `bound` is such a multiple.
        where: which variables; `kernels()` if None. Any shape.
        coupling: "independent", there is no other.
        name: the name of the rate in logs.

    Raises:
        ValueError: if an argument is out of range; when the optimizer is
            built, if a selected variable is all zero with `relative=True`
            and `warmup_steps=0`.

    >>> import keras
    >>> from keras_wd import decays, optimizers
    >>> optimizer = optimizers.WeightDecay(
    ...     keras.optimizers.Adam(1e-3), decays.CPR(warmup_steps=1000)
    ... )

    Source: Franke, Hefenbrock, Koehler and Hutter, 2024, "Improving Deep
    Learning Optimization through Constrained Parameter Regularization",
    algorithm 1, Kappa-WS and (with `warmup_steps=0`) Kappa-kI0.
    """

    couplings = ("independent",)

    def __init__(
        self,
        weight_decay: float | LearningRateSchedule = 1.0,
        warmup_steps: int = 0,
        bound: float = 1.0,
        relative: bool = True,
        where: selections.Selection | None = None,
        coupling: str = "independent",
        name: str | None = None,
    ):
        super().__init__(weight_decay, where, coupling, name)
        self.warmup_steps = check_count("warmup_steps", warmup_steps, minimum=0)
        self.bound = check_number("bound", bound, above=0)
        self.relative = check_flag("relative", relative)

    def check(self, variables: Sequence[keras.Variable]) -> None:
        if self.relative and not self.warmup_steps:
            check_not_zero(
                variables,
                self.where,
                "CPR with warmup_steps=0 takes its bound from their norm at "
                "the first step",
            )

    def slots(self, shape: Sequence[int]) -> dict[str, np.ndarray]:
        """The multiplier, and the bound on the mean square."""
        kappa = UNKNOWN if self.relative else self.bound**2
        return {"multiplier": np.zeros(()), "kappa": np.full((), kappa)}

    def prepare(self, previous, strength, step, slots: Mapping):
        """The share of the old weights to take off, `2 l`."""
        square = ops.reshape(total(ops.square(previous)), ())
        square = square / math.prod(previous.shape)
        kappa, multiplier = slots["kappa"], slots["multiplier"]
        is_active = step >= self.warmup_steps
        if self.relative:
            taken = ops.logical_and(is_active, kappa < 0)
            kappa = ops.where(taken, self.bound**2 * square, kappa)
        moved = ops.maximum(multiplier + strength * (square - kappa), 0)
        moves = ops.logical_and(is_active, ops.isfinite(square))
        multiplier = ops.where(moves, moved, multiplier)
        decays = ops.logical_and(is_active, strength > 0)
        share = ops.where(decays, 2 * multiplier, ops.zeros_like(multiplier))
        return share, {"multiplier": multiplier, "kappa": kappa}

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "warmup_steps": self.warmup_steps,
            "bound": self.bound,
            "relative": self.relative,
        }
