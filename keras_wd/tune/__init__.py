"""Choosing the weight decay for a number of training steps."""

from keras_wd.tune.prediction import Prediction
from keras_wd.tune.prediction import Probe
from keras_wd.tune.prediction import predict
from keras_wd.tune.probes import predict_weight_decay

__all__ = ["Prediction", "Probe", "predict", "predict_weight_decay"]
