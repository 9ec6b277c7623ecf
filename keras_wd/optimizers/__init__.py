"""Optimizers: any Keras optimizer with any decay."""

from keras_wd.optimizers.kfac import KFAC
from keras_wd.optimizers.named import SGDW
from keras_wd.optimizers.named import PAdam
from keras_wd.optimizers.path_prox import PathProx
from keras_wd.optimizers.weight_decay import WeightDecay

__all__ = ["KFAC", "PAdam", "PathProx", "SGDW", "WeightDecay"]
