"""Which layers of a model get which blocks, and why the rest get none."""

import collections
import dataclasses
from collections.abc import Collection
from collections.abc import Sequence

import keras

from keras_wd.backend import autodiff
from keras_wd.kfac.blocks import Block
from keras_wd.kfac.blocks import KroneckerBlock
from keras_wd.kfac.blocks import ScaleShiftBlock
from keras_wd.kfac.eigen_block import EigenBlock
from keras_wd.kfac.interception import intercepted
from keras_wd.kfac.readers import MatrixReader
from keras_wd.kfac.readers import Reader

_KINDS = {
    kind.__name__: kind
    for kind in (EigenBlock, KroneckerBlock, ScaleShiftBlock)
}


def run_model(model: keras.Model, x, training: bool = True):
    """The outputs; the model's state stays as it is."""
    mapping = [(v, autodiff.read(v)) for v in model.variables]
    with keras.StatelessScope(state_mapping=mapping):
        return model(x, training=training)


@dataclasses.dataclass
class Seen:
    """A layer that was called while the model ran.

    Args:
        layer: the layer.
        reader: what reads it.
        inputs: what the reader wants of its inputs.
        uses: how often it was called.
        in_loop: whether a loop called it.
        others: further layers that do the same with the same variables.
    """

    layer: keras.Layer
    reader: Reader
    inputs: object
    uses: int = 0
    in_loop: bool = False
    others: list = dataclasses.field(default_factory=list)


def survey(model: keras.Model, x) -> tuple[list[Seen], object]:
    """The known layers a forward pass calls, in order of first use.

    And what the model returned: as placeholders with shapes.
    """
    found = {}
    returned = []

    def observe(layer, reader, call, inputs, in_loop):
        if in_loop:
            outputs, inputs = call(inputs), None
        else:
            outputs, inputs = reader.look(layer, call, inputs)
        seen = found.setdefault(id(layer), Seen(layer, reader, inputs))
        seen.uses += 1
        seen.in_loop |= in_loop
        return outputs

    def run():
        outputs = run_model(model, x)
        returned.append(keras.tree.map_structure(_placeholder, outputs))

    with intercepted(observe):
        autodiff.traced(run)
    return list(found.values()), returned[-1]


def _placeholder(tensor):
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return keras.KerasTensor(tuple(tensor.shape), dtype)


@dataclasses.dataclass(frozen=True)
class Registration:
    """The blocks of an optimizer's variables.

    Args:
        blocks: in order of the model's first use of their layers.
        reasons: why a variable has no block, by position.
    """

    blocks: tuple[Block, ...]
    reasons: dict[int, str]

    def get_config(self) -> dict:
        """Plain Python."""
        return {
            "blocks": [block.get_config() for block in self.blocks],
            "reasons": {str(i): text for i, text in self.reasons.items()},
        }

    @classmethod
    def from_config(cls, config: dict) -> "Registration":
        """The inverse of `get_config`."""
        return cls(
            tuple(_block(block) for block in config["blocks"]),
            {int(i): text for i, text in config["reasons"].items()},
        )

    def same_structure(self, other: "Registration") -> bool:
        """Whether both have the same blocks, whatever their names."""
        return [_nameless(b) for b in self.blocks] == [
            _nameless(b) for b in other.blocks
        ]

    def variable_count(self) -> int:
        """How many variables it was made for."""
        in_blocks = {i for block in self.blocks for i in block.variables}
        return len(in_blocks | set(self.reasons))

    def fitted(self, variables: Sequence[keras.Variable]) -> "Registration":
        """This registration with the names the variables have now.

        Raises:
            ValueError: unless the variables have the shapes of the blocks.
        """
        blocks = []
        for block in self.blocks:
            shapes = [
                tuple(variables[i].shape) if i < len(variables) else None
                for i in block.variables
            ]
            if shapes != block.variable_shapes():
                raise ValueError(
                    "`variables` must be those of the model the optimizer was "
                    f"saved with. Received: shapes {shapes} where "
                    f"{block.name} has {block.variable_shapes()}. Create a "
                    "new KFAC for a new model."
                )
            name = variables[block.variables[0]].path
            blocks.append(dataclasses.replace(block, name=name))
        return Registration(tuple(blocks), self.reasons)


def _block(config):
    """A block from what `Block.get_config` returned, also after JSON."""
    config = dict(config)
    return _KINDS[config.pop("block")].from_config(config)


def _nameless(block):
    return dataclasses.replace(block, name="")


def register(
    model: keras.Model,
    x,
    positions: dict[int, int],
    variables: Sequence[keras.Variable],
    limit: int,
    sharing: str = "expand",
    eigenbasis: bool = False,
    left_out: Collection[int] = (),
) -> tuple[Registration, list[Seen], object]:
    """Blocks for every layer that can have one, those layers, the outputs.

    Args:
        model: built.
        x: a batch of inputs; nothing is computed on it.
        positions: position of each of the optimizer's variables by its id.
        variables: the optimizer's variables.
        limit: factors larger than this are diagonal.
        sharing: see `keras_wd.kfac.blocks.KroneckerBlock`.
        eigenbasis: see `keras_wd.kfac.eigen_block.EigenBlock`.
        left_out: positions that are to have no block.

    Raises:
        ValueError: if no layer can have a block.
    """
    positions = {
        key: position
        for key, position in positions.items()
        if position not in left_out
    }
    layers, outputs = survey(model, x)
    owners = collections.defaultdict(list)
    for seen in layers:
        for variable in seen.reader.variables(seen.layer):
            owners[id(variable)].append(seen)
    blocks, kept, reasons = [], [], {}
    for seen in layers:
        own = seen.reader.variables(seen.layer)
        if getattr(seen.layer, "lora_enabled", False):
            own = seen.layer.trainable_variables
        known = [positions[id(v)] for v in own if id(v) in positions]
        if getattr(seen.layer, "lora_enabled", False):
            reason = f"its {_kind(seen)} is adapted by LoRA"
        elif not own or id(own[0]) not in positions:
            reason = f"the first variable of its {_kind(seen)} is not trained"
            if left_out:
                reason += ", or left out by `where`"
        elif seen.in_loop:
            reason = f"its {_kind(seen)} is called inside a loop"
        elif any(
            not _alike(seen, other) for v in own for other in owners[id(v)]
        ):
            reason = "several layers that differ share it"
        elif owners[id(own[0])][0] is not seen:
            owners[id(own[0])][0].others.append(seen.layer)
            continue
        else:
            name = variables[positions[id(own[0])]].path
            block = seen.reader.block(
                seen.layer, name, known, seen.inputs, limit
            )
            if isinstance(block, KroneckerBlock):
                block = dataclasses.replace(block, sharing=sharing)
                if eigenbasis and isinstance(seen.reader, MatrixReader):
                    block = EigenBlock.of(block)
            if isinstance(block, Block):
                blocks.append(block)
                kept.append(seen)
                reason = f"the bias of its {_kind(seen)} has other axes"
            else:
                reason = block
        reasons.update((position, reason) for position in known)
    covered = {i for block in blocks for i in block.variables}
    unknown = "its layer is of no known kind, or was not called"
    reasons.update((position, "left out by `where`") for position in left_out)
    registration = Registration(
        tuple(blocks),
        {
            i: reasons.get(i, unknown)
            for i in range(len(variables))
            if i not in covered
        },
    )
    if not blocks:
        listed = "; ".join(
            f"{variables[i].path}: {why}"
            for i, why in registration.reasons.items()
        )
        raise ValueError(
            "`model` must have a layer that K-FAC knows. Received: "
            f"model={model.name!r} with {listed}."
        )
    return registration, kept, outputs


# What two layers of the same variables may differ in.
_OWN = ("name", "trainable", "dtype", "activation")
_BEGINNING = ("_initializer", "_regularizer", "_constraint")


def _alike(seen, other):
    """Whether two layers do the same with the same variables."""
    if seen is other:
        return True
    if seen.reader is not other.reader or seen.in_loop or other.in_loop:
        return False
    own, others = (one.reader.variables(one.layer) for one in (seen, other))
    if list(map(id, own)) != list(map(id, others)):
        return False
    first, second = (
        {
            key: value
            for key, value in one.layer.get_config().items()
            if key not in _OWN and not key.endswith(_BEGINNING)
        }
        for one in (seen, other)
    )
    return type(seen.layer) is type(other.layer) and first == second


def _kind(seen):
    return type(seen.layer).__name__
