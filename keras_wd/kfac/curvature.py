"""The curvature of a model: its state, measuring it, inverting it.

A batch goes from `fit` to the factors through these files:

    callbacks/curvature_updates.py      takes a batch when it is time
    optimizers/curvature_optimizer.py   builds the optimizer for the model
    kfac/curvature.py                   finds the program for the loss
    kfac/measurement.py                 forwards, backwards, into the averages
    kfac/readers.py                     what one layer's inputs and gradients
                                        amount to
"""

import dataclasses
import itertools
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.kfac.batch_tensors import check_examples
from keras_wd.kfac.batch_tensors import is_wide
from keras_wd.kfac.batch_tensors import tensors
from keras_wd.kfac.block_state import BlockState
from keras_wd.kfac.inversion import Inversion
from keras_wd.kfac.measurement import Measurement
from keras_wd.kfac.moments import added
from keras_wd.kfac.objective import Objective
from keras_wd.kfac.registration import Registration
from keras_wd.kfac.registration import Seen
from keras_wd.kfac.registration import register
from keras_wd.kfac.seconds import Seconds
from keras_wd.losses import loss_weights_of
from keras_wd.ops.kronecker import kl_scale


@dataclasses.dataclass(frozen=True)
class Settings:
    """How curvature is measured and kept.

    Args:
        estimator: see `keras_wd.kfac.estimators`.
        decay: weight of the past in the averages.
        limit: factors larger than this are diagonal.
        sharing: see `keras_wd.kfac.blocks.KroneckerBlock`.
        eigenbasis: see `keras_wd.kfac.eigen_block.EigenBlock`.
        training: whether dropout and batch normalization act as in training.
    """

    estimator: str
    decay: float
    limit: int
    sharing: str = "expand"
    eigenbasis: bool = False
    training: bool = True


class Curvature:
    """The curvature of one model, as blocks.

    Args:
        settings: how it is measured and kept.
        seed: where labels and signs are drawn from.
        add_variable: `Optimizer.add_variable`.
    """

    def __init__(
        self,
        settings: Settings,
        seed: keras.random.SeedGenerator,
        add_variable: Callable,
    ):
        self.settings = settings
        self.registration: Registration | None = None
        self.state: Any = None  # BlockState, once the blocks are known
        self.seconds = Seconds()
        self._seed = seed
        self._add_variable = add_variable
        self._ids: tuple[int, ...] = ()
        self._left_out: Collection[int] = ()
        self._layers: Any = None  # id of the model, layers, outputs
        self._measurements = {}
        self._inversion: tuple[bool, Inversion] | None = None
        self._asked: tuple | None = None  # program of `fit`, loss weights

    def build(
        self,
        variables: Sequence[keras.Variable],
        left_out: Collection[int] = (),
    ) -> None:
        """Remember the variables; create the state of known blocks.

        Args:
            variables: the optimizer's.
            left_out: positions of those that are to have no block.
        """
        self._left_out = left_out
        # Ids and no variables: an optimizer must not own those of a model.
        self._ids = tuple(id(variable) for variable in variables)
        if self.registration is not None:
            self.registration = self.registration.fitted(variables)
            self._create_state(variables)

    def _create_state(self, variables):
        blocks = self.registration.blocks
        dtypes = [
            keras.backend.standardize_dtype(variables[b.variables[0]].dtype)
            for b in blocks
        ]
        self.state = BlockState(blocks, self._add_variable, dtypes)

    def is_plain(self, variable: keras.Variable) -> bool:
        """Whether it is known that a variable has no block."""
        if id(variable) not in self._ids:
            return False
        position = self._ids.index(id(variable))
        if self.registration is None:
            return position in self._left_out
        blocks = self.registration.blocks
        return all(position not in block.variables for block in blocks)

    @property
    def layers(self) -> list[Seen]:
        """The registered layers, one per block."""
        return self._layers[1]

    def restart(self) -> None:
        """The next measurement is the first of new averages."""
        self.state.updates.assign(ops.zeros(self.state.updates.shape))

    def register(self, model: keras.Model, x) -> None:
        """Find the model's blocks, once.

        Raises:
            ValueError: if the model is not the one the optimizer was built
                for, or none of its layers can have a block.
        """
        if self._layers is not None and self._layers[0] == id(model):
            return
        by_id = {id(v): v for v in model.trainable_variables}
        if any(key not in by_id for key in self._ids):
            raise ValueError(
                "`model` must be the model whose variables the optimizer was "
                f"built with. Received: model={model.name!r}, which has not "
                "all of them."
            )
        variables = [by_id[key] for key in self._ids]
        positions = {key: i for i, key in enumerate(self._ids)}
        x = tensors(x, is_wide(model))
        with self.seconds.of("registration"):
            found, layers, outputs = register(
                model,
                x,
                positions,
                variables,
                self.settings.limit,
                self.settings.sharing,
                self.settings.eigenbasis,
                self._left_out,
            )
        if self.registration is None:
            self.registration = found
            with autodiff.scope(model):
                self._create_state(variables)
        elif not self.registration.same_structure(found):
            raise ValueError(
                "`model` must have the blocks the optimizer was saved with. "
                f"Received: model={model.name!r} with other blocks. Create a "
                "new KFAC for a new model."
            )
        self._layers = (id(model), layers, outputs)
        self._measurements = {}

    def measure(
        self, model: keras.Model, batch: tuple, loss, first_pass: bool
    ) -> None:
        """Move the averages by the curvature of one batch."""
        x, y, sample_weight = batch
        wide = is_wide(model)
        x, sample_weight = tensors(x, wide), tensors(sample_weight, wide)
        check_examples(x)
        self.register(model, x)
        objective, program = self._program(model, loss)
        if not objective.uses_labels:
            y = None
        elif y is None:
            raise ValueError(
                "`y` must be given for a loss with `ignore_class` and for "
                f"estimator={self.settings.estimator!r}. Received: y=None."
            )
        batch = (x, tensors(y, wide), sample_weight)
        with self.seconds.of("curvature", program):
            program(batch, first_pass)

    def _program(self, model, loss):
        """The program for the loss the model is compiled with now."""
        chosen = getattr(model, "loss", None) if loss is None else loss
        weights = None if loss is not None else self._loss_weights(model)
        jit_compile = getattr(model, "jit_compile", True)
        # The loss is kept so that its id stays its own.
        key = (id(chosen), repr(chosen), repr(weights), jit_compile)
        if key not in self._measurements:
            _, layers, outputs = self._layers
            # Refusals come now, and not while the program is traced.
            objective = Objective(model, self.settings.estimator, loss, outputs)
            program = Measurement(
                model,
                layers,
                self.state,
                objective,
                self.settings.estimator,
                self.settings.decay,
                self._seed,
                self.settings.training,
            )
            self._measurements[key] = (chosen, objective, program)
        return self._measurements[key][1:]

    def _loss_weights(self, model):
        """What `compile` was given, which takes a millisecond to ask Keras.

        `compile` takes away the program of `fit`: while that stays, so do they.
        """
        fits = getattr(model, "train_function", None)
        if fits is None:
            return loss_weights_of(model)
        if self._asked is None or self._asked[0] is not fits:
            self._asked = fits, loss_weights_of(model)
        return self._asked[1]

    def invert(self, damping: float, jit_compile: bool) -> None:
        """Renew the inverses from the averages.

        Raises:
            ValueError: if a block has none: its inverse would be that of the
                damping alone, and its step far too large.
        """
        updates = ops.convert_to_numpy(autodiff.read(self.state.updates))
        if not updates.all():
            raise ValueError(
                f"Cannot invert: {np.count_nonzero(updates == 0)} of "
                f"{len(updates)} blocks have only statistics that are NaN or "
                "infinite. Look for such values in the data and "
                "the weights."
            )
        if self._inversion is None or self._inversion[0] != jit_compile:
            self._inversion = (jit_compile, Inversion(self.state, jit_compile))
        program = self._inversion[1]
        compiled = program if program.compiles else None
        with self.seconds.of("inverses", compiled):
            program(damping)

    def precondition(self, gradients: dict, damping) -> dict:
        """`C^-1 g` for the gradients of all blocks.

        Args:
            gradients: by position of the variable. Blocks without a gradient
                of their first variable are left out.
            damping: the damping now, for blocks whose inverses do not hold
                it.

        Returns:
            The preconditioned gradients by position.
        """
        return self._of_blocks(
            gradients,
            map(self.state.read_inverses, range(len(self.state.blocks))),
            lambda block, own, given: block.precondition(own, given, damping),
        )

    def clipped(
        self, steps: dict, gradients: dict, learning_rate, kl_clip: float
    ) -> dict:
        """The steps, shortened together; see `keras_wd.ops.kronecker.kl_scale`.

        Args:
            steps: `C^-1 g` by position.
            gradients: g by position, of the whole batch.
            learning_rate: that will multiply the steps.
            kl_clip: what `learning_rate^2 * sum g^T C^-1 g` may be at most.
        """
        if not steps:
            return steps
        dtypes = self.state.dtypes
        widest = "float64" if "float64" in dtypes else "float32"
        quadratic = added(
            ops.cast(ops.sum(ops.cast(gradients[i], step.dtype) * step), widest)
            for i, step in steps.items()
        )
        scale = kl_scale(quadratic, learning_rate, kl_clip)
        return {
            i: ops.cast(scale, step.dtype) * step for i, step in steps.items()
        }

    def times(self, values: dict) -> dict:
        """`C v` with the curvature as it is kept, for values by position."""
        return self._of_blocks(
            values,
            map(self.state.curvature, range(len(self.state.blocks))),
            lambda block, own, given: block.multiply(own, given),
        )

    def _of_blocks(self, values, matrices, product):
        products = {}
        for block, own in zip(self.state.blocks, matrices, strict=True):
            if block.variables[0] not in values:
                continue
            first = values[block.variables[0]]
            given = []
            for position, shape in zip(
                block.variables, block.variable_shapes(), strict=True
            ):
                value = values.get(position)
                if value is None:
                    value = ops.zeros(shape, dtype=first.dtype)
                given.append(ops.cast(value, own[0].dtype))
            for position, value in zip(
                block.variables, product(block, own, given), strict=True
            ):
                if position in values:
                    products[position] = value
        return products

    def get_config(self) -> dict | None:
        """The registration as plain Python, if there is one."""
        if self.registration is None:
            return None
        return self.registration.get_config()

    def set_config(self, config: dict | None) -> None:
        """Take over the registration of a saved optimizer."""
        if config is not None:
            self.registration = Registration.from_config(config)


def without_optimizer(
    settings: Settings, seed: int, variables: Sequence[keras.Variable]
) -> Curvature:
    """A curvature that belongs to no optimizer: for a measurement.

    Args:
        settings: how it is measured.
        seed: where labels and signs are drawn from.
        variables: the model's trainable variables.
    """
    numbers = itertools.count()

    def add_variable(shape, initializer, dtype, layout, name):
        return keras.Variable(
            initializer,
            shape=shape,
            dtype=dtype,
            trainable=False,
            layout=layout,
            name=f"{name}_{next(numbers)}",
        )

    curvature = Curvature(
        settings, keras.random.SeedGenerator(seed), add_variable
    )
    curvature.build(variables)
    return curvature
