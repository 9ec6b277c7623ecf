"""What the decay did, in the logs of every epoch."""

import math
import sys

import keras
import numpy as np

from keras_wd import metrics
from keras_wd.optimizers import WeightDecay

TINY = 1e-13  # below it a weight counts as gone (Outmezguine and Levi, 2024)


def measure(model: keras.Model) -> dict[str, float]:
    """The state of a model's kernels, as numbers.

    Returns:
        `zeros`, the share of exact zeros; `sparsity`, the share of weights
        of magnitude up to 1e-13; `weight_norm`, their Euclidean norm.
    """
    return {
        "zeros": metrics.sparsity(model),
        "sparsity": metrics.sparsity(model, threshold=TINY),
        "weight_norm": metrics.weight_norm(model),
    }


class EpochLogs(keras.callbacks.Callback):
    """Adds weights, learning rate and decay rate to the logs of an epoch.

    The rates are those in force at the end of the epoch. Put it before the
    callbacks that write logs. It ends the training when the loss is no
    longer finite.
    """

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        model = self.model
        optimizer = model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = optimizer.inner_optimizer
        logs.update(measure(model))
        logs["learning_rate"] = float(np.asarray(optimizer.learning_rate))
        if isinstance(optimizer, WeightDecay):
            logs.update(optimizer.current_weight_decay())
        if not math.isfinite(logs["loss"]):
            model.stop_training = True
            print(
                f"\nThe loss is {logs['loss']} after epoch {epoch + 1}: the "
                "run ends here. Try a smaller --learning_rate.",
                file=sys.stderr,
            )
