"""Attention that is written out in layers, as in the decoders of KerasHub.

Layers `EinsumDense` make heads, operations mix the positions, and another
`EinsumDense` reads the heads. The operations in between are not followed: who
makes such layers smaller has to compare what they compute.
"""

import dataclasses
import re

import numpy as np
from keras import activations
from keras import layers

from keras_wd.graph import attention
from keras_wd.graph import traits
from keras_wd.graph.channel_rules import ATTENTION
from keras_wd.graph.channel_rules import is_weighted
from keras_wd.graph.channels import NEVER
from keras_wd.graph.channels import Channels
from keras_wd.graph.channels import NeedsAll
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step

_Axes = tuple[int, int, int]
_FORM = re.compile(r"([\w.]*),(\w{3})->([\w.]*)")


@dataclasses.dataclass(frozen=True, eq=False)
class WrittenOut:
    """The layers of an attention.

    Attributes:
        sources: the calls that make its heads.
        output: the call that reads them.
        axes: of their kernels: that of the width, of the heads, of their size.
    """

    sources: list[Step]
    output: Step
    axes: dict[Step, _Axes]

    def count(self, step: Step) -> int:
        """The heads of one of them."""
        return step.operation.kernel.shape[self.axes[step][1]]

    @property
    def agrees(self) -> bool:
        """Whether the numbers of heads do; several queries may share a key."""
        queries = self.count(self.output)
        counts = {*map(self.count, self.sources)}
        return counts <= {min(counts), queries} and not queries % min(counts)


def find(graph: Graph) -> list[WrittenOut]:
    """All attention that is written out, of which nothing else is read."""
    found = []
    for step in graph.steps:
        axes = _reads_heads(step.operation)
        if axes is None:
            continue
        sources = _closed(graph, step)
        steps = {**sources, step: axes}
        if sources and all(graph.uses[id(s.operation)] == 1 for s in steps):
            written = WrittenOut([*sources], step, steps)
            if written.agrees:
                found.append(written)
    return found


def read_source(
    analysis, written: WrittenOut, step: Step, read: Channels
) -> Channels:
    """What a projection into heads makes: the sizes of the heads stay."""
    if len(read) != step.operation.kernel.shape[written.axes[step][0]]:
        raise NeedsAll(f"{step.path} reads channels in groups")
    size = analysis.graph.shapes[step.outputs[0]][-1]
    labels = analysis.classes.new(size)
    analysis.classes.pin(labels, f"{step.path} makes heads of one size", NEVER)
    return Channels(
        labels, np.full(size, np.nan), np.ones(size), np.zeros(size, bool)
    )


def read_output(
    analysis, written: WrittenOut, inputs: list[Channels | None]
) -> Channels:
    """The channels after attention; its heads become units of `analysis`.

    Queries that share keys and values go together. What all queries share
    stays, and then each is a unit.

    Args:
        analysis: the channels.
        written: what was found.
        inputs: what the sources read, in order; None if they stay whole.
    """
    output = written.output.operation
    given = [channels for channels in inputs if channels is not None]
    if len(given) != len(inputs):
        raise NeedsAll(f"{written.output.path} reads heads that stay")
    counts = [written.count(step) for step in written.sources]
    queries = written.count(written.output)
    shared = min(counts)
    single = shared == 1 < queries
    heads = analysis.classes.new(queries if single else shared)
    everyones = analysis.classes.new(1)
    analysis.classes.pin(everyones, "all heads read it", NEVER)
    sources, gains = [], []
    for step, count, channels in zip(
        written.sources, counts, given, strict=True
    ):
        labels = everyones
        if count != 1 or not single:
            labels = np.repeat(heads, count // len(heads))
        part = attention.Part(
            step.path,
            "",
            step.operation,
            written.axes[step],
            channels.labels,
            labels,
        )
        sources.append((part, channels))
        norms = np.sqrt(np.square(part.kernel).sum(axis=(0, 2)))
        gains.append(np.repeat(norms, queries // count))
    return attention.joined(
        analysis,
        written.output,
        sources,
        heads,
        ("", output, written.axes[written.output]),
        np.full(queries, np.nan),
        # It is a product of all of them.
        np.exp(np.log(np.maximum(gains, 1e-30)).mean(axis=0)),
    )


def _makes_heads(operation) -> _Axes | None:
    """The axes of width, heads and size of a kernel that makes heads."""
    read, kernel, made = _letters(operation)
    width, heads, size = read[-1:], made[-2:-1], made[-1:]
    if (read[:-1], {*kernel}) != (made[:-2], {width, heads, size}):
        return None
    if operation.bias is not None and operation.bias_axes != heads + size:
        return None
    return kernel.index(width), kernel.index(heads), kernel.index(size)


def _reads_heads(operation) -> _Axes | None:
    """The axes of width, heads and size of a kernel that reads heads."""
    read, kernel, made = _letters(operation)
    width, heads, size = made[-1:], read[-2:-1], read[-1:]
    if (read[:-2], {*kernel}) != (made[:-1], {width, heads, size}):
        return None
    if operation.bias is not None and operation.bias_axes != width:
        return None
    if traits.activation_of(operation) not in (None, activations.linear):
        return None
    return kernel.index(width), kernel.index(heads), kernel.index(size)


def _letters(operation):
    """What an EinsumDense reads, its kernel and what it makes, in letters."""
    form = None
    if traits.is_exactly(
        operation, layers.EinsumDense
    ) and not traits.changed_weights(operation):
        form = _FORM.fullmatch(operation.equation.replace(" ", ""))
    if form is None or len({*form[2]}) < 3:
        return "", "", ""
    return form.groups()


def _closed(graph, output) -> dict[Step, _Axes]:
    """The projections behind an output, in order, and their axes.

    None if something else is made of them too.

    Steps in between that read something else as well, such as a mask, are
    allowed to; what they make has to come to the output alone.
    """
    between, sources = {output}, {}
    waiting = [output]
    while waiting:
        for tensor in waiting.pop().inputs:
            step = graph.producers[tensor]
            if step in between:
                continue
            axes = _makes_heads(step.operation)
            if axes:
                sources[step] = axes
            elif not _is_made_elsewhere(step.operation):
                waiting.append(step)
            else:
                continue
            between.add(step)
    behind = set(sources)
    for step in graph.steps:
        if step is output or not behind & {
            graph.producers[tensor] for tensor in step.inputs
        }:
            continue
        if step not in between:
            return {}
        behind.add(step)
    ends = {tensor for step in behind for tensor in step.outputs}
    if ends & set(graph.outputs):
        return {}
    return {step: sources[step] for step in graph.steps if step in sources}


def _is_made_elsewhere(operation):
    """Whether no path through a step is one between heads."""
    return (
        operation is None
        or is_weighted(operation)
        or traits.is_exactly(operation, (*ATTENTION, layers.Embedding))
        or bool(_reads_heads(operation))
    )
