"""What is known about the channels of a tensor while a model is read.

The units of all layers get labels. A tensor carries one label for every
position of its last axis: the unit that position depends on. Labels joined
into one class stand for units that can be removed together or not at all,
such as the two branches of a residual join.
"""

import dataclasses
import math

import numpy as np

from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step

# Of several reasons why units stay, the one that a better reading of the
# model would not change.
_NOT_KNOWN, AT_THE_BORDER, NEVER = range(3)
AN_INPUT = "it is joined to an input of the model"


class NeedsAll(Exception):
    """A step needs all its channels as they are, and why."""

    certainty = _NOT_KNOWN


class IsInput(NeedsAll):
    """An input of the model keeps its size."""

    certainty = AT_THE_BORDER


class MixesAll(NeedsAll):
    """No such step computes the same of fewer channels."""

    certainty = NEVER


@dataclasses.dataclass(frozen=True)
class Channels:
    """The last axis of a tensor.

    Attributes:
        labels: `(n,)` integers, the unit each position depends on.
        constants: `(n,)` the value of a position that does not depend on the
            input of the model, nor on where in the image it is; otherwise
            not a number.
        gains: `(n,)` how much the position moves with the input of its unit:
            the norm of the unit's weights times the scales since.
        bounded: `(n,)` whether it moves by that much at most.
    """

    labels: np.ndarray
    constants: np.ndarray
    gains: np.ndarray
    bounded: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def taken(self, positions: np.ndarray) -> "Channels":
        """The channels at some positions, possibly repeated."""
        return Channels(
            self.labels[positions],
            self.constants[positions],
            self.gains[positions],
            self.bounded[positions],
        )

    def with_gains(
        self, constants: np.ndarray, gains: np.ndarray, bounded: bool = True
    ) -> "Channels":
        """The same channels, scaled; bounded as before or not at all."""
        return dataclasses.replace(
            self,
            constants=constants,
            gains=gains,
            bounded=self.bounded & bounded,
        )

    def with_constants(self, constants: np.ndarray) -> "Channels":
        """The same channels with other values where they are constant."""
        return dataclasses.replace(self, constants=constants)


class Classes:
    """Classes of labels, and why some of them have to stay."""

    def __init__(self):
        self._parents = []
        self._reasons = {}

    @property
    def count(self) -> int:
        """How many labels there are."""
        return len(self._parents)

    def new(self, count: int) -> np.ndarray:
        """Labels that no tensor has yet."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Make one class of the classes of every pair of labels."""
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            a, b = self._root(a), self._root(b)
            if a != b:
                self._parents[b] = a

    def pin(
        self, labels: np.ndarray, reason: str, certainty: int = _NOT_KNOWN
    ) -> None:
        """Keep the units with these labels, for a reason."""
        for label in np.unique(labels).tolist():
            known = self._reasons.get(label)
            if known is None or known[0] < certainty:
                self._reasons[label] = certainty, reason

    def roots(self) -> np.ndarray:
        """By label, the label that stands for its class."""
        return np.array(
            [self._root(label) for label in range(len(self._parents))],
            dtype=int,
        )

    def reasons(self) -> dict[int, str]:
        """Why classes have to stay, by the label that stands for them."""
        found: dict[int, tuple[int, str]] = {}
        for label, reason in self._reasons.items():
            known = found.setdefault(self._root(label), reason)
            if known[0] < reason[0]:
                found[self._root(label)] = reason
        return {root: reason for root, (_, reason) in found.items()}

    def _root(self, label):
        parents = self._parents
        while parents[label] != label:
            parents[label] = parents[parents[label]]
            label = parents[label]
        return label


@dataclasses.dataclass(frozen=True, eq=False)
class Weighted:
    """A layer between channels, or a part of it.

    Attributes:
        step: its call.
        read: the channels along the rows of its kernel.
        made: the labels of its units.
        kernel: `(offsets, rows, units)`: the kernel with the axes of the
            window flattened, zero for units that are treated as dead.
        totals: `(rows, units)` what a constant row is multiplied by.
        foldable: `(rows,)` the value of a row that can be moved into the
            bias; not a number for the others.
    """

    step: Step
    read: Channels
    made: np.ndarray
    kernel: np.ndarray
    totals: np.ndarray
    foldable: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Along:
    """A step with one entry per channel: its channels before and after."""

    step: Step
    read: Channels
    made: Channels


def reshaped(graph: Graph, step: Step, read: Channels) -> Channels:
    """The channels after a `Flatten` or `Reshape`."""
    before = graph.shapes[step.inputs[0]][1:]
    after = graph.shapes[step.outputs[0]][1:]
    if len(before) and before[-1:] == after[-1:] and before[-1]:
        return read
    if len(after) == 1 and None not in before:
        positions = math.prod(before[:-1])
        return read.taken(np.tile(np.arange(len(read)), positions))
    if None not in after and before[-1] and math.prod(after[-2:]) == before[-1]:
        raise NeedsAll(
            f"{step.path} splits the channels into {after[-2]} groups of "
            f"{after[-1]}"
        )
    raise NeedsAll(f"{step.path} reshapes the channels")
