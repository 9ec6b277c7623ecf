"""Callbacks: what happens between the batches of `fit`."""

from keras_wd.callbacks.curvature import Curvature

__all__ = ["Curvature"]
