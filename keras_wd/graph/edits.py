"""What a removal of units changes about single layers."""

from collections.abc import Callable

import numpy as np
from keras import layers

from keras_wd.graph import attention
from keras_wd.graph import traits
from keras_wd.graph.channel_analysis import ChannelAnalysis
from keras_wd.graph.channel_rules import is_einsum_of_dense
from keras_wd.graph.channel_rules import is_grouped
from keras_wd.graph.channel_rules import is_weighted
from keras_wd.graph.channels import Along
from keras_wd.graph.channels import Weighted
from keras_wd.graph.rebuild import Edit
from keras_wd.graph.removal import Removal


def edits(removal: Removal) -> dict[str, Edit]:
    """What a removal changes, by the path of the layer."""
    analysis = removal.analysis
    found = {}
    for step in analysis.graph.steps:
        # Layers without weights see fewer channels, and are made again.
        if step not in analysis.opaque and not getattr(
            step.operation, "weights", True
        ):
            found[step.path] = Edit({}, {})
    for weighted in analysis.weighted:
        if is_weighted(weighted.step.operation):
            found[weighted.step.path] = _smaller_layer(weighted, removal.kept)
    for heads in analysis.heads:
        found.update(attention.smaller(heads, removal.kept))
    for along in analysis.along:
        found[along.step.path] = _along(along, removal)
    return found


def masked(removal: Removal) -> dict[str, Edit]:
    """The whole layers, with units that were taken for dead made so."""
    found = {}
    for weighted in removal.analysis.weighted:
        layer, path = weighted.step.operation, weighted.step.path
        dead = removal.dead.get(path, ())
        if len(dead) and is_weighted(layer):
            found[path] = Edit({}, with_zeros(layer, units=dead))
    return found


def without_rows(
    analysis: ChannelAnalysis, removed: np.ndarray, values: Callable = np.array
) -> dict[str, Edit]:
    """The whole layers, of which none reads the labels that are removed.

    Args:
        analysis: the labels.
        removed: `(labels,)` which of them.
        values: what stands for a variable where it stays.
    """
    found = {}
    for weighted in analysis.weighted:
        layer, path = weighted.step.operation, weighted.step.path
        rows = np.flatnonzero(removed[weighted.read.labels])
        if is_weighted(layer) and len(rows):
            arrays = with_zeros(layer, rows=rows, values=values)
            found[path] = Edit({}, arrays)
    for heads in analysis.heads:
        found.update(attention.without_rows(heads, removed, values))
    return found


def with_zeros(
    layer, units=(), rows=(), values: Callable = np.array
) -> dict[str, np.ndarray]:
    """The weights of a whole layer, with zeros for some units or rows."""
    names = ("depthwise_kernel", "pointwise_kernel", "kernel", "bias")
    arrays = {
        name: values(getattr(layer, name))
        for name in names
        if getattr(layer, name, None) is not None
    }
    for name in ("pointwise_kernel", "kernel"):
        if name in arrays:
            kernel = arrays[name]
            if traits.is_exactly(layer, traits.TRANSPOSED):
                kernel = np.moveaxis(kernel, -1, -2)
            kernel[..., list(units)] = 0
            if name == "pointwise_kernel":
                first = arrays["depthwise_kernel"]
                first[..., list(rows), :] = 0
            else:
                kernel[..., list(rows), :] = 0
    return arrays


def _smaller_layer(weighted: Weighted, kept) -> Edit:
    layer = weighted.step.operation
    rows, units = kept[weighted.read.labels], kept[weighted.made]
    if traits.is_exactly(layer, traits.SEPARABLE):
        multiplier = layer.depth_multiplier
        first = np.asarray(layer.depthwise_kernel).compress(rows, -2)
        second = np.asarray(layer.pointwise_kernel)
        second = second.compress(np.repeat(rows, multiplier), -2)
        arrays = {
            "depthwise_kernel": first,
            "pointwise_kernel": second.compress(units, -1),
        }
    elif traits.is_exactly(layer, traits.TRANSPOSED):
        kernel = np.asarray(layer.kernel).compress(rows, -1)
        arrays = {"kernel": kernel.compress(units, -2)}
    else:
        kernel = np.asarray(layer.kernel).compress(rows, -2)
        arrays = {"kernel": kernel.compress(units, -1)}
    config: dict[str, object] = _of_units(layer, int(units.sum()))
    gone = ~rows & ~np.isnan(weighted.foldable)
    added = weighted.foldable[gone] @ weighted.totals[gone]
    if layer.bias is not None:
        arrays["bias"] = (np.asarray(layer.bias) + added)[units]
    elif added[units].any():
        config |= _with_bias(layer)
        arrays["bias"] = added[units]
    return Edit(config, arrays)


def _of_units(layer, count):
    """What the configuration says of that many units."""
    if is_einsum_of_dense(layer):
        shape = layer.partial_output_shape
        return {"output_shape": (*shape[:-1], count)}
    is_dense = traits.is_exactly(layer, layers.Dense)
    return {"units" if is_dense else "filters": count}


def _with_bias(layer):
    if is_einsum_of_dense(layer):
        return {"bias_axes": layer.equation[-1]}
    return {"use_bias": True}


def _along(along: Along, removal) -> Edit:
    layer = along.step.operation
    before = removal.kept[along.read.labels]
    after = removal.kept[along.made.labels]
    if layer is None:
        (tensor,) = along.step.outputs
        *shape, size = removal.analysis.graph.shapes[tensor]
        # The length of a sequence may be open, and is no number of channels.
        size = None if size is None else int(after.sum())
        return Edit({"batch_shape": [*shape, size]}, {})
    if traits.operation_name(layer) == "Reshape":
        target = list(layer.newshape)
        if target[-1] != -1:
            target[-1] = int(after.sum())
        return Edit({"newshape": tuple(target)}, {})
    if traits.operation_name(layer) == "Split":
        sizes = [
            removal.analysis.graph.shapes[tensor][-1]
            for tensor in along.step.outputs
        ]
        parts = np.split(before, np.cumsum(sizes)[:-1])
        ends = np.cumsum([int(part.sum()) for part in parts])
        return Edit({"indices_or_sections": tuple(ends[:-1].tolist())}, {})
    if is_grouped(layer):
        arrays = {"kernel": np.asarray(layer.kernel).compress(after, -1)}
        if layer.bias is not None:
            arrays["bias"] = np.asarray(layer.bias)[after]
        groups = int(before.sum()) * layer.groups // before.size
        return Edit({"groups": groups, "filters": int(after.sum())}, arrays)
    if traits.is_exactly(layer, layers.Embedding):
        values = np.asarray(layer.embeddings).compress(after, -1)
        return Edit({"output_dim": int(after.sum())}, {"embeddings": values})
    if type(layer).__name__ == "RMSNormalization":
        # The mean is over more numbers, of which the others are zero.
        ratio = before.size / before.sum()
        scale = np.asarray(layer.scale)[before] * np.sqrt(ratio)
        return Edit({"epsilon": layer.epsilon * ratio}, {"scale": scale})
    if traits.is_layer_scale(layer):
        config = {"projection_dim": int(before.sum())}
        return Edit(config, {"gamma": np.asarray(layer.gamma)[before]})
    if traits.is_exactly(layer, layers.GroupNormalization):
        groups = layer.groups
        if groups != -1:
            groups = int(before.reshape(groups, -1).any(axis=1).sum())
        arrays = {
            name: np.asarray(getattr(layer, name))[before]
            for name in ("gamma", "beta")
            if getattr(layer, name) is not None
        }
        return Edit({"groups": groups}, arrays)
    if traits.is_exactly(layer, layers.Reshape):
        target = list(layer.target_shape)
        if target[-1] != -1:
            target[-1] = int(after.sum())
        return Edit({"target_shape": target}, {})
    if traits.is_exactly(layer, traits.DEPTHWISE):
        arrays = {"kernel": np.asarray(layer.kernel).compress(before, -2)}
        if layer.bias is not None:
            arrays["bias"] = np.asarray(layer.bias)[after]
        return Edit({}, arrays)
    if traits.is_exactly(layer, layers.PReLU):
        slopes = np.asarray(layer.alpha)
        if slopes.shape[-1] != 1:
            slopes = slopes.compress(before, -1)
        return Edit({}, {"alpha": slopes})
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return Edit(
        {},
        {
            name: np.asarray(getattr(layer, name))[before]
            for name in names
            if getattr(layer, name) is not None
        },
    )
