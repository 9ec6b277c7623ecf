"""Callbacks: what happens between the batches of `fit`."""

from keras_wd.callbacks.auto_l2 import AutoL2
from keras_wd.callbacks.curvature_updates import Curvature
from keras_wd.callbacks.gradual_pruning import GradualPruning
from keras_wd.callbacks.layerwise import LayerwiseDecay
from keras_wd.callbacks.levenberg_marquardt import LevenbergMarquardt
from keras_wd.callbacks.mechanisms import Mechanisms
from keras_wd.callbacks.norm_transfer import NormTransfer
from keras_wd.callbacks.plateau import ReduceDecayOnPlateau

__all__ = [
    "AutoL2",
    "Curvature",
    "GradualPruning",
    "LayerwiseDecay",
    "LevenbergMarquardt",
    "Mechanisms",
    "NormTransfer",
    "ReduceDecayOnPlateau",
]
