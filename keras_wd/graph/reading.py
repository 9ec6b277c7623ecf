"""What every layer of a model does to channels: labels and constants.

A pass over the graph from the inputs to the outputs. It notes which units
each layer makes and which it reads, and which numbers are constants whatever
the input: a unit whose input weights are all zero is one.
"""

import collections
import dataclasses

import numpy as np
from keras import layers

from keras_wd.graph import kinds
from keras_wd.graph import rules
from keras_wd.graph.channels import Channels
from keras_wd.graph.channels import Classes
from keras_wd.graph.read import Graph
from keras_wd.graph.read import Step


@dataclasses.dataclass(frozen=True, eq=False)
class Weighted:
    """A Dense or convolution layer between channels.

    Attributes:
        step: its call.
        read: the channels along the rows of its kernel.
        made: the labels of its units.
        kernel: `(offsets, rows, units)`: the kernel with the axes of the
            window flattened, zero for units that are treated as dead.
        foldable: `(rows,)` the value of a row that can be moved into the
            bias; not a number for the others.
    """

    step: Step
    read: Channels
    made: np.ndarray
    kernel: np.ndarray
    foldable: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Along:
    """A step with one entry per channel: its channels before and after."""

    step: Step
    read: Channels
    made: Channels


class Reading:
    """The channels of all tensors of a graph.

    Args:
        graph: what to read.
        dead: positions of units, by the name of their layer, whose input
            weights are treated as zero.

    Attributes:
        classes: which units belong together, and which have to stay.
        weighted: the Dense and convolution layers that can be made smaller.
        along: the steps whose weights or shapes follow the channels.
        opaque: the steps that need all their channels as they are.
    """

    def __init__(self, graph: Graph, dead: dict[str, np.ndarray]):
        self.graph = graph
        self.classes = Classes()
        self.weighted: list[Weighted] = []
        self.along: list[Along] = []
        self.opaque: dict[Step, str] = {}
        self._dead = dead
        self._channels: dict[int, Channels] = {}
        self._entrances = collections.Counter(
            step.path for step in graph.steps if step.operation is None
        )
        for step in graph.steps:
            self._read(step)
        for tensor in graph.outputs:
            self.classes.pin(
                self._channels[tensor].labels,
                "its output is an output of the model",
            )

    def _read(self, step):
        inputs = [self._channels[tensor] for tensor in step.inputs]
        try:
            made = self._made(step, inputs)
        except rules.NeedsAll as refusal:
            self._read_opaque(step, inputs, str(refusal))
            return
        (tensor,) = step.outputs
        self._channels[tensor] = made

    def _made(self, step, inputs):
        operation = step.operation
        if operation is None:
            if not inputs:
                raise rules.NeedsAll("it is an input of the model")
            if self._entrances[step.path] > 1:
                raise rules.NeedsAll(
                    f"{'/'.join(step.scope)} is shared: it is called "
                    f"{self._entrances[step.path]} times"
                )
            self.along.append(Along(step, inputs[0], inputs[0]))
            return inputs[0]
        rules.refuse_unusual(self.graph, step)
        if kinds.is_exactly(operation, (layers.Dense, *kinds.CONVOLUTIONS)):
            return self._read_weighted(step, inputs[0])
        if kinds.is_exactly(operation, rules.MERGING) or (
            kinds.merging_operation(operation)
        ):
            return rules.merged(self.classes, self.graph, step, inputs)
        made = rules.passed(self.graph, step, inputs)
        if kinds.is_exactly(operation, rules.WITH_CHANNELS):
            self.along.append(Along(step, inputs[0], made))
        return made

    def _read_weighted(self, step, read):
        layer = step.operation
        values = rules.array(layer.kernel)
        kernel = values.reshape(-1, *values.shape[-2:])
        if len(read) != kernel.shape[1]:
            raise rules.NeedsAll(f"{step.path} reads channels in groups")
        dead = self._dead.get(step.path)
        if dead is not None:
            kernel = kernel.copy()
            kernel[:, :, dead] = 0
        foldable = rules.foldable(layer, read.constants)
        constants = rules.constant_units(kernel, foldable, layer.bias)
        made = self.classes.new(kernel.shape[2])
        gains = np.sqrt(np.sum(np.square(kernel), axis=(0, 1)))
        self.weighted.append(Weighted(step, read, made, kernel, foldable))
        activation = kinds.activation_of(layer)
        if not kinds.is_elementwise(activation):
            name = kinds.activation_name(activation)
            self.classes.pin(
                made, f"its activation {name} is not known to be elementwise"
            )
            constants = np.full_like(constants, np.nan)
        else:
            constants = rules.activated(activation, constants)
        return Channels(made, constants, gains)

    def _read_opaque(self, step, inputs, reason):
        """All channels stay; nothing is known about what the step makes."""
        self.opaque[step] = reason
        for channels in inputs:
            self.classes.pin(channels.labels, reason)
        for tensor in step.outputs:
            size = (self.graph.shapes[tensor] or (None,))[-1] or 0
            labels = self.classes.new(size)
            self.classes.pin(labels, reason)
            self._channels[tensor] = Channels(
                labels, np.full(size, np.nan), np.full(size, rules.UNBOUNDED)
            )
