"""What a removal of units changes about single layers."""

import numpy as np
from keras import layers

from keras_wd.graph import kinds
from keras_wd.graph.reading import Along
from keras_wd.graph.reading import Weighted
from keras_wd.graph.rebuild import Edit
from keras_wd.graph.removal import Removal


def edits(removal: Removal) -> dict[str, Edit]:
    """What a removal changes, by the path of the layer."""
    reading = removal.reading
    found = {}
    for step in reading.graph.steps:
        # Layers without weights see fewer channels, and are made again.
        if step not in reading.opaque and not getattr(
            step.operation, "weights", True
        ):
            found[step.path] = Edit({}, {})
    for weighted in reading.weighted:
        found[weighted.step.path] = _smaller_layer(weighted, removal.kept)
    for along in reading.along:
        found[along.step.path] = _along(along, removal)
    return found


def masked(removal: Removal) -> dict[str, Edit]:
    """The whole layers, with units that were taken for dead made so."""
    found = {}
    for weighted in removal.reading.weighted:
        layer, path = weighted.step.operation, weighted.step.path
        dead = removal.dead.get(path, ())
        if len(dead):
            kernel = np.array(layer.kernel)
            kernel[..., dead] = 0
            arrays = {"kernel": kernel}
            if layer.bias is not None:
                arrays["bias"] = np.array(layer.bias)
            found[path] = Edit({}, arrays)
    return found


def _smaller_layer(weighted: Weighted, kept) -> Edit:
    layer = weighted.step.operation
    rows, units = kept[weighted.read.labels], kept[weighted.made]
    kernel = np.asarray(layer.kernel)
    arrays = {"kernel": np.compress(units, kernel.compress(rows, -2), -1)}
    size = "units" if kinds.is_exactly(layer, layers.Dense) else "filters"
    config = {size: int(units.sum())}
    gone = ~rows & ~np.isnan(weighted.foldable)
    added = weighted.foldable[gone] @ weighted.kernel[:, gone].sum(axis=0)
    if layer.bias is not None:
        arrays["bias"] = (np.asarray(layer.bias) + added)[units]
    elif added[units].any():
        config["use_bias"] = True
        arrays["bias"] = added[units]
    return Edit(config, arrays)


def _along(along: Along, removal) -> Edit:
    layer = along.step.operation
    before = removal.kept[along.read.labels]
    after = removal.kept[along.made.labels]
    if layer is None:
        (tensor,) = along.step.outputs
        shape = list(removal.reading.graph.shapes[tensor])
        return Edit({"batch_shape": [*shape[:-1], int(after.sum())]}, {})
    if kinds.is_exactly(layer, layers.Reshape):
        target = list(layer.target_shape)
        if target[-1] != -1:
            target[-1] = int(after.sum())
        return Edit({"target_shape": target}, {})
    if kinds.is_exactly(layer, kinds.DEPTHWISE):
        arrays = {"kernel": np.asarray(layer.kernel).compress(before, -2)}
        if layer.bias is not None:
            arrays["bias"] = np.asarray(layer.bias)[after]
        return Edit({}, arrays)
    if kinds.is_exactly(layer, layers.PReLU):
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
