"""Weight decay for Keras 3: any optimizer, any decay, measured."""

from keras_wd import callbacks
from keras_wd import constraints
from keras_wd import decays
from keras_wd import graph
from keras_wd import metrics
from keras_wd import migrate
from keras_wd import optimizers
from keras_wd import regularizers
from keras_wd import schedules
from keras_wd import tune
from keras_wd import where

__version__ = "0.1.0"

__all__ = [
    "callbacks",
    "constraints",
    "decays",
    "graph",
    "metrics",
    "migrate",
    "optimizers",
    "regularizers",
    "schedules",
    "tune",
    "where",
]
