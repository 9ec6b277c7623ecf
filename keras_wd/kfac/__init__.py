"""K-FAC: curvature of every layer as a Kronecker product.

The parts, from the model to the optimizer:

    interception  watches the calls of a model's layers
    readers, convolutions, einsum, normalization
                  what one kind of layer shows: inputs, gradients, statistics
    distributions, losses, estimators
                  what is sent backwards through the model, and why
    registration  which layer gets which block; what gets none
    packing, blocks, state
                  the matrices, their inverses, the optimizer's variables
    programs      measuring and inverting, compiled

`keras_wd.optimizers.KFAC` is what a user meets; `register_layer` makes a layer
of one's own known.
"""

from keras_wd.kfac.blocks import Block
from keras_wd.kfac.blocks import KroneckerBlock
from keras_wd.kfac.blocks import ScaleShiftBlock
from keras_wd.kfac.estimators import ESTIMATORS
from keras_wd.kfac.interception import register_layer
from keras_wd.kfac.readers import DenseReader
from keras_wd.kfac.readers import MatrixReader
from keras_wd.kfac.readers import Reader
from keras_wd.kfac.registration import Registration

__all__ = [
    "Block",
    "DenseReader",
    "ESTIMATORS",
    "KroneckerBlock",
    "MatrixReader",
    "Reader",
    "Registration",
    "ScaleShiftBlock",
    "register_layer",
]
