"""What every layer of a model does to channels: labels and constants.

A pass over the graph from the inputs to the outputs. It notes which units
each layer makes and which it reads, and which numbers are constants whatever
the input: a unit whose input weights are all zero is one.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from keras import layers

from keras_wd.graph import attention
from keras_wd.graph import channel_rules
from keras_wd.graph import kernels
from keras_wd.graph import traits
from keras_wd.graph import written_out
from keras_wd.graph.channels import AN_INPUT
from keras_wd.graph.channels import AT_THE_BORDER
from keras_wd.graph.channels import Along
from keras_wd.graph.channels import Channels
from keras_wd.graph.channels import Classes
from keras_wd.graph.channels import IsInput
from keras_wd.graph.channels import NeedsAll
from keras_wd.graph.channels import Weighted
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step


@dataclasses.dataclass
class _Call:
    """The first call of a layer: what it reads and makes, or the refusal."""

    channels: list[Channels]
    refusal: NeedsAll | None = None


class ChannelAnalysis:
    """The channels of all tensors of a graph.

    Args:
        graph: what to read.
        dead: positions of units, by the name of their layer, whose input
            weights are treated as zero.

    Attributes:
        classes: which units belong together, and which have to stay.
        weighted: the Dense and convolution layers that can be made smaller.
        along: the steps whose weights or shapes follow the channels.
        heads: the attention layers that can be made smaller.
        made: the labels that a layer makes, of which one has to stay.
        opaque: the steps that need all their channels as they are.
    """

    def __init__(self, graph: Graph, dead: dict[str, np.ndarray]):
        self.graph = graph
        self.classes = Classes()
        self.weighted: list[Weighted] = []
        self.along: list[Along] = []
        self.heads: list[attention.Heads] = []
        self.made: list[np.ndarray] = []
        self.opaque: dict[Step, str] = {}
        self._dead = dead
        self._channels: dict[int, Channels] = {}
        self._calls: dict[str, _Call] = {}
        self._attention = {
            step: one
            for one in graph.attention
            for step in (*one.sources, one.output)
        }
        self._into_heads: dict[Step, Channels] = {}
        self._places = collections.defaultdict(set)
        for step in graph.steps:
            if step.operation is not None:
                self._places[id(step.operation)].add(step.path)
        for step in graph.steps:
            self._read(step)
        for tensor in graph.outputs:
            self.classes.pin(
                self._channels[tensor].labels,
                "its output is an output of the model",
                AT_THE_BORDER,
            )

    def labels_of(self, tensors: Sequence[int]) -> list[int]:
        """The labels of the channels of tensors of the graph."""
        return [n for t in tensors for n in self._channels[t].labels.tolist()]

    def _read(self, step):
        inputs = [self._channels[tensor] for tensor in step.inputs]
        try:
            self._refuse_other_calls(step, inputs)
            made = self._made(step, inputs)
        except NeedsAll as refusal:
            self._read_opaque(step, inputs, refusal)
            return
        made = made if isinstance(made, list) else [made]
        self._channels.update(zip(step.outputs, made, strict=True))
        tokens = traits.is_exactly(step.operation, layers.Embedding)
        self._join_calls(step, made if tokens else [*inputs, *made])

    def _refuse_other_calls(self, step, inputs):
        """Raise for what cannot have one size in all its calls."""
        operation = step.operation
        places = self._places[id(operation)]
        uses = self.graph.uses[id(operation)]
        if not channel_rules.has_channels(operation):
            if uses > 1 and traits.is_exactly(
                operation, channel_rules.ATTENTION
            ):
                raise NeedsAll(
                    f"{step.path} is shared: it is called {uses} times"
                )
            return
        if len(places) > 1:
            raise NeedsAll(
                f"{step.path} is shared: it is called as "
                f"{' and as '.join(sorted(places))}"
            )
        first = self._calls.get(step.path)
        if first is None:
            return
        if first.refusal is not None:
            raise type(first.refusal)(str(first.refusal))
        known = first.channels[: len(inputs)]
        tokens = traits.is_exactly(operation, layers.Embedding)
        if not tokens and [*map(len, inputs)] != [*map(len, known)]:
            raise NeedsAll(
                f"{step.path} is shared: its calls are on different sizes"
            )

    def _join_calls(self, step, channels):
        """What a layer that is called twice reads and makes has one size."""
        if channel_rules.has_channels(step.operation):
            first = self._calls.setdefault(step.path, _Call(channels))
            for one, other in zip(first.channels, channels, strict=True):
                self.classes.join(one.labels, other.labels)

    def _made(self, step, inputs):
        operation = step.operation
        if operation is None:
            if not inputs:
                raise IsInput(AN_INPUT)
            self.along.append(Along(step, inputs[0], inputs[0]))
            return inputs[0]
        written = self._attention.get(step)
        if written is not None and step is not written.output:
            made = written_out.read_source(self, written, step, inputs[0])
            self._into_heads[step] = inputs[0]
            return made
        if written is not None:
            read = [*map(self._into_heads.get, written.sources)]
            return written_out.read_output(self, written, read)
        channel_rules.refuse_unusual(self.graph, step)
        if channel_rules.is_grouped(operation):
            made = channel_rules.through_grouped(self.classes, step, inputs[0])
            self.along.append(Along(step, inputs[0], made))
            self.made.append(made.labels)
            return made
        if channel_rules.is_weighted(operation):
            return self._read_weighted(step, inputs[0])
        if traits.operation_name(operation) == "Split":
            return self._read_split(step, inputs[0])
        if traits.is_exactly(operation, layers.Embedding):
            return self._read_embedding(step)
        if traits.is_exactly(operation, channel_rules.ATTENTION):
            return attention.read(self, step, inputs)
        if (
            traits.is_exactly(operation, channel_rules.MERGING)
            or channel_rules.is_scaled_sum(operation)
            or traits.merging_operation(operation)
            and len(inputs) > 1
        ):
            return channel_rules.merged(self.classes, self.graph, step, inputs)
        made = channel_rules.passed(self.classes, self.graph, step, inputs)
        if (
            traits.is_exactly(operation, channel_rules.WITH_CHANNELS)
            or traits.is_layer_scale(operation)
            or traits.operation_name(operation) == "Reshape"
        ):
            self.along.append(Along(step, inputs[0], made))
        return made

    def _read_split(self, step, read):
        """Parts of the channels, of which each keeps at least one."""
        shapes = [self.graph.shapes[tensor] for tensor in step.outputs]
        before = self.graph.shapes[step.inputs[0]]
        if step.operation.axis not in (-1, len(before) - 1):
            return [read] * len(shapes)
        if before[-1] is None or len(before) < 2:
            raise NeedsAll(f"{step.path} splits channels of unknown number")
        ends = np.cumsum([shape[-1] for shape in shapes])
        parts = np.split(np.arange(len(read)), ends[:-1])
        self.along.append(Along(step, read, read))
        self.made += [read.labels[part] for part in parts]
        return [read.taken(part) for part in parts]

    def _read_embedding(self, step):
        values = kernels.array(step.operation.embeddings)
        made = Channels(
            self.classes.new(values.shape[1]),
            np.where((values == 0).all(axis=0), 0.0, np.nan),
            np.sqrt(np.square(values).sum(axis=0)),
            np.ones(values.shape[1], bool),
        )
        self.along.append(Along(step, made, made))
        self.made.append(made.labels)
        return made

    def _read_weighted(self, step, read):
        layer = step.operation
        kernel, totals = kernels.kernel_of(layer)
        if len(read) != kernel.shape[1]:
            raise NeedsAll(f"{step.path} reads channels in groups")
        dead = self._dead.get(step.path)
        if dead is not None:
            kernel, totals = kernel.copy(), totals.copy()
            kernel[:, :, dead] = 0
            totals[:, dead] = 0
        foldable = kernels.foldable(layer, read.constants)
        if self.graph.uses[id(layer)] > 1:
            # Another call may read another constant: one bias has no room.
            foldable = np.where(foldable == 0, 0.0, np.nan)
        constants = kernels.constant_units(kernel, totals, foldable, layer.bias)
        made = self.classes.new(kernel.shape[2])
        gains = np.sqrt(np.sum(np.square(kernel), axis=(0, 1)))
        self.weighted.append(
            Weighted(step, read, made, kernel, totals, foldable)
        )
        self.made.append(made)
        activation = traits.activation_of(layer)
        if not traits.is_elementwise(activation):
            name = traits.activation_name(activation)
            self.classes.pin(
                made, f"its activation {name} is not known to be elementwise"
            )
            constants = np.full_like(constants, np.nan)
        else:
            constants = channel_rules.activated(activation, constants)
        return Channels(made, constants, gains, np.ones(len(made), bool))

    def _read_opaque(self, step, inputs, refusal):
        """All channels stay; nothing is known about what the step makes."""
        reason, certainty = str(refusal), refusal.certainty
        self.opaque[step] = reason
        first = self._calls.setdefault(step.path, _Call(inputs))
        first.refusal = refusal
        for channels in (*inputs, *first.channels):
            self.classes.pin(channels.labels, reason, certainty)
        for tensor in step.outputs:
            size = (self.graph.shapes[tensor] or (None,))[-1] or 0
            labels = self.classes.new(size)
            self.classes.pin(labels, reason, certainty)
            self._channels[tensor] = Channels(
                labels,
                np.full(size, np.nan),
                np.ones(size),
                np.zeros(size, bool),
            )
