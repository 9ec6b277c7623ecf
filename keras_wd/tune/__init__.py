"""Choosing the weight decay for a number of training steps, or another size."""

from keras_wd.tune.prediction import Prediction
from keras_wd.tune.prediction import Probe
from keras_wd.tune.prediction import predict
from keras_wd.tune.probes import predict_weight_decay
from keras_wd.tune.scaling import ScaledDecay
from keras_wd.tune.scaling import scale_weight_decay

__all__ = [
    "Prediction",
    "Probe",
    "ScaledDecay",
    "predict",
    "predict_weight_decay",
    "scale_weight_decay",
]
