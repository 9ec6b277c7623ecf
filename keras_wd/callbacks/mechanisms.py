"""What the decay did, in the logs of every epoch."""

import math

import keras
import numpy as np
from keras import ops

from keras_wd import backend
from keras_wd.backend import autodiff
from keras_wd.callbacks.counting import EpochCount
from keras_wd.callbacks.decay_callback import rate_logs
from keras_wd.decays import PathNorm
from keras_wd.errors import check_count
from keras_wd.graph.invariance import invariant_variables
from keras_wd.graph.pairs import homogeneous_units
from keras_wd.graph.structure import functional_of
from keras_wd.metrics.effective_rates import dampings_of
from keras_wd.metrics.effective_rates import is_known
from keras_wd.metrics.effective_rates import rates_of
from keras_wd.metrics.jacobian import jacobian_norm
from keras_wd.metrics.probing import checked_inputs
from keras_wd.metrics.probing import program_of
from keras_wd.metrics.rotation import angles_of
from keras_wd.metrics.rotation import rotation
from keras_wd.metrics.weights import sparsity
from keras_wd.metrics.weights import weight_norm
from keras_wd.optimizers.chain import chain
from keras_wd.optimizers.kfac import KFAC


class Mechanisms(keras.callbacks.Callback):
    """Logs the mechanisms by which weight decay acts, at the end of epochs.

    The logs get, for `History`, `CSVLogger`, `TensorBoard` and
    `EarlyStopping` (list this callback before them):

        weight_norm              sqrt of the sum of squares of the kernels
        zeros                    share of kernel entries that are exactly 0
        sparsity                 share with a magnitude up to 1e-13
        jacobian_norm            `metrics.jacobian_norm` on `x`, every
                                 `every` epochs
        path_norm                of the pairs of homogeneous units, if any
        scale_invariant_weights  over how many the means below are taken
        effective_learning_rate  geometric mean over scale-invariant weights
        rotation                 angle the first step of the epoch turned
                                 them by, root mean square, in radians
        equilibrium_rotation     the angle they should settle at, likewise
        effective_damping        geometric mean, with K-FAC
        weight_decay             the rate in force; "weight_decay_<name>" for
                                 each of several

    What does not apply to a model or an optimizer is not logged: the rows
    about scale-invariant weights need a following normalization
    (`graph.scale_invariant`), and the structure of a subclassed model cannot
    be read. `layers` has the effective learning rate of every weight.

    What was not measured in an epoch is not logged in it, as Keras does with
    `validation_freq`: `CSVLogger` writes "NA", TensorBoard has no point, and
    the list in `History` is shorter, its epochs being `jacobian_epochs`. Use
    every=1 for a number that `EarlyStopping` monitors.

    Args:
        x: inputs to measure the Jacobian on, such as 128 validation images or
            token sequences; as many of them as an epoch has examples cost
            more than training.
        every: epochs between two measurements of the Jacobian, of which the
            first and the last epoch of every `fit` always have one. All else
            is measured in every epoch.
        batch_size: examples at a time.

    Attributes:
        layers: by epoch, counted over all calls of `fit`, the effective
            learning rate of every scale-invariant weight by its path.
        jacobian_epochs: those in which the Jacobian was measured.

    Raises:
        ValueError: if an argument is out of range; when `fit` starts, if `x`
            does not fit the model.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import callbacks, optimizers
    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(8, "relu"),
    ...     keras.layers.Dense(1),
    ... ])
    >>> model.compile(optimizers.SGDW(0.1, weight_decay=0.01), "mse")
    >>> x = np.ones((8, 4))
    >>> history = model.fit(
    ...     x, x[:, :1], verbose=0, callbacks=[callbacks.Mechanisms(x)]
    ... )
    >>> for name in history.history:
    ...     print(name)
    loss
    weight_norm
    zeros
    sparsity
    jacobian_norm
    path_norm
    weight_decay

    Source: Zhang, Wang, Xu and Grosse, 2019, "Three Mechanisms of Weight
    Decay Regularization".
    """

    def __init__(self, x: object, every: int = 5, batch_size: int = 512):
        autodiff.require("Mechanisms")
        super().__init__()
        self.x = x
        self.every = check_count("every", every)
        self.batch_size = check_count("batch_size", batch_size)
        self.layers = {}
        self.jacobian_epochs = []
        self._epochs = EpochCount()
        self._is_first = True
        self._before = None
        self._rotation = None
        self._names = frozenset()
        self._decay: PathNorm | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Check `x` and read the structure of the model."""
        model = self.model
        self._inputs = checked_inputs(model, self.x)
        self._names, self._decay = frozenset(), None
        # The structure of a subclassed model cannot be read.
        if functional_of(model) is not None:
            self._names = frozenset(v.path for v in invariant_variables(model))
            units = homogeneous_units(model)
            if units:
                self._decay = PathNorm(0.0, units, coupling="coupled")
        self._is_first = True
        if self._epochs.begin_fit(model):
            self.layers, self.jacobian_epochs = {}, []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remember the weights before the first step."""
        self._before = self._rotation = None
        if self._names:
            self._before = _values(self._invariant(self.model))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """How far the first step turned the weights."""
        if self._before is None:
            return
        # A batch number above 0: several steps were one execution.
        if batch == 0:
            after = _values(self._invariant(self.model))
            # A weight that is zero has no direction.
            angles = [
                rotation(one, other)
                for one, other in zip(self._before, after, strict=True)
                if one.any() and other.any()
            ]
            self._rotation = _root_mean_square(angles) if angles else None
        self._before = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measure, and add the numbers to the logs."""
        number = self._epochs.end_epoch(epoch)
        model = self.model
        numbers = {
            "weight_norm": weight_norm(model),
            "zeros": sparsity(model),
            "sparsity": sparsity(model, 1e-13),
        }
        is_last = epoch + 1 == self.params.get("epochs")
        if self._is_first or is_last or number % self.every == 0:
            numbers["jacobian_norm"] = float(
                jacobian_norm(model, self._inputs, batch_size=self.batch_size)
            )
            self.jacobian_epochs.append(number)
            self._is_first = False
        if self._decay is not None:
            numbers["path_norm"] = self._path_norm(model)
        if self._names:
            numbers.update(self._of_directions(model, number))
        if logs is not None:
            logs.update(numbers)
            logs.update(rate_logs(model.optimizer))

    def _path_norm(self, model):
        rule, variables = self._decay, list(model.trainable_variables)
        chosen = [variables[i] for i in rule.select(variables)]
        # Run eagerly, JAX would compile each of its operations.
        program = program_of(
            model,
            f"path_norm of {[v.path for v in chosen]}",
            lambda: lambda: rule.penalty([autodiff.read(v) for v in chosen]),
        )
        return float(ops.convert_to_numpy(program()))

    def _of_directions(self, model, epoch):
        invariant = self._invariant(model)
        numbers = {"scale_invariant_weights": float(len(invariant))}
        if is_known(model.optimizer):
            rates = rates_of(model.optimizer, invariant)
            self.layers[epoch] = rates
            numbers["effective_learning_rate"] = _geometric_mean(rates)
        if self._rotation is not None:
            numbers["rotation"] = self._rotation
        angles = angles_of(model, model.optimizer, invariant)
        if None not in angles.values():
            expected = _root_mean_square(list(angles.values()))
            numbers["equilibrium_rotation"] = expected
        inner = chain(model.optimizer)[-1]
        if isinstance(inner, KFAC):
            dampings = dampings_of(inner, invariant)
            if dampings:
                numbers["effective_damping"] = _geometric_mean(dampings)
        return numbers

    def _invariant(self, model):
        return [v for v in model.trainable_variables if v.path in self._names]


def _values(variables):
    return [np.array(backend.concrete_value(v)) for v in variables]


def _geometric_mean(values):
    numbers = np.array(list(values.values()))
    if not np.all(numbers > 0):
        return 0.0
    return math.exp(np.mean(np.log(numbers)))


def _root_mean_square(values):
    return float(np.sqrt(np.mean(np.square(values))))
