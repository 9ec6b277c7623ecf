"""Reading the structure of a Sequential or Functional model.

This is the one module that knows how Keras writes a model down. It reads what
`model.get_config()` returns, which is what a `.keras` file holds and so stays
readable from one version of Keras to the next; the attributes by which Keras
links layers and tensors in memory are private.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterator
from collections.abc import Sequence

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
        options: further call arguments that are neither tensors nor None.
    """

    operation: keras.Operation | None
    name: str
    scope: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict

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
    """

    def __init__(self, steps: Sequence[Step], shapes: dict, outputs: tuple):
        self.steps = list(steps)
        self.shapes = shapes
        self.outputs = tuple(outputs)
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
    """An operation, and the layers of a model that was not looked into."""
    if operation is not None:
        yield operation
        for part in getattr(operation, "layers", ()):
            yield from _with_parts(part)


def read(model: keras.Model) -> Graph:
    """The graph of a built Sequential or Functional model.

    Raises:
        ValueError: if the model is something else, not built, or has a layer
            that cannot be written down.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a Keras model. Received: model={model!r}"
        )
    if isinstance(model, keras.Sequential) and not _inputs_of(model):
        raise ValueError(
            "`model` must be built, so that the shapes of its layers are "
            f"known. Received: model={model!r}, which is not. Give it a "
            "`keras.Input` first, or call it on a batch."
        )
    reader = _Reader()
    config = _config_of(model)
    if config is None:
        raise ValueError(
            "`model` must be a Sequential or Functional model, whose layers "
            f"and their order can be read. Received: model={model!r} of class "
            f"{type(model).__name__}, which computes in Python. Name the "
            "pairs of layers yourself: "
            "decays.PathNorm(rate, [decays.HomogeneousUnits('hidden/kernel', "
            "'output/kernel', input_bias='hidden/bias')])."
        )
    outputs = reader.read_model(model, config, None, ())
    return Graph(reader.steps, reader.shapes, outputs)


def _config_of(model) -> dict | None:
    """The configuration of a model that says how its layers are joined."""
    if not _computes_as_listed(model):
        return None
    try:
        config = model.get_config()
    except NotImplementedError as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            "`model` must consist of layers that can be saved. Received: "
            f"model={model.name!r}. Define `get_config` in its layers. Keras "
            f"says: {first}"
        ) from error
    if isinstance(model, keras.Sequential):
        return config if _inputs_of(model) and "layers" in config else None
    return config if {"layers", "input_layers"} <= set(config) else None


def _inputs_of(model):
    """The symbolic inputs of a Sequential model; None if it has none yet."""
    try:
        return model.inputs
    except AttributeError:
        return None


def _computes_as_listed(model):
    """Whether `call` is Keras's own, which runs the listed layers."""
    for kind in type(model).__mro__:
        if "call" in vars(kind):
            return kind.__module__.split(".")[0] == "keras"
    return False


class _Reader:
    """Collects the steps of a model and of the models inside it."""

    def __init__(self):
        self.steps = []
        self.shapes = {}
        self._numbers = itertools.count()

    def read_model(self, model, config, inputs, scope) -> tuple[int, ...]:
        """Add the steps of a model; return the tensors it makes.

        Args:
            inputs: the tensors a nested model is called on; None outside.
        """
        if isinstance(model, keras.Sequential):
            return self._read_sequential(model, config, inputs, scope)
        return self._read_functional(model, config, inputs, scope)

    def _read_sequential(self, model, config, inputs, scope):
        name = config["layers"][0]["config"]["name"]
        shape = tuple(model.inputs[0].shape)
        (tensor,) = self._enter([name], [shape], inputs, scope)
        for layer in model.layers:
            shape = tuple(layer.compute_output_shape(shape))
            (tensor,) = self._call(layer, (tensor,), [shape], {}, scope)
        return (tensor,)

    def _read_functional(self, model, config, inputs, scope):
        operations = {op.name: op for op in model.operations}
        names = [name for name, *_ in _references(config["input_layers"])]
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        entered = self._enter(names, shapes, inputs, scope)
        known = {
            (name, 0, 0): tensor
            for name, tensor in zip(names, entered, strict=True)
        }
        wanted = _shapes_by_reference(config, model)
        calls = [
            (entry["name"], index, node)
            for entry in config["layers"]
            if entry["name"] not in names
            for index, node in enumerate(entry["inbound_nodes"])
        ]
        while calls:
            waiting = []
            for name, index, node in calls:
                arguments = list(_tensors_in([node["args"], node["kwargs"]]))
                if not all(ref in known for ref, _ in arguments):
                    waiting.append((name, index, node))
                    continue
                made = sorted(ref for ref in wanted if ref[:2] == (name, index))
                outputs = self._call(
                    operations[name],
                    tuple(known[ref] for ref, _ in arguments),
                    [wanted[ref] for ref in made],
                    _options(node),
                    scope,
                )
                known.update(zip(made, outputs, strict=True))
            if len(waiting) == len(calls):
                raise ValueError(
                    "`model` must be computable from its inputs. Received: "
                    f"model={model.name!r}, whose {waiting[0][0]} reads a "
                    "tensor that no layer of the model makes."
                )
            calls = waiting
        return tuple(
            known[reference]
            for reference in _references(config["output_layers"])
        )

    def _enter(self, names, shapes, inputs, scope):
        """Steps that take the inputs of a model from outside."""
        tensors = []
        for position, (name, shape) in enumerate(
            zip(names, shapes, strict=True)
        ):
            outer = () if inputs is None else (inputs[position],)
            if outer:
                shape = self.shapes[outer[0]]
            tensors += self._add(None, name, scope, outer, [shape], {})
        return tuple(tensors)

    def _call(self, operation, inputs, shapes, options, scope):
        """A step, or the steps of a nested model; return what it makes."""
        if isinstance(operation, keras.Model) and not options:
            config = _config_of(operation)
            if config is not None and len(inputs) == len(operation.inputs):
                inner = (*scope, operation.name)
                return self.read_model(operation, config, inputs, inner)
        return self._add(
            operation, operation.name, scope, inputs, shapes, options
        )

    def _add(self, operation, name, scope, inputs, shapes, options):
        outputs = tuple(next(self._numbers) for _ in shapes)
        self.shapes.update(zip(outputs, shapes, strict=True))
        self.steps.append(
            Step(operation, name, scope, tuple(inputs), outputs, options)
        )
        return outputs


def _shapes_by_reference(config, model):
    """The shape of every tensor that a layer or the model's user reads."""
    shapes = {}
    for entry in config["layers"]:
        for node in entry["inbound_nodes"]:
            shapes.update(_tensors_in([node["args"], node["kwargs"]]))
    outputs = _references(config["output_layers"])
    for reference, tensor in zip(outputs, model.outputs, strict=True):
        shapes[reference] = tuple(tensor.shape)
    return shapes


def _references(structure) -> list[tuple[str, int, int]]:
    """All (layer name, call, output) triples of a nested structure."""
    flat = keras.tree.flatten(structure)
    return [tuple(flat[i : i + 3]) for i in range(0, len(flat), 3)]


def _tensors_in(structure) -> Iterator[tuple[tuple, Shape]]:
    """The references to tensors in serialized arguments, and their shapes."""
    if isinstance(structure, dict):
        if structure.get("class_name") == "__keras_tensor__":
            config = structure["config"]
            shape = tuple(config["shape"])
            yield tuple(config["keras_history"]), shape
            return
        structure = [structure[key] for key in sorted(structure)]
    if isinstance(structure, list | tuple):
        for part in structure:
            yield from _tensors_in(part)


def _options(node):
    """Call arguments beside the tensors that may change what is computed."""
    extra = {
        f"argument {number}": value
        for number, value in enumerate(node["args"])
        if value is not None and not any(True for _ in _tensors_in(value))
    }
    for name, value in node["kwargs"].items():
        usual = value is None or (name == "training" and not value)
        if not usual and not (
            name == "inputs" and any(True for _ in _tensors_in(value))
        ):
            extra[name] = value
    return extra
