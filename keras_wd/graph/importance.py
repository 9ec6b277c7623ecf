"""How much units matter: a score for every class of joined units."""

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from keras_wd.graph import traits
from keras_wd.graph.channel_analysis import ChannelAnalysis
from keras_wd.graph.channel_rules import is_grouped
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
    for source in _sources(analysis):
        layer, made = source.layer, source.made
        values = np.asarray(function(layer, source.kernel), "float64")
        if values.shape != made.shape:
            raise ValueError(
                "`importance` must return a number for every unit. Received: "
                f"an array of shape {values.shape} for {layer.name}, which "
                f"has {len(made)} units."
            )
        if importance == "magnitude":
            # Else the units with few inputs would all go first.
            values = values / max(values.mean(), 1e-30)
        np.add.at(found, roots[made], values)
        np.add.at(members, roots[made], 1)
    return found / np.maximum(members, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class _Source:
    """Units, and the weights into them.

    Attributes:
        layer: which has the weights.
        made: the labels of the units.
        kernel: `(window, rows, units)`.
        weights: variables, and how many axes they have behind that of the
            units (or of the queries of each unit in turn).
    """

    layer: keras.Layer
    made: np.ndarray
    kernel: np.ndarray
    weights: list[tuple[keras.Variable, int]]


def _sources(analysis: ChannelAnalysis) -> Iterator[_Source]:
    """Everything that makes units: layers, embeddings, attention."""
    for weighted in with_own_units(analysis):
        layer = weighted.step.operation
        names = ("kernel", "pointwise_kernel", "bias")
        behind = int(traits.is_exactly(layer, traits.TRANSPOSED))
        weights = [
            (variable, behind if name == "kernel" else 0)
            for name in names
            for variable in [getattr(layer, name, None)]
            if variable is not None
        ]
        yield _Source(layer, weighted.made, kernel_of(layer)[0], weights)
    seen: set[int] = set()
    for along in analysis.along:
        layer = along.step.operation
        embeds = traits.is_exactly(layer, layers.Embedding)
        if not (embeds or is_grouped(layer)) or id(layer) in seen:
            continue
        seen.add(id(layer))
        variable = layer.embeddings if embeds else layer.kernel
        values = array(variable)
        kernel = values.reshape(-1, *values.shape[-2:])
        weights = [(variable, 0)]
        if getattr(layer, "bias", None) is not None:
            weights.append((layer.bias, 0))
        yield _Source(layer, along.made.labels, kernel, weights)
    for heads in analysis.heads:
        layer, own = heads.step.operation, heads.heads
        parts = [
            part for part in heads.sources if np.isin(part.heads, own).all()
        ]
        # Several queries in turn may belong to one unit.
        rows = [
            part.kernel.swapaxes(0, 1).reshape(len(own), -1).T for part in parts
        ]
        weights = [
            pair for part in parts for pair in _with_bias(part, part.axes[1], 1)
        ]
        yield _Source(layer, own, np.concatenate(rows)[None], weights)
        part = heads.output
        values = np.moveaxis(part.kernel, 0, -1)
        weights = _with_bias(part, part.axes[0], 0)
        yield _Source(layer, heads.made, values, weights)


def _with_bias(part, axis, behind):
    """The weights of a projection, and the axes behind that of the units.

    Args:
        part: with a kernel of three axes.
        axis: that of the units in the kernel.
        behind: what is behind it in the bias.
    """
    weights = [(part.layer.kernel, 2 - axis)]
    if part.layer.bias is not None:
        weights.append((part.layer.bias, behind))
    return weights


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
    for source in _sources(analysis):
        for variable, behind in source.weights:
            product = products.get(variable.path)
            if product is not None:
                sums = _by_unit(product, len(source.made), behind)
                np.add.at(found, roots[source.made], sums)
    return np.abs(found)


def _by_unit(values, count, behind):
    """The sums of the numbers that belong to each of so many units.

    Args:
        values: an array.
        count: of the units.
        behind: how many axes there are behind theirs.
    """
    axis = values.ndim - 1 - behind
    values = np.moveaxis(values, axis, 0).reshape(count, -1)
    return values.sum(axis=1)
