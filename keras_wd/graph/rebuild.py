"""Making a model again from its configuration, with other sizes."""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np
from keras import layers

from keras_wd.graph import kinds
from keras_wd.graph.reading import Along
from keras_wd.graph.reading import Weighted
from keras_wd.graph.removal import Removal
from keras_wd.graph.walk import Graph
from keras_wd.graph.walk import Step


@dataclasses.dataclass(frozen=True)
class Edit:
    """What is different about a layer.

    Attributes:
        config: changed entries of its configuration.
        arrays: new values of its weights, by attribute.
    """

    config: dict
    arrays: dict[str, np.ndarray]


def edits(removal: Removal) -> dict[str, Edit]:
    """What a removal changes, by the path of the layer."""
    found = {}
    for weighted in removal.reading.weighted:
        found[weighted.step.path] = _smaller_layer(weighted, removal.kept)
    for along in removal.reading.along:
        found[along.step.path] = _along(along, removal)
    return found


def rebuild(
    model: keras.Model, graph: Graph, edited: Mapping[str, Edit]
) -> keras.Model:
    """A new model, not compiled, with the weights of the old one.

    Args:
        model: the old model; it is not changed.
        graph: what `walk.read` says about it.
        edited: what is different, by the path of the layer.
    """
    serialized = keras.saving.serialize_keras_object(model)
    opaque = {
        step.path
        for step in graph.steps
        if isinstance(step.operation, keras.Model)
    }
    _rewrite(serialized, (), edited, opaque)
    classes = {
        type(part).__name__: type(part)
        for part in [model, *(step.operation for step in graph.steps)]
        if part is not None and not type(part).__module__.startswith("keras.")
    }
    # The configuration comes from a model in memory, not from a file.
    smaller = keras.saving.deserialize_keras_object(
        serialized, custom_objects=classes, safe_mode=False
    )
    done = set()
    for step in graph.steps:
        operation = step.operation
        if isinstance(operation, layers.Layer) and id(operation) not in done:
            done.add(id(operation))
            _copy_weights(
                operation, _find(smaller, step), edited.get(step.path)
            )
    return smaller


def _rewrite(entry, scope, edited, opaque):
    """Apply the edits to a serialized model, in place."""
    for key in ("build_config", "compile_config"):
        entry.pop(key, None)
    config = entry["config"]
    config.pop("build_input_shape", None)
    for part in config["layers"]:
        name = part["config"]["name"]
        path = "/".join([*scope, name])
        if path in edited:
            part["config"].update(edited[path].config)
            part.pop("build_config", None)
        elif path not in opaque and "layers" in part["config"]:
            _rewrite(part, (*scope, name), edited, opaque)


def _find(model, step: Step):
    for name in (*step.scope, step.name):
        model = model.get_layer(name)
    return model


def _copy_weights(old, new, edit):
    if edit is None or not edit.arrays:
        for source, target in zip(old.variables, new.variables, strict=True):
            # A copy: models that share an array cannot both be compiled with
            # donated arguments.
            target.assign(np.asarray(source).copy())
        return
    for name, values in edit.arrays.items():
        getattr(new, name).assign(values)


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
