"""Heads of attention as units: who reads them, and who they read."""

import dataclasses
from collections.abc import Callable

import numpy as np
from keras import layers

from keras_wd.graph import kernels
from keras_wd.graph import traits
from keras_wd.graph.channels import Channels
from keras_wd.graph.channels import NeedsAll
from keras_wd.graph.channels import Weighted
from keras_wd.graph.structure import Step

_ARGUMENTS = ("query", "value", "key")


@dataclasses.dataclass(frozen=True, eq=False)
class Heads:
    """An attention layer between channels.

    Attributes:
        step: its call.
        read: the channels of query, key and value, by name.
        heads: the labels of its heads; those of the keys and values where
            several queries share them.
        made: the labels of its outputs.
    """

    step: Step
    read: dict[str, Channels]
    heads: np.ndarray
    made: np.ndarray


def read(analysis, step: Step, inputs: list[Channels]) -> Channels:
    """The channels after attention; its heads become units of `analysis`.

    A head goes if nothing reads it: its rows of the output kernel are zero.
    """
    layer = step.operation
    _refuse_variants(layer, step)
    given = _arguments(step, inputs)
    if any(len(channels) == 0 for channels in given.values()):
        raise NeedsAll(f"{step.path} reads channels of unknown number")
    output = kernels.array(layer._output_dense.kernel)
    multi = traits.is_exactly(layer, layers.MultiHeadAttention)
    count = layer.num_heads if multi else layer.num_key_value_heads
    heads = analysis.classes.new(count)
    analysis.made.append(heads)
    for name, channels in given.items():
        kernel = kernels.array(getattr(layer, f"_{name}_dense").kernel)
        if len(kernel) != len(channels):
            raise NeedsAll(f"{step.path} reads channels in groups")
        # (rows, heads * queries of a head, size) with the heads behind.
        kernel = kernel.reshape(len(kernel), count, -1)
        _add(analysis, step, channels, heads, np.moveaxis(kernel, -1, 0))
    value = kernels.array(layer._value_dense.kernel)
    nothing = (value == 0).all(axis=(0, 2))
    bias = layer._value_dense.bias
    if bias is not None:
        nothing &= (kernels.array(bias) == 0).all(axis=1)
    between = Channels(
        heads,
        np.where(nothing, 0.0, np.nan),
        # Attention is a mean of the values.
        np.sqrt(np.square(value).sum(axis=(0, 2))),
        np.zeros(count, bool),
    )
    kernel = output.reshape(count, -1, output.shape[-1])
    kernel = np.moveaxis(kernel, 1, 0)
    made = analysis.classes.new(output.shape[-1])
    analysis.made.append(made)
    foldable = _add(analysis, step, between, made, kernel)
    constants = kernels.constant_units(
        kernel, kernel.sum(axis=0), foldable, layer._output_dense.bias
    )
    if not multi:
        # As many outputs as the query has channels.
        analysis.classes.join(given["query"].labels, made)
    analysis.heads.append(Heads(step, given, heads, made))
    gains = np.sqrt(np.square(kernel).sum(axis=(0, 1)))
    return Channels(made, constants, gains, np.zeros(len(made), bool))


def _add(analysis, step, channels, made, kernel):
    foldable = np.where(channels.constants == 0, 0.0, np.nan)
    totals = kernel.sum(axis=0)
    weighted = Weighted(step, channels, made, kernel, totals, foldable)
    analysis.weighted.append(weighted)
    return foldable


def _refuse_variants(layer, step):
    output = getattr(layer, "_output_dense", None)
    if getattr(layer, "_use_gate", getattr(layer, "use_gate", False)):
        raise NeedsAll(f"{step.path} has a gate")
    if getattr(layer, "_attention_axes", None) not in (None, (1,), [1]):
        raise NeedsAll(f"{step.path} attends over several axes")
    if output is None or len(output.kernel.shape) != 3:
        raise NeedsAll(f"{step.path} makes outputs on several axes")
    if any(
        traits.changed_weights(part) for part in getattr(layer, "_layers", ())
    ):
        raise NeedsAll(f"{step.path} has LoRA or quantized weights")


def _arguments(step, inputs):
    """The channels of query, key and value; masks cannot be read."""
    arguments = step.node.arguments
    names = dict(zip(_ARGUMENTS, arguments.args, strict=False))
    names.update(arguments.kwargs)
    known = {
        id(tensor): channels
        for tensor, channels in zip(
            step.node.input_tensors, inputs, strict=True
        )
    }
    given = {
        name: known[id(names[name])]
        for name in _ARGUMENTS
        if names.get(name) is not None
    }
    given.setdefault("key", given["value"])
    return given


def smaller(heads: Heads, kept: np.ndarray) -> tuple[dict, dict]:
    """What is different about the configuration and the weights."""
    layer = heads.step.operation
    left, made = kept[heads.heads], kept[heads.made]
    multi = traits.is_exactly(layer, layers.MultiHeadAttention)
    count = int(left.sum())
    config = {"num_heads": count, "output_shape": (int(made.sum()),)}
    repeats = 1
    if not multi:
        repeats = layer.num_query_heads // layer.num_key_value_heads
        config = {
            "num_key_value_heads": count,
            "num_query_heads": count * repeats,
        }
    queries = np.repeat(left, repeats)
    arrays = {}
    for name, channels in heads.read.items():
        part = getattr(layer, f"_{name}_dense")
        stay = queries if name == "query" else left
        kernel = np.asarray(part.kernel)[kept[channels.labels]]
        arrays[f"_{name}_dense.kernel"] = kernel[:, stay]
        if part.bias is not None:
            arrays[f"_{name}_dense.bias"] = np.asarray(part.bias)[stay]
    part = layer._output_dense
    kernel = np.asarray(part.kernel)[queries]
    arrays["_output_dense.kernel"] = kernel[..., made]
    if part.bias is not None:
        arrays["_output_dense.bias"] = np.asarray(part.bias)[made]
    return config, arrays


def without_rows(
    heads: Heads, removed: np.ndarray, values: Callable = np.array
) -> dict:
    """All weights, zero where they read channels or heads that go."""
    layer = heads.step.operation
    arrays = {}
    for name in ("query", "key", "value", "output"):
        part = getattr(layer, f"_{name}_dense")
        arrays[f"_{name}_dense.kernel"] = values(part.kernel)
        if part.bias is not None:
            arrays[f"_{name}_dense.bias"] = values(part.bias)
    for name, channels in heads.read.items():
        arrays[f"_{name}_dense.kernel"][removed[channels.labels]] = 0
    output = arrays["_output_dense.kernel"]
    repeats = len(output) // len(heads.heads)
    output[np.repeat(removed[heads.heads], repeats)] = 0
    return arrays
