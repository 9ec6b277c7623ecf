"""Layers that other people wrote, followed by what they call inside.

A layer of KerasHub, or of a user, holds layers and calls them in Python. Its
`call` is followed on symbolic tensors, which shows what it does with the
layers inside. If an entry of its configuration, such as `intermediate_dim`,
says how many units there are, the layer is made again with a smaller one. So
it stays of its class, and can be saved. What comes out of it is compared with
what came out before.
"""

import collections
import dataclasses
import functools
import operator

import keras
import numpy as np
from keras import layers

from keras_wd.graph import traits
from keras_wd.graph import verify
from keras_wd.graph import written_out
from keras_wd.graph.calls_again import entrances
from keras_wd.graph.calls_again import example
from keras_wd.graph.calls_again import open_up
from keras_wd.graph.calls_again import parts_of
from keras_wd.graph.channel_analysis import ChannelAnalysis
from keras_wd.graph.channel_rules import is_weighted
from keras_wd.graph.configurations import changes
from keras_wd.graph.configurations import config_of
from keras_wd.graph.configurations import made_again
from keras_wd.graph.copies import Copier
from keras_wd.graph.edits import edits
from keras_wd.graph.edits import masked
from keras_wd.graph.rebuild import Edit
from keras_wd.graph.removal import Removal
from keras_wd.graph.removal import plan_removal
from keras_wd.graph.removal import with_own_units
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step
from keras_wd.graph.structure import functional_of
from keras_wd.graph.structure import read


class Whole(Exception):
    """A layer cannot be made smaller, and why."""


class _Differs(Whole):
    """What was made smaller computes something else."""


def followed_in(analysis: ChannelAnalysis) -> list["Followed"]:
    """The layers that hold layers, each once, of those that can be followed."""
    found = []
    for step in steps_with_layers(analysis):
        try:
            found.append(Followed(analysis.graph, step))
        except Exception:  # whatever it raises; `look_inside` says it
            continue
    return found


def steps_with_layers(analysis: ChannelAnalysis) -> list[Step]:
    """The first calls of layers that hold layers and are read as a whole."""
    found: dict[int, Step] = {}
    for step in analysis.opaque:
        if _holds_layers(step.operation):
            found.setdefault(id(step.operation), step)
    return list(found.values())


def _holds_layers(layer):
    return (
        isinstance(layer, keras.Layer)
        and functional_of(layer) is None
        and type(layer).__module__.split(".")[0] != "keras"
        and any(
            is_weighted(part) or traits.is_exactly(part, layers.EinsumDense)
            for part in parts_of(layer)
        )
    )


def _refuse_shared(graph, step):
    own = {id(variable) for variable in step.operation.variables}
    for other in graph.steps:
        variables = getattr(other.operation, "variables", ())
        if other.operation is not step.operation and any(
            id(variable) in own for variable in variables
        ):
            raise Whole(f"{step.path} shares weights with {other.path}")


class Followed:
    """A layer, and what its `call` does with the layers inside.

    Followed on a copy, so that the names and the classes of what is inside
    can be changed: names to be distinct, classes to be called as they are
    written where they hold layers themselves.

    Args:
        graph: of the model around it.
        step: its first call there.

    Attributes:
        graph: what it calls inside.

    Raises:
        Whole: if it shares weights with another layer.
        Exception: whatever the layer raises.
    """

    def __init__(self, graph: Graph, step: Step):
        _refuse_shared(graph, step)
        self.step = step
        self.layer = step.operation
        copy = Copier().copy(self.layer)
        if copy.variables:
            open_up(copy)
        self._inputs, (args, kwargs) = entrances(step.node)
        made = keras.tree.flatten(copy.call(*args, **kwargs))
        outputs = [t for t in made if isinstance(t, keras.KerasTensor)]
        self.graph: Graph = read(keras.Model(self._inputs, outputs))
        self.graph.attention = written_out.find(self.graph)
        self._copy = copy
        self._positions = {id(v): i for i, v in enumerate(copy.variables)}

    def refresh(self) -> None:
        """Take over the values that the weights of the layer have now."""
        _assign(self._copy, map(np.array, self.layer.variables))

    @functools.cached_property
    def sizes(self) -> list[list[np.ndarray]]:
        """The units whose number is an entry of the configuration.

        A list for every such number: the labels of all that has so many.
        """
        removal = plan_removal(self.graph, 0.0)
        heads = [part.heads for part in removal.analysis.heads]
        by_size = collections.defaultdict(list)
        for made in [*_own_units(removal), *heads]:
            by_size[len(made)].append(made)
        return [
            made for made in by_size.values() if self._is_free(removal, made)
        ]

    def _is_free(self, removal, members):
        """Whether the layer can be made with half of these units."""
        count = len(members[0])
        roots = removal.analysis.classes.roots()
        gone = {root for made in members for root in roots[made[count // 2 :]]}
        kept = ~np.isin(roots, list(gone))
        sizes = {count: count // 2}
        for part in removal.analysis.heads:
            if any(part.heads is made for made in members):
                sizes |= part.counts(kept)
        try:
            edited = edits(dataclasses.replace(removal, kept=kept))
            self._smaller(sizes, self._values_of(edited))
        except Exception:  # whatever the layer raises
            return False
        return count > 1

    def masks(
        self, edited: dict[str, Edit]
    ) -> list[tuple[keras.Variable, np.ndarray]]:
        """Variables of the layer, and what the edits say of those inside."""
        variables = self.layer.variables
        return [
            (variables[position], array)
            for position, array in self._edited(edited)
        ]

    def values(self, edited: dict[str, Edit]) -> list[np.ndarray]:
        """The weights of the layer with what is different inside."""
        values = [np.array(variable) for variable in self.layer.variables]
        for position, array in self._edited(edited):
            values[position] = array
        return values

    def _edited(self, edited):
        """Positions among the weights of the layer, and new values there."""
        operations = {s.path: s.operation for s in self.graph.steps}
        for path, edit in edited.items():
            for name, array in edit.arrays.items():
                variable = operator.attrgetter(name)(operations[path])
                if variable is None:
                    raise Whole(
                        f"a constant cannot be added to a bias of {path}, "
                        "which has none"
                    )
                yield self._positions[id(variable)], array

    def shrunk(
        self, removal: Removal
    ) -> tuple[Removal, Edit | None, Edit | None]:
        """What is removed in the end, see `Inside`.

        Heads of attention stay if the configuration cannot say that there
        are fewer; often their number decides their size.
        """
        heads = removal.analysis.heads
        gone = [
            part.heads for part in heads if not removal.kept[part.heads].all()
        ]
        if not gone:
            return self._shrunk(removal, [])
        try:
            return self._shrunk(removal, heads)
        except Exception as error:  # whatever the layer raises
            kept, reasons = removal.kept.copy(), dict(removal.reasons)
            for made in gone:
                _keep(removal.analysis, made, kept, len(made))
                said = (
                    f"{self.step.path} has no entry in its configuration for "
                    f"fewer than {len(made)} heads of that size"
                )
                if isinstance(error, _Differs):
                    said = str(error)
                reasons |= dict.fromkeys(made.tolist(), said)
            removal = dataclasses.replace(removal, kept=kept, reasons=reasons)
            return self._shrunk(removal, [])

    def _shrunk(self, removal, heads):
        """Layers of one size keep as many units, as one number says how many
        there are: as many as that of them which needs most.
        """
        sizes = {}
        kept = removal.kept.copy()
        units = [*_own_units(removal), *(part.heads for part in heads)]
        for made in units:
            left = int(kept[made].sum())
            sizes[len(made)] = max(sizes.get(len(made), 0), left)
        for made in units:
            _keep(removal.analysis, made, kept, sizes[len(made)])
        for part in heads:
            for before, after in part.counts(kept).items():
                if sizes.setdefault(before, after) != after:
                    raise Whole(
                        f"{self.step.path} has {before} units of two kinds"
                    )
        dead = {
            weighted.step.path: positions[~kept[weighted.made[positions]]]
            for weighted in with_own_units(removal.analysis)
            for positions in [removal.dead.get(weighted.step.path)]
            if positions is not None
        }
        removal = dataclasses.replace(removal, kept=kept, dead=dead)
        sizes = {n: m for n, m in sizes.items() if m < n}
        if not sizes or removal.is_empty:
            return removal, None, None
        whole = None
        if any(map(len, dead.values())):
            whole = Edit({}, {}, self.values(masked(removal)))
        values = self._values_of(edits(removal))
        made, different = self._smaller(sizes, values)
        self._compare(made, values, whole)
        return removal, Edit(different, {}, values), whole

    def _values_of(self, edited):
        if any(edit.config.get("epsilon") for edit in edited.values()):
            raise Whole(f"{self.step.path} normalizes what would go")
        return self.values(edited)

    def _smaller(self, sizes, values):
        """The layer made for such weights, and what its configuration says.

        Args:
            sizes: numbers of units, by what they were.
            values: its weights, in order.
        """
        shapes = [value.shape for value in values]
        failure: Exception | None = None
        numbers = {
            name: value
            for name, value in config_of(self.layer).items()
            if type(value) is int
        }
        for different in changes(numbers, sizes):
            try:
                made = self._made(different)
            except Exception as error:  # an entry that means something else
                failure = failure or error
                continue
            if [tuple(v.shape) for v in made.variables] == shapes:
                return made, different
        if failure is not None:
            raise failure
        units_said = ", ".join(f"{n} to {m}" for n, m in sizes.items())
        raise Whole(
            f"{self.step.path} has no entry in its configuration that changes "
            f"{units_said} units and nothing else"
        )

    def _made(self, different):
        """The layer with another configuration, built."""
        made = made_again(self.layer, different)
        _, (args, kwargs) = entrances(self.step.node)
        made(*args, **kwargs)
        return made

    def _compare(self, made, values, whole):
        """Raise unless the smaller layer computes the same."""
        # Not the layer itself: a call can change seeds, statistics, losses.
        before = Copier().copy(self.layer)
        if whole is not None:
            _assign(before, whole.values)
        _assign(made, values)
        _, (args, kwargs) = entrances(self.step.node, example)
        results = []
        for layer in (before, made):
            outputs = keras.tree.flatten(layer(*args, **kwargs))
            results.append(
                [verify.as_array(y) for y in outputs if y is not None]
            )
        for one, other in zip(*results, strict=True):
            if not verify.difference(one, other) <= verify.tolerance(before):
                raise _Differs(
                    f"{self.step.path} computes something else when "
                    "it is made smaller"
                )


def _assign(layer, values):
    for variable, value in zip(layer.variables, values, strict=True):
        variable.assign(value)


def _own_units(removal):
    """The units of the layers inside of which some might go."""
    for weighted in with_own_units(removal.analysis):
        if not all(label in removal.reasons for label in weighted.made):
            yield weighted.made


def _keep(analysis, made, kept, count):
    """Keep more units of a layer, and what belongs to them, in place."""
    roots = analysis.classes.roots()
    while kept[made].sum() < count:
        label = made[~kept[made]][0]
        kept[roots == roots[label]] = True
