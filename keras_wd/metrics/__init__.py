"""What weight decay did to a network, in numbers."""

from keras_wd.metrics.effective_rates import effective_damping
from keras_wd.metrics.effective_rates import effective_learning_rate
from keras_wd.metrics.gauss_newton import gauss_newton_norm
from keras_wd.metrics.influence import influence
from keras_wd.metrics.jacobian import Estimate
from keras_wd.metrics.jacobian import JacobianNorm
from keras_wd.metrics.jacobian import jacobian_norm
from keras_wd.metrics.rotation import equilibrium_rotation
from keras_wd.metrics.rotation import rotation
from keras_wd.metrics.weights import Sparsity
from keras_wd.metrics.weights import dead_units
from keras_wd.metrics.weights import layer_sparsity
from keras_wd.metrics.weights import path_norm
from keras_wd.metrics.weights import sparsity
from keras_wd.metrics.weights import weight_norm

__all__ = [
    "Estimate",
    "JacobianNorm",
    "Sparsity",
    "dead_units",
    "effective_damping",
    "effective_learning_rate",
    "equilibrium_rotation",
    "gauss_newton_norm",
    "influence",
    "jacobian_norm",
    "layer_sparsity",
    "path_norm",
    "rotation",
    "sparsity",
    "weight_norm",
]
