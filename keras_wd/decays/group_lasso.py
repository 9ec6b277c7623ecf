"""A decay that switches off whole units."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_wd import where as selections
from keras_wd.decays.decay import SeparableDecay
from keras_wd.errors import check_axis
from keras_wd.errors import check_axis_fits
from keras_wd.ops import group_norm
from keras_wd.ops import group_soft_threshold
from keras_wd.ops import group_soft_threshold_in_metric
from keras_wd.schedules import Rate


@keras.saving.register_keras_serializable("keras_wd.decays")
class GroupLasso(SeparableDecay):
    """Block soft threshold: `w_unit <- w_unit+ max(1 - s / |w_unit+|, 0)`.

    Units whose norm is at most s become exactly zero, the others are moved s
    closer to zero. Penalty: `rate * sum over units of |w_unit|` (Euclidean
    norms, not squared).

    Convention: `s = learning_rate * rate` (`"decoupled"`) or `s = rate`
    (`"independent"`); `"coupled"` adds `rate * w_unit / |w_unit|` to the
    gradient (0 for a unit at zero).

    Args:
        weight_decay: the rate, a number >= 0, or a schedule or function of
            iterations.
        axis: the axis (or axes) that number the units; all other axes belong
            to a unit. A Dense kernel is `(fan_in, units)`, a Conv2D kernel
            `(height, width, channels_in, units)`: -1 groups the incoming
            weights of a unit for both. -2 groups the outgoing ones, so that
            an input stops being used.
        where: which variables; `kernels()` if None.
        coupling: `"decoupled"`, `"independent"` or `"coupled"`.
        name: the name of the rate in logs.
        metric: None, or `"optimizer"`: the proximal step measures distances
            as the inner optimizer does, see `L1`. A unit then goes to zero
            where `sqrt(sum (d_i w_i)^2) <= s`.
        anchor: None, or what the weights are pulled toward in place of zero:
            `"start"`, the weights when the optimizer is built; a built model,
            or the path of a `.keras` file, with weights of the same names.
            All of the above then holds for the differences from it. The
            wrapper keeps a copy of the selected weights and saves it. The
            configuration names a model's weights `"start"`.

    Raises:
        ValueError: if an argument is out of range; when the optimizer is
            built, if a selected variable does not have the axis.

    >>> import keras
    >>> from keras_wd import decays, optimizers
    >>> optimizer = optimizers.WeightDecay(
    ...     keras.optimizers.Adam(1e-3), decays.GroupLasso(1e-2)
    ... )

    Source: Yuan and Lin, 2006, "Model selection and estimation in regression
    with grouped variables"; `metric`: Yun, Lozano and Yang, 2021, "Adaptive
    Proximal Gradient Methods for Structured Neural Networks".
    """

    needs_previous = False

    by_magnitude = True

    def __init__(
        self,
        weight_decay: Rate,
        axis: int | tuple[int, ...] = -1,
        where: selections.Selection | None = None,
        coupling: str = "decoupled",
        name: str | None = None,
        metric: str | None = None,
        anchor: str | keras.Model | None = None,
    ):
        super().__init__(
            weight_decay, where, coupling, name, metric=metric, anchor=anchor
        )
        self.axis = check_axis("axis", axis)

    def check(self, variables: Sequence[keras.Variable]) -> None:
        for variable in variables:
            path = selections.path_of(variable)
            check_axis_fits("axis", self.axis, variable.shape, path)

    def shrink_one(self, weight, previous, strength):
        if self.metric is None:
            return group_soft_threshold(weight, strength, self.axis)
        return group_soft_threshold_in_metric(weight, strength, self.axis)

    def gradient_one(self, weight):
        norm = group_norm(weight, self.axis)
        return weight / ops.where(norm > 0, norm, 1.0)

    def penalty_one(self, weight):
        return ops.sum(group_norm(weight, self.axis))

    def get_config(self) -> dict:
        axis = list(self.axis) if isinstance(self.axis, tuple) else self.axis
        return {**super().get_config(), "axis": axis}
