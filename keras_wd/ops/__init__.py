"""Pure math of weight decay: tensors in, tensors out.

Legend used in this package:
    w   weights, any shape            z   the point a proximal step starts from
    s   strength, a scalar >= 0: how far one step may shrink the weights
    p   exponent of the penalty (1/p) * sum |w|^p

Functions compute in float32 when they are given bfloat16 or float16.
"""

from keras_wd.ops.norms import group_norm
from keras_wd.ops.norms import lp_gradient
from keras_wd.ops.norms import lp_penalty
from keras_wd.ops.norms import reduced_axes
from keras_wd.ops.powers import abs_power
from keras_wd.ops.projections import project_to_spectral_sphere
from keras_wd.ops.projections import project_to_sphere
from keras_wd.ops.projections import spectral_norm
from keras_wd.ops.proximal import prox_lp
from keras_wd.ops.radial import brake_norm
from keras_wd.ops.radial import sphere_step
from keras_wd.ops.shrinkage import cautious
from keras_wd.ops.shrinkage import group_soft_threshold
from keras_wd.ops.shrinkage import group_soft_threshold_in_metric
from keras_wd.ops.shrinkage import lp_shrink
from keras_wd.ops.shrinkage import soft_threshold

__all__ = [
    "abs_power",
    "brake_norm",
    "cautious",
    "group_norm",
    "group_soft_threshold",
    "group_soft_threshold_in_metric",
    "lp_gradient",
    "lp_penalty",
    "lp_shrink",
    "project_to_spectral_sphere",
    "project_to_sphere",
    "prox_lp",
    "reduced_axes",
    "soft_threshold",
    "spectral_norm",
    "sphere_step",
]
