"""Research: decays that keep the norms of tensors and leave the directions.

They are younger than the rest of this package and less tried: what they do to
the angle per step is known, and tested; what they do to accuracy is mixed.
"""

from collections.abc import Sequence

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_wd import where as selections
from keras_wd.decays.decay import WithoutPenalty
from keras_wd.errors import check_axis
from keras_wd.errors import check_axis_fits
from keras_wd.errors import check_number
from keras_wd.ops.radial import brake_norm
from keras_wd.ops.radial import sphere_step


class _OnUnits(WithoutPenalty):
    """A rule about the norms of tensors, or of their units."""

    def __init__(self, weight_decay, axis, where, coupling, name):
        super().__init__(weight_decay, where, coupling, name)
        self.axis = check_axis("axis", axis, none=True)

    def check(self, variables: Sequence[keras.Variable]) -> None:
        for variable in variables:
            path = selections.path_of(variable)
            check_axis_fits("axis", self.axis, variable.shape, path)

    def get_config(self) -> dict:
        axis = list(self.axis) if isinstance(self.axis, tuple) else self.axis
        return {**super().get_config(), "axis": axis}


@keras.saving.register_keras_serializable("keras_wd.decays")
class Hyperball(_OnUnits):
    """Steps of a fixed length on a sphere, in the optimizer's direction.

        w <- R normalize(w- + s R normalize(w+ - w-))

    The optimizer says where to go and the rate how far: a step that is
    orthogonal to the weights, as for weights that a normalization follows,
    turns them by `atan(s)` in every layer, whatever the optimizer's learning
    rate is made of and however large its step is. There is nothing left for
    another decay to do.

    Research: for matrices in front of normalizations; results are mixed.

    Convention: `s = learning_rate * rate` (`"decoupled"`), so that at rate 1
    the learning rate is the angle per step in radians, 0.01 rather than
    Adam's 0.001; or `s = rate` (`"independent"`). There is no coupled form.
    At rate zero the step is the optimizer's.

    Args:
        weight_decay: the rate, a number >= 0 or a schedule of iterations.
        radius: R, > 0; None keeps the norm that the weights have before the
            step, and so that of the start.
        axis: None for a sphere per tensor; or the axis (or axes) that number
            its units, for a sphere per unit, see `GroupLasso`.
        where: which variables; `kernels()` if None.
        coupling: `"decoupled"` or `"independent"`.
        name: the name of the rate in logs.

    Raises:
        ValueError: if an argument is out of range; when the optimizer is
            built, if a selected variable does not have the axis.

    >>> import keras
    >>> from keras_wd import decays, optimizers
    >>> optimizer = optimizers.WeightDecay(
    ...     keras.optimizers.Adam(0.75), decays.Hyperball()
    ... )
    >>> w = keras.Variable([[5.0], [0.0]], name="kernel")
    >>> optimizer.apply([keras.ops.array([[0.0], [-1e-3]])], [w])
    >>> [round(float(x), 3) for x in w.numpy()[:, 0]]
    [4.0, 3.0]

    Source: Wen, Dang, Lyu, Ma and Liang, 2026, "Fantastic Pretraining
    Optimizers and Where to Find Them II: Hyperball Optimization".
    """

    def __init__(
        self,
        weight_decay: float | LearningRateSchedule = 1.0,
        radius: float | None = None,
        axis: int | tuple[int, ...] | None = None,
        where: selections.Selection | None = None,
        coupling: str = "decoupled",
        name: str | None = None,
    ):
        super().__init__(weight_decay, axis, where, coupling, name)
        if radius is not None:
            radius = check_number("radius", radius, above=0)
        self.radius = radius

    def shrink_one(self, weight, previous, strength):
        return sphere_step(weight, previous, strength, self.radius, self.axis)

    def get_config(self) -> dict:
        return {**super().get_config(), "radius": self.radius}


@keras.saving.register_keras_serializable("keras_wd.decays")
class RadialBrake(_OnUnits):
    """Takes away a share of the growth of the norm, at the same direction.

        |w| <- |w-| + (1 - b) (|w+| - |w-|)

    with b the rate where the step made the norm larger, and `inward * rate`
    where it made it smaller. The weights turn exactly as without it. At rate
    1 the norm never grows; with `inward=1` too it never changes.

    Research: results are mixed.

    Convention: b is the rate, at most 1, and is not multiplied by the
    learning rate (`coupling="independent"`, there is no other).

    Args:
        weight_decay: the rate, a number >= 0 or a schedule of iterations;
            above 1 it acts as 1.
        inward: how much of the rate holds for steps that make the norm
            smaller, in [0, 1].
        axis: None for the norm of a tensor; or the axis (or axes) that number
            its units, for their norms, see `GroupLasso`.
        where: which variables; `kernels()` if None.
        coupling: `"independent"`.
        name: the name of the rate in logs.

    Raises:
        ValueError: if an argument is out of range; when the optimizer is
            built, if a selected variable does not have the axis.

    >>> import keras
    >>> from keras_wd import decays, optimizers
    >>> optimizer = optimizers.WeightDecay(
    ...     keras.optimizers.SGD(1.0), decays.RadialBrake(0.5)
    ... )
    >>> w = keras.Variable([[3.0], [4.0]], name="kernel")
    >>> optimizer.apply([keras.ops.array([[-3.0], [-4.0]])], [w])
    >>> [round(float(x), 3) for x in w.numpy()[:, 0]]
    [4.5, 6.0]

    Source: NVIDIA Emerging-Optimizers, 2026, `RadialBrakeHook`, whose
    `outward_scale` is `1 - rate` and `inward_scale` `1 - inward * rate`;
    related: Heo et al., 2021, "AdamP".
    """

    couplings = ("independent",)

    def __init__(
        self,
        weight_decay: float | LearningRateSchedule = 0.5,
        inward: float = 0.0,
        axis: int | tuple[int, ...] | None = None,
        where: selections.Selection | None = None,
        coupling: str = "independent",
        name: str | None = None,
    ):
        super().__init__(weight_decay, axis, where, coupling, name)
        self.inward = check_number("inward", inward, minimum=0, maximum=1)

    def shrink_one(self, weight, previous, strength):
        brake = ops.minimum(strength, 1.0)
        return brake_norm(
            weight, previous, brake, self.inward * brake, self.axis
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "inward": self.inward}
