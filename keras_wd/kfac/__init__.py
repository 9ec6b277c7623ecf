"""K-FAC: curvature of every layer as a Kronecker product.

The parts, from the model to the optimizer:

    interception  watches the calls of a model's layers
    readers, embedding, convolutions, einsum, normalization
                  what one kind of layer shows: inputs, gradients, statistics
    distributions, losses, estimators
                  what is sent backwards through the model, and why
    registration  which layer gets which block; what gets none
    weight_matrix, blocks, eigenbasis, state
                  the matrices, their inverses, the optimizer's variables
    measurement, inversion
                  the programs that run between the steps, compiled
    curvature     all of it as one object, which the optimizer owns

`keras_wd.optimizers.KFAC` is what a user sees; `register_layer` makes a layer
of your own known.
"""

from keras_wd.kfac.blocks import Block
from keras_wd.kfac.blocks import KroneckerBlock
from keras_wd.kfac.blocks import ScaleShiftBlock
from keras_wd.kfac.eigen_block import EigenBlock
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
    "EigenBlock",
    "KroneckerBlock",
    "MatrixReader",
    "Reader",
    "Registration",
    "ScaleShiftBlock",
    "register_layer",
]
