"""How much units matter: a score for every class of joined units."""

from collections.abc import Callable
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from keras_wd.graph import traits
from keras_wd.graph.channel_analysis import ChannelAnalysis
from keras_wd.graph.kernels import array
from keras_wd.graph.kernels import kernel_of
from keras_wd.graph.rebuild import rebuild
from keras_wd.graph.removal import path_products
from keras_wd.graph.removal import with_own_units

Importance = str | Callable[[keras.Layer, np.ndarray], np.ndarray]


def _magnitudes(layer, kernel):
    return np.sqrt(np.square(kernel).sum(axis=(0, 1)))


def scores(
    model: keras.Model,
    analyses: Sequence[ChannelAnalysis],
    importance: Importance,
    data: object,
) -> list[np.ndarray]:
    """Scores by label; that of a class is at the label that stands for it.

    Args:
        model: the model that was read.
        analyses: its channels, and those inside of its layers.
        importance: see `prune`.
        data: see `prune`.
    """
    if importance == "path":
        return [path_products(analysis) for analysis in analyses]
    if importance == "batch_norm":
        return _batch_norm(analyses)
    if importance == "taylor":
        products = _first_order(model, data)
        return [_taylor(analysis, products) for analysis in analyses]
    return [_of_kernels(analysis, importance) for analysis in analyses]


def _of_kernels(analysis, importance):
    function = importance if callable(importance) else _magnitudes
    found, members = np.zeros((2, analysis.classes.count))
    roots = analysis.classes.roots()
    for weighted in with_own_units(analysis):
        layer = weighted.step.operation
        values = np.asarray(function(layer, kernel_of(layer)[0]), "float64")
        if values.shape != weighted.made.shape:
            raise ValueError(
                "`importance` must return a number for every unit. Received: "
                f"an array of shape {values.shape} for {layer.name}, which "
                f"has {len(weighted.made)} units."
            )
        if importance == "magnitude":
            # Else the units with few inputs would all go first.
            values = values / max(values.mean(), 1e-30)
        np.add.at(found, roots[weighted.made], values)
        np.add.at(members, roots[weighted.made], 1)
    return found / np.maximum(members, 1)


def _batch_norm(analyses):
    found = [_of_scales(analysis) for analysis in analyses]
    if not np.isfinite(np.concatenate(found)).any():
        raise ValueError(
            "`importance` must fit the model. Received: "
            "importance='batch_norm', but no unit goes into a batch "
            "normalization with a scale."
        )
    return found


def _of_scales(analysis):
    found = np.zeros(analysis.classes.count)
    roots = analysis.classes.roots()
    seen = np.zeros(len(found), dtype=bool)
    # A shared layer counts once.
    steps = {along.step.path: along for along in analysis.along}
    for along in steps.values():
        layer = along.step.operation
        if traits.is_exactly(layer, layers.BatchNormalization) and layer.scale:
            np.add.at(
                found, roots[along.read.labels], np.abs(array(layer.gamma))
            )
            seen[roots[along.read.labels]] = True
    found[~seen] = np.inf
    return found


def _first_order(model, data):
    """By path, every weight times its gradient."""
    if data is None or getattr(model, "loss", None) is None:
        raise ValueError(
            "`importance='taylor'` must have data=(x, y) and a model that is "
            f"compiled with a loss. Received: data={type(data).__name__}, "
            f"loss={getattr(model, 'loss', None)!r}"
        )
    x, y = data
    # A step of size one takes a copy to its weights minus their gradients.
    copy = rebuild(model, {})
    copy.compile(keras.optimizers.SGD(1.0), model.loss, jit_compile=False)
    before = {v.path: array(v) for v in copy.trainable_variables}
    copy.train_on_batch(x, y)
    return {
        v.path: before[v.path] * (before[v.path] - array(v))
        for v in copy.trainable_variables
    }


def _taylor(analysis, products):
    """First order: the change of the loss without the weights of a unit."""
    found = np.zeros(analysis.classes.count)
    roots = analysis.classes.roots()
    for weighted in with_own_units(analysis):
        layer = weighted.step.operation
        for name in ("kernel", "pointwise_kernel", "bias"):
            variable = getattr(layer, name, None)
            product = products.get(getattr(variable, "path", None))
            if product is not None:
                if name == "kernel" and traits.is_exactly(
                    layer, traits.TRANSPOSED
                ):
                    product = np.moveaxis(product, -1, -2)
                axes = tuple(range(product.ndim - 1))
                np.add.at(found, roots[weighted.made], product.sum(axis=axes))
    return np.abs(found)
