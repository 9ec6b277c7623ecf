"""Heads of attention as units: who reads them, and who they read."""

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator

import keras
import numpy as np
from keras import layers

from keras_wd.graph import kernels
from keras_wd.graph import traits
from keras_wd.graph.channels import Channels
from keras_wd.graph.channels import NeedsAll
from keras_wd.graph.channels import Weighted
from keras_wd.graph.rebuild import Edit
from keras_wd.graph.structure import Step

_ARGUMENTS = ("query", "value", "key")
_WIDTH_BEFORE, _WIDTH_BEHIND = (0, 1, 2), (2, 0, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A projection into heads, or out of them.

    Attributes:
        path: of the step that has the layer.
        name: where the step has it, as "_query_dense."; "" if it is the step.
        layer: with the kernel.
        axes: of the kernel: that of the width, of the heads, of their size.
        width: the labels along the first.
        heads: the labels along the second; one label may have several.
    """

    path: str
    name: str
    layer: keras.Layer
    axes: tuple[int, int, int]
    width: np.ndarray
    heads: np.ndarray

    @property
    def kernel(self) -> np.ndarray:
        """`(width, heads, size)`."""
        return kernels.array(self.layer.kernel).transpose(self.axes)

    def chosen(self, values: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """A kernel without the labels that are not kept."""
        width, heads, _ = self.axes
        values = values.compress(kept[self.width], width)
        return values.compress(kept[self.heads], heads)


@dataclasses.dataclass(frozen=True, eq=False)
class Heads:
    """Attention between channels.

    Attributes:
        step: its call, of its last layer where it is several.
        heads: the labels of its heads; those of the keys and values where
            several queries share them.
        made: the labels of its outputs.
        sources: the projections into its heads.
        output: the projection out of them.
    """

    step: Step
    heads: np.ndarray
    made: np.ndarray
    sources: list[Part]
    output: Part

    @property
    def parts(self) -> list[Part]:
        """All projections."""
        return [*self.sources, self.output]

    def counts(self, kept: np.ndarray) -> dict[int, int]:
        """By numbers of heads that a configuration says: how many stay."""
        own = {*self.heads.tolist()}
        return {
            len(part.heads): int(kept[part.heads].sum())
            for part in self.parts
            if own & {*part.heads.tolist()}
        }


def read(analysis, step: Step, inputs: list[Channels]) -> Channels:
    """The channels after attention; its heads become units of `analysis`.

    A head goes if nothing reads it: its rows of the output kernel are zero.
    """
    layer = step.operation
    _refuse_variants(layer, step)
    given = _arguments(step, inputs)
    multi = traits.is_exactly(layer, layers.MultiHeadAttention)
    count = layer.num_heads if multi else layer.num_key_value_heads
    repeats = 1 if multi else layer.num_query_heads // count
    heads = analysis.classes.new(count)
    sources = [
        (
            Part(
                step.path,
                f"_{name}_dense.",
                getattr(layer, f"_{name}_dense"),
                _WIDTH_BEFORE,
                channels.labels,
                np.repeat(heads, repeats) if name == "query" else heads,
            ),
            channels,
        )
        for name, channels in given.items()
    ]
    value = kernels.array(layer._value_dense.kernel)
    nothing = (value == 0).all(axis=(0, 2))
    bias = layer._value_dense.bias
    if bias is not None:
        nothing &= (kernels.array(bias) == 0).all(axis=1)
    # Attention is a mean of the values.
    gains = np.sqrt(np.square(value).sum(axis=(0, 2)))
    made = joined(
        analysis,
        step,
        sources,
        heads,
        ("_output_dense.", layer._output_dense, _WIDTH_BEHIND),
        np.repeat(np.where(nothing, 0.0, np.nan), repeats),
        np.repeat(gains, repeats),
    )
    if not multi:
        # As many outputs as the query has channels.
        analysis.classes.join(given["query"].labels, made.labels)
    return made


def joined(
    analysis,
    step: Step,
    sources: list[tuple[Part, Channels]],
    heads: np.ndarray,
    output: tuple[str, keras.Layer, tuple[int, int, int]],
    constants: np.ndarray,
    gains: np.ndarray,
) -> Channels:
    """The channels after heads, which become units of `analysis`.

    Args:
        analysis: the channels.
        step: see `Heads`.
        sources: the projections into the heads, and what they read.
        heads: see `Heads`.
        output: name, layer and axes of the projection out of them.
        constants: `(queries,)` what a head is, see `Channels`.
        gains: `(queries,)`.
    """
    for part, channels in sources:
        if len(channels) == 0:
            raise NeedsAll(f"{step.path} reads channels of unknown number")
        if len(part.kernel) != len(channels):
            raise NeedsAll(f"{step.path} reads channels in groups")
    for part, channels in sources:
        kernel = np.moveaxis(part.kernel, -1, 0)
        _add(analysis, step, channels, part.heads, kernel)
    name, layer, axes = output
    queries = np.repeat(heads, len(gains) // len(heads))
    between = Channels(queries, constants, gains, np.zeros(len(queries), bool))
    kernel = kernels.array(layer.kernel).transpose(axes)
    # (size, heads, width)
    kernel = np.moveaxis(kernel, 0, -1).swapaxes(0, 1)
    made = analysis.classes.new(kernel.shape[-1])
    foldable = _add(analysis, step, between, made, kernel)
    analysis.made += [heads, made]
    analysis.heads.append(
        Heads(
            step,
            heads,
            made,
            [part for part, _ in sources],
            Part(step.path, name, layer, axes, made, queries),
        )
    )
    constants = kernels.constant_units(
        kernel, kernel.sum(axis=0), foldable, layer.bias
    )
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


def smaller(heads: Heads, kept: np.ndarray) -> Iterator[tuple[str, Edit]]:
    """What is different about the configurations and weights, by path."""
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for part in heads.parts:
        own = arrays.setdefault(part.path, {})
        values = np.asarray(part.layer.kernel)
        own[f"{part.name}kernel"] = part.chosen(values, kept)
        if part.layer.bias is not None:
            labels = part.width if part is heads.output else part.heads
            bias = np.asarray(part.layer.bias)[kept[labels]]
            own[f"{part.name}bias"] = bias
    layer = heads.step.operation
    config: dict[str, object] = {}
    count = int(kept[heads.heads].sum())
    if traits.is_exactly(layer, layers.MultiHeadAttention):
        made = int(kept[heads.made].sum())
        config = {"num_heads": count, "output_shape": (made,)}
    elif traits.is_exactly(layer, layers.GroupQueryAttention):
        repeats = layer.num_query_heads // layer.num_key_value_heads
        config = {
            "num_key_value_heads": count,
            "num_query_heads": count * repeats,
        }
    for path, values in arrays.items():
        yield path, Edit(config, values)


def without_rows(
    heads: Heads, removed: np.ndarray, values: Callable = np.array
) -> Iterator[tuple[str, Edit]]:
    """All weights, zero where they read channels or heads that go."""
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for part in heads.parts:
        own = arrays.setdefault(part.path, {})
        axis, rows = part.axes[0], removed[part.width]
        if part is heads.output:
            axis, rows = part.axes[1], removed[part.heads]
        kernel = values(part.layer.kernel)
        np.moveaxis(kernel, axis, 0)[rows] = 0
        own[f"{part.name}kernel"] = kernel
        if part.layer.bias is not None:
            own[f"{part.name}bias"] = values(part.layer.bias)
    for path, of_one in arrays.items():
        yield path, Edit({}, of_one)
