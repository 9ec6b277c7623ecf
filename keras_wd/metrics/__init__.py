"""Measurements of what a decay did to a network."""

from keras_wd.metrics.weights import sparsity
from keras_wd.metrics.weights import weight_norm

__all__ = ["sparsity", "weight_norm"]
