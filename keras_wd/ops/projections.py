"""Projections on sets of weights."""

from keras import ops

from keras_wd.ops.norms import group_norm
from keras_wd.ops.norms import scale_units
from keras_wd.ops.precision import in_float32


@in_float32
def project_to_sphere(
    w, radius: float = 1.0, axis: int | tuple[int, ...] | None = -1
):
    """argmin over v of `|v - w|` with `|v_unit| = radius` for every unit.

    `radius * w_unit / |w_unit|`. A unit that is exactly zero has no
    direction and stays zero.

    Args:
        w: weights, see `group_norm` for the shapes.
        radius: the norm every unit gets, > 0.
        axis: the axis (or axes) that number the units; `None`: one norm for
            the whole tensor.
    """
    scaled, _ = scale_units(w, axis)
    norm = group_norm(scaled, axis)
    return scaled * (radius / ops.where(norm > 0, norm, 1.0))
