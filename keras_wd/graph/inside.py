"""Smaller layers inside of layers that other people wrote.

A layer of KerasHub, or of a user, holds layers and calls them in Python. Its
`call` is followed on symbolic tensors, which shows what it does with the
layers inside; units between them are dead or not as anywhere else. If an entry
of its configuration, such as `intermediate_dim`, says how many there are, the
layer is made again with a smaller one. So it stays of its class, and can be
saved. What comes out of it is compared with what came out before.
"""

import dataclasses
import itertools
import operator
from collections.abc import Iterator

import keras
import numpy as np

from keras_wd.graph import traits
from keras_wd.graph import verify
from keras_wd.graph.channel_analysis import ChannelAnalysis
from keras_wd.graph.channel_rules import ATTENTION
from keras_wd.graph.channel_rules import is_weighted
from keras_wd.graph.channels import AN_INPUT
from keras_wd.graph.copies import Copier
from keras_wd.graph.copies import config_of
from keras_wd.graph.copies import made_again
from keras_wd.graph.edits import edits
from keras_wd.graph.edits import masked
from keras_wd.graph.rebuild import Edit
from keras_wd.graph.removal import Removal
from keras_wd.graph.removal import names
from keras_wd.graph.removal import plan_removal
from keras_wd.graph.removal import with_own_units
from keras_wd.graph.structure import Graph
from keras_wd.graph.structure import Step
from keras_wd.graph.structure import functional_of
from keras_wd.graph.structure import read

_BATCH, _UNKNOWN_SIZE = 2, 12
_SMALL = 0.01
_COMBINATIONS = 16


class _Whole(Exception):
    """A layer cannot be made smaller, and why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Inside:
    """What is removed inside of a layer.

    Attributes:
        step: the first call of the layer.
        removal: what its own layers lose; None if they could not be read.
        smaller: what is different about the layer; None if it stays.
        whole: the same, of the same size, without the units that are taken
            for dead; None if there are none.
        reason: why it stays, if it does.
        entrance: why what it reads has to stay, if its own layers say so.
    """

    step: Step
    removal: Removal | None
    smaller: Edit | None
    whole: Edit | None
    reason: str
    entrance: str = ""

    def left_whole(self) -> "Inside":
        """The same if the model as a whole refutes it."""
        if self.smaller is None:
            return self
        reason = f"the model differs when {self.step.path} is made smaller"
        return dataclasses.replace(
            self, smaller=None, whole=None, reason=reason
        )


def look_inside(analysis: ChannelAnalysis, threshold: float) -> list[Inside]:
    """What can be removed inside of the layers that are read as a whole."""
    found, seen = [], set()
    for step in analysis.opaque:
        layer = step.operation
        if id(layer) not in seen and _holds_layers(layer):
            seen.add(id(layer))
            found.append(_look_into(analysis.graph, step, threshold))
    return found


def _holds_layers(layer):
    return (
        isinstance(layer, keras.Layer)
        and functional_of(layer) is None
        and type(layer).__module__.split(".")[0] != "keras"
        and any(map(is_weighted, _parts(layer)))
    )


def _parts(layer) -> Iterator[keras.Layer]:
    for part in getattr(layer, "_layers", ()):
        yield part
        yield from _parts(part)


def _look_into(graph, step, threshold):
    try:
        _refuse_shared(graph, step)
        inner = _Inner(step)
        removal = plan_removal(inner.graph, threshold)
    except Exception as error:  # whatever a layer of somebody else raises
        return Inside(step, None, None, None, _said(step, error))
    entrance = _entrance(step, removal)
    if removal.is_empty:
        return Inside(step, removal, None, None, "", entrance)
    try:
        return Inside(step, *inner.shrunk(removal), "", entrance)
    except Exception as error:
        reason = _said(step, error)
        return Inside(step, removal, None, None, reason, entrance)


def _entrance(step, removal):
    """Why the first tensor that a layer reads keeps its channels."""
    labels = removal.analysis.labels_of(removal.analysis.graph.steps[0].outputs)
    reasons = names(labels, removal.reasons)
    if not reasons or reasons[0] == AN_INPUT:
        return ""
    return f"{step.path}/{reasons[0]}"


def _said(step, error):
    if isinstance(error, _Whole):
        return str(error)
    said = " ".join(str(error).split())[:100]
    return f"{step.path} could not be followed: {type(error).__name__}: {said}"


def _refuse_shared(graph, step):
    own = {id(variable) for variable in step.operation.variables}
    for other in graph.steps:
        variables = getattr(other.operation, "variables", ())
        if other.operation is not step.operation and any(
            id(variable) in own for variable in variables
        ):
            raise _Whole(f"{step.path} shares weights with {other.path}")


class _Inner:
    """A layer, and what its `call` does with the layers inside.

    Followed on a copy, so that the names and the classes of what is inside
    can be changed: names to be distinct, classes to be called as they are
    written where they hold layers themselves.
    """

    def __init__(self, step: Step):
        self.step = step
        self.layer = step.operation
        copy = Copier().copy(self.layer)
        if copy.variables:
            for part, name in _named(copy):
                part.name = name
                if list(_parts(part)) and not _is_read_as_one(part):
                    part.__class__ = _called_as_written(type(part))
        self._inputs, (args, kwargs) = _entrances(step.node)
        made = keras.tree.flatten(copy.call(*args, **kwargs))
        outputs = [t for t in made if isinstance(t, keras.KerasTensor)]
        self.graph: Graph = read(keras.Model(self._inputs, outputs))
        self._positions = {id(v): i for i, v in enumerate(copy.variables)}

    def values(self, edited: dict[str, Edit]) -> list[np.ndarray]:
        """The weights of the layer with what is different inside."""
        values = [np.array(variable) for variable in self.layer.variables]
        operations = {s.path: s.operation for s in self.graph.steps}
        for path, edit in edited.items():
            for name, array in edit.arrays.items():
                variable = operator.attrgetter(name)(operations[path])
                if variable is None:
                    raise _Whole(
                        f"a constant cannot be added to a bias of {path}, "
                        "which has none"
                    )
                values[self._positions[id(variable)]] = array
        return values

    def shrunk(
        self, removal: Removal
    ) -> tuple[Removal, Edit | None, Edit | None]:
        """What is removed in the end, see `Inside`.

        Heads of attention stay if the configuration cannot say that there
        are fewer; often their number decides their size.
        """
        heads = [part.heads for part in removal.analysis.heads]
        gone = [made for made in heads if not removal.kept[made].all()]
        if not gone:
            return self._shrunk(removal, [])
        try:
            return self._shrunk(removal, heads)
        except Exception:  # of `_Whole`, or whatever the layer raises
            kept, reasons = removal.kept.copy(), dict(removal.reasons)
            for made in gone:
                _keep(removal.analysis, made, kept, len(made))
                said = (
                    f"{self.step.path} has no entry in its configuration for "
                    f"fewer than {len(made)} heads of that size"
                )
                reasons |= dict.fromkeys(made.tolist(), said)
            removal = dataclasses.replace(removal, kept=kept, reasons=reasons)
            return self._shrunk(removal, [])

    def _shrunk(self, removal, heads):
        """Layers of one size keep as many units, as one number says how many
        there are: as many as that of them which needs most.
        """
        sizes = {}
        kept = removal.kept.copy()
        units = [*_own_units(removal), *heads]
        for made in units:
            left = int(kept[made].sum())
            sizes[len(made)] = max(sizes.get(len(made), 0), left)
        for made in units:
            _keep(removal.analysis, made, kept, sizes[len(made)])
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
        inner = edits(removal)
        if any(edit.config.get("epsilon") for edit in inner.values()):
            raise _Whole(f"{self.step.path} normalizes what would go")
        values = self.values(inner)
        shapes = [value.shape for value in values]
        failure: Exception | None = None
        for changes in self._changes(sizes):
            try:
                made = self._made(changes)
            except Exception as error:  # an entry that means something else
                failure = failure or error
                continue
            found = [tuple(v.shape) for v in made.variables]
            if found == shapes:
                self._compare(made, values, whole)
                return removal, Edit(changes, {}, values), whole
        if failure is not None:
            raise failure
        units_said = ", ".join(f"{n} to {m}" for n, m in sizes.items())
        raise _Whole(
            f"{self.step.path} has no entry in its configuration that changes "
            f"{units_said} units and nothing else"
        )

    def _changes(self, sizes):
        """What may be different in the configuration, the likeliest first."""
        config = config_of(self.layer)
        choices = []
        for before, after in sizes.items():
            fitting = [
                (name, value * after // before)
                for name, value in config.items()
                if type(value) is int
                and value > 1
                and value * after % before == 0
            ]
            fitting.sort(key=lambda pair, n=before: config[pair[0]] != n)
            choices.append(fitting)
        combinations = itertools.product(*choices)
        for pairs in itertools.islice(combinations, _COMBINATIONS):
            yield dict(pairs)

    def _made(self, changes):
        """The layer with another configuration, built."""
        made = made_again(self.layer, changes)
        _, (args, kwargs) = _entrances(self.step.node)
        made(*args, **kwargs)
        return made

    def _compare(self, made, values, whole):
        """Raise unless the smaller layer computes the same."""
        # Not the layer itself: a call can change seeds, statistics, losses.
        before = Copier().copy(self.layer)
        if whole is not None:
            _assign(before, whole.values)
        _assign(made, values)
        _, (args, kwargs) = _entrances(self.step.node, _example)
        results = []
        for layer in (before, made):
            outputs = keras.tree.flatten(layer(*args, **kwargs))
            results.append(
                [verify.as_array(y) for y in outputs if y is not None]
            )
        for one, other in zip(*results, strict=True):
            if not verify.difference(one, other) <= verify.tolerance(before):
                raise _Whole(
                    f"{self.step.path} computes something else when "
                    "it is made smaller"
                )


def _assign(layer, values):
    for variable, value in zip(layer.variables, values, strict=True):
        variable.assign(value)


def _named(layer, prefix="") -> list[tuple[keras.Layer, str]]:
    """The layers inside, each once, with distinct names."""
    found, names, seen = [], set(), set()
    waiting = [(part, prefix) for part in layer._layers]
    while waiting:
        part, before = waiting.pop(0)
        if id(part) in seen:
            continue
        seen.add(id(part))
        name = plain = f"{before}{part.name}"
        for number in itertools.count(1):
            if name not in names:
                break
            name = f"{plain}_{number}"
        names.add(name)
        found.append((part, name))
        if not _is_read_as_one(part):
            inner = getattr(part, "_layers", ())
            # Keras allows no slash in the name of an operation.
            waiting += [(one, f"{name}.") for one in inner]
    return found


def _is_read_as_one(part):
    is_model = functional_of(part) is not None
    return is_model or traits.is_exactly(part, ATTENTION)


def _called_as_written(kind):
    def called(self, *args, **kwargs):
        return self.call(*args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": called})


def _entrances(node, make=keras.Input):
    """Tensors for a call like one that was recorded, and its arguments."""
    made = {}

    def entrance(value):
        if not isinstance(value, keras.KerasTensor):
            return value
        if id(value) not in made:
            batch, *rest = value.shape or (None,)
            shape = [_UNKNOWN_SIZE if n is None else n for n in rest]
            made[id(value)] = make(
                batch_shape=(batch or _BATCH, *shape), dtype=value.dtype
            )
        return made[id(value)]

    arguments = node.arguments.args, dict(node.arguments.kwargs)
    arguments = keras.tree.map_structure(entrance, arguments)
    return list(made.values()), arguments


def _example(batch_shape, dtype):
    """Normal numbers, large and small; ones for masks, positions, tokens."""
    if keras.backend.is_float_dtype(dtype):
        drawn = np.random.default_rng(0).normal(size=batch_shape)
        # A small example shows the epsilon of a normalization.
        drawn[::2] *= _SMALL
    else:
        drawn = np.ones(batch_shape)
    return keras.ops.convert_to_tensor(drawn.astype("float32"), dtype=dtype)


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
