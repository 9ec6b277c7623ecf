"""Reading the structure of a Sequential or Functional model.

With `rebuild`, this is what knows how Keras links layers and tensors in
memory. It reads those links rather than `get_config`, which a subclass may
define as it likes, which a layer may have got wrong, and which loses the
constants among the arguments of a call.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One call of a layer or operation.

    Attributes:
        operation: the layer or operation; None where a model takes an input.
        name: its name, or that of the input layer.
        scope: names of the nested models around it, from outside in.
        inputs: the tensors it reads, in the order of its arguments.
        outputs: the tensors it makes.
        options: further arguments that may change what is computed, by name;
            constant tensors are among them.
        inference: whether it computes as at inference, in training too.
        node: Keras's record of the call; None where a model takes an input.
    """

    operation: Any
    name: str
    scope: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict
    inference: bool = False
    node: Any = None

    @property
    def path(self) -> str:
        """The name with the nested models before it."""
        return "/".join([*self.scope, self.name])


class Graph:
    """The calls of a model in the order of computation, tensors as numbers.

    Nested models are replaced by what they contain.

    Attributes:
        steps: the calls.
        shapes: the shape of every tensor, the batch axis first.
        outputs: the tensors the model returns.
        producers: the step that makes a tensor.
        consumers: the steps that read a tensor.
        uses: how often a layer is called, by `id`.
        attention: what `written_out.find` found, if it may become smaller.
    """

    def __init__(self, steps: Sequence[Step], shapes: dict, outputs: tuple):
        self.steps = list(steps)
        self.shapes = shapes
        self.outputs = tuple(outputs)
        self.attention: list[Any] = []
        self.producers = {}
        self.consumers = collections.defaultdict(list)
        self.uses = collections.Counter()
        for step in self.steps:
            for operation in _with_parts(step.operation):
                self.uses[id(operation)] += 1
            for tensor in step.outputs:
                self.producers[tensor] = step
            for tensor in dict.fromkeys(step.inputs):
                self.consumers[tensor].append(step)


def _with_parts(operation) -> Iterator[keras.Operation]:
    """An operation, and the layers inside it."""
    if operation is None:
        return
    yield operation
    if isinstance(operation, keras.Layer):
        parts = getattr(operation, "_layers", ())
        if isinstance(operation, keras.Model):
            parts = operation.layers
        for part in parts:
            yield from _with_parts(part)


def read(model: keras.Model) -> Graph:
    """The graph of a built Sequential or Functional model.

    Raises:
        ValueError: if the model is something else, or not built.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a Keras model. Received: model={model!r}"
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            "`model` must be built, so that the shapes of its layers are "
            f"known. Received: model={model!r}, which is not. Give it a "
            "`keras.Input` first, or call it on a batch."
        )
    functional = functional_of(model)
    if functional is None:
        raise ValueError(
            "`model` must be a Sequential or Functional model, whose layers "
            f"and their order can be read. Received: model={model!r} of class "
            f"{type(model).__name__}, which computes in Python. Name the "
            "pairs of layers yourself: "
            "decays.PathNorm(rate, [decays.HomogeneousUnits('hidden/kernel', "
            "'output/kernel', input_bias='hidden/bias')])."
        )
    reader = _Reader()
    outputs = reader.read_model(functional, None, None, (), False)
    return Graph(reader.steps, reader.shapes, outputs)


def functional_of(model: object) -> keras.Model | None:
    """The Functional model that computes what a model does; None without."""
    if not isinstance(model, keras.Model) or not _computes_as_listed(model):
        return None
    if isinstance(model, keras.Sequential):
        return getattr(model, "_functional", None)
    return model if hasattr(model, "_nodes_by_depth") else None


def _computes_as_listed(model):
    """Whether `call` is Keras's own, which runs the listed layers."""
    for kind in type(model).__mro__:
        if "call" in vars(kind):
            return kind.__module__.split(".")[0] == "keras"
    return False


def nodes_of(functional: keras.Model) -> Iterator:
    """Keras's records of the calls, in the order it computes them."""
    by_depth = functional._nodes_by_depth
    order = {id(part): i for i, part in enumerate(functional.operations)}
    for depth in sorted(by_depth, reverse=True):
        yield from sorted(
            (node for node in by_depth[depth] if not node.is_input),
            key=lambda node: order[id(node.operation)],
        )


def flat_inputs(functional: keras.Model, given: object) -> list | None:
    """What a nested model is called on, in the order of its inputs.

    None if it does not fit without Keras changing its rank.
    """
    expected = functional.input
    if isinstance(given, dict) and not isinstance(expected, dict):
        names = [tensor.name for tensor in functional.inputs]
        if not set(names) <= set(given):
            return None
        given = [given[name] for name in names]
    tensors = keras.tree.flatten(given)
    if len(tensors) != len(functional.inputs) or not all(
        isinstance(tensor, keras.KerasTensor)
        and len(tensor.shape) == len(inner.shape)
        for tensor, inner in zip(tensors, functional.inputs, strict=True)
    ):
        return None
    return tensors


def given_to(node) -> tuple[object, dict]:
    """The first argument of a call, and the others by name."""
    args, kwargs = node.arguments.args, dict(node.arguments.kwargs)
    others = {f"argument {i}": value for i, value in enumerate(args) if i > 0}
    if args:
        return args[0], {**others, **kwargs}
    return kwargs.pop("inputs", None), kwargs


class _Reader:
    """Collects the steps of a model and of the models inside it."""

    def __init__(self):
        self.steps = []
        self.shapes = {}
        self._numbers = itertools.count()

    def read_model(
        self, functional, inputs, specs, scope, inference
    ) -> tuple[int, ...]:
        """Add the steps of a model; return the tensors it makes.

        Args:
            inputs: the tensors a nested model is called on; None outside.
            specs: their shapes and dtypes.
            scope: the names of the models around.
            inference: whether all of it computes as at inference.
        """
        known, found = {}, {}
        for position, inner in enumerate(functional.inputs):
            outer = () if inputs is None else (inputs[position],)
            spec = inner if specs is None else specs[position]
            name = inner._keras_history.operation.name
            (known[id(inner)],) = self._add(
                None, name, scope, outer, [tuple(spec.shape)], {}, inference
            )
            if tuple(spec.shape) != tuple(inner.shape):
                found[id(inner)] = spec
        for node in nodes_of(functional):
            if all(id(tensor) in known for tensor in node.input_tensors):
                made = self._call(node, known, found, scope, inference)
                pairs = zip(node.outputs, made, strict=True)
                known.update((id(tensor), number) for tensor, number in pairs)
        return tuple(known[id(tensor)] for tensor in functional.outputs)

    def _call(self, node, known, found, scope, inference):
        """A step, or the steps of a nested model; return what it makes."""
        operation = node.operation
        specs = self._specs(node, found)
        options, own = _options(node)
        frozen = inference or own
        inner = functional_of(operation)
        if inner is not None and not options:
            tensors = flat_inputs(inner, given_to(node)[0])
            if tensors is not None:
                return self.read_model(
                    inner,
                    [known[id(tensor)] for tensor in tensors],
                    [found.get(id(tensor), tensor) for tensor in tensors],
                    (*scope, operation.name),
                    frozen,
                )
        return self._add(
            operation,
            operation.name,
            scope,
            [known[id(tensor)] for tensor in node.input_tensors],
            [tuple(spec.shape) for spec in specs],
            options,
            frozen,
            node,
        )

    def _specs(self, node, found):
        """What a call makes, for the shapes that reach it."""
        if not any(id(tensor) in found for tensor in node.input_tensors):
            return node.outputs
        args, kwargs = keras.tree.map_structure(
            lambda value: found.get(id(value), value),
            (node.arguments.args, node.arguments.kwargs),
        )
        try:
            made = node.operation.compute_output_spec(*args, **kwargs)
        except Exception:  # whatever a layer raises: its own shapes stay
            return node.outputs
        specs = keras.tree.flatten(made)
        found.update(
            (id(tensor), spec)
            for tensor, spec in zip(node.outputs, specs, strict=True)
        )
        return specs

    def _add(
        self,
        operation,
        name,
        scope,
        inputs,
        shapes,
        options,
        inference,
        node=None,
    ):
        outputs = tuple(next(self._numbers) for _ in shapes)
        self.shapes.update(zip(outputs, shapes, strict=True))
        self.steps.append(
            Step(
                operation,
                name,
                scope,
                tuple(inputs),
                outputs,
                options,
                inference,
                node,
            )
        )
        return outputs


def _options(node) -> tuple[dict, bool]:
    """The arguments that may change what is computed; if at inference."""
    first, others = given_to(node)
    found = {"argument 0": first, **others}
    options, inference = {}, False
    for name, value in found.items():
        if name == "training" and value is not None and not value:
            inference = True
        elif not _is_plain(value):
            options[name] = value
    return options, inference


def _is_plain(value):
    """Whether an argument consists of tensors and Nones."""
    return all(
        leaf is None or isinstance(leaf, keras.KerasTensor)
        for leaf in keras.tree.flatten(value)
    )
