"""Constraints: projections that Keras applies after every step."""

import keras

from keras_wd.errors import check_axis
from keras_wd.errors import check_axis_fits
from keras_wd.errors import check_number
from keras_wd.ops import project_to_spectral_sphere
from keras_wd.ops import project_to_sphere

__all__ = ["FixedNorm", "FixedSpectralNorm"]


def __dir__():
    return __all__


@keras.saving.register_keras_serializable("keras_wd.constraints")
class FixedNorm(keras.constraints.Constraint):
    """Keep every unit on a sphere: `w_unit <- radius * w_unit / |w_unit|`.

    For weights that a normalization follows this changes no output and makes
    the learning rate the effective learning rate: the decay of such weights
    has nothing left to do. The projection is idempotent. A unit at exactly
    zero has no direction and stays zero.

    With an axis this is the oblique manifold, without one the sphere of the
    Frobenius norm. A gradient that is orthogonal to a unit turns it by
    `atan(learning_rate |gradient| / radius)` per step of plain SGD.

    Args:
        axis: the axis (or axes) that number the units; all other axes belong
            to a unit. -1 is right for a Dense kernel `(fan_in, units)` and a
            Conv2D kernel `(height, width, channels_in, units)`, (-2, -1) for
            a DepthwiseConv2D kernel; None fixes the norm of the whole kernel.
        radius: the norm of every unit, > 0.

    Raises:
        ValueError: if an argument is out of range, or a weight it is put on
            does not have the axis.

    >>> import keras
    >>> from keras_wd import constraints
    >>> constraint = constraints.FixedNorm(radius=2.0)
    >>> w = constraint(keras.ops.array([[3.0], [4.0]]))
    >>> [round(float(x), 4) for x in w[:, 0]]
    [1.2, 1.6]

    Source: van Laarhoven, 2017, "L2 Regularization versus Batch and Weight
    Normalization", normalizing the weights after every step.
    """

    def __init__(
        self, axis: int | tuple[int, ...] | None = -1, radius: float = 1.0
    ):
        self.axis = check_axis("axis", axis, none=True)
        self.radius = check_number("radius", radius, above=0)

    def __call__(self, value):
        check_axis_fits(
            "axis", self.axis, value.shape, "the constrained weight"
        )
        return project_to_sphere(value, radius=self.radius, axis=self.axis)

    def get_config(self) -> dict:
        axis = list(self.axis) if isinstance(self.axis, tuple) else self.axis
        return {"axis": axis, "radius": self.radius}


@keras.saving.register_keras_serializable("keras_wd.constraints")
class FixedSpectralNorm(keras.constraints.Constraint):
    """The spectral sphere: `w <- radius * w / sigma`.

    sigma is the largest singular value of the matrix whose columns are the
    units, `(fan_in, units)`: the factor by which the layer can lengthen its
    input. A radius of `sqrt(units / fan_in)` keeps the scale of the outputs
    when widths change. The projection is idempotent, and leaves a weight that
    is all zero. As it only rescales, a gradient that is orthogonal to the
    weight turns it by `atan(learning_rate |gradient| / |w|)` per step of plain
    SGD, with Frobenius norms.

    Research: sigma is found to about 1e-4 by 24 products with the kernel and
    its transpose, after every step.

    Args:
        radius: the largest singular value, > 0.

    Raises:
        ValueError: if `radius` is out of range, or a weight it is put on has
            fewer than two axes.

    >>> import keras
    >>> from keras_wd import constraints
    >>> constraint = constraints.FixedSpectralNorm(radius=2.0)
    >>> w = constraint(keras.ops.array([[4.0, 0.0], [0.0, 3.0]]))
    >>> [round(float(w[i, i]), 4) for i in range(2)]
    [2.0, 1.5]

    Source: Xie et al., 2026, "Controlled LLM Training on Spectral Sphere",
    its retraction.
    """

    def __init__(self, radius: float = 1.0):
        self.radius = check_number("radius", radius, above=0)

    def __call__(self, value):
        if len(value.shape) < 2:
            raise ValueError(
                "`FixedSpectralNorm` must be put on a weight of rank two or "
                f"more. Received: shape {tuple(value.shape)}."
            )
        return project_to_spectral_sphere(value, radius=self.radius)

    def get_config(self) -> dict:
        return {"radius": self.radius}
