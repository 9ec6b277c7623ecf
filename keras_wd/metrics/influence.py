"""Which training examples a test loss depends on."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_wd.backend import autodiff
from keras_wd.errors import check_count
from keras_wd.errors import check_number
from keras_wd.errors import check_seed
from keras_wd.kfac.curvature import Settings
from keras_wd.kfac.curvature import without_optimizer
from keras_wd.kfac.embedding import EmbeddingReader
from keras_wd.kfac.measurement import numbers_of
from keras_wd.kfac.measurement import watched
from keras_wd.kfac.objective import Importance
from keras_wd.kfac.readers import Rows
from keras_wd.losses import CompiledLoss
from keras_wd.metrics.probing import checked_inputs
from keras_wd.metrics.probing import count_examples

_SUMS = ("sum", "none", None)
# Of the mean curvature of a layer, where no damping is given.
_DAMPING = 0.1


def influence(
    model: keras.Model,
    train: tuple,
    test: tuple,
    damping: float | None = None,
    estimator: str = "fisher_exact",
    batch_size: int = 128,
    max_factor_size: int = 8192,
    seed: int = 0,
) -> np.ndarray:
    """How much each test loss changes when a training example is left out.

    Formula: `I[i, j] = grad l_i . (C + d)^-1 grad l_j / N`, with the
    gradients of the losses of test example i and training example j, C the
    curvature of the training loss in the eigenbasis of its Kronecker factors
    (EKFAC, see `keras_wd.kfac.EigenBlock`), measured on all N training
    examples, and d the damping of a layer. It is the first-order change of
    `l_i` when example j is left out and the model is trained to the end
    again: positive where leaving it out makes the test loss larger, which is
    where the example helps.

    It is what it says for a model that is trained to a minimum of a loss that
    is convex near it. Elsewhere (early stopping, deep networks) it is the
    change of the proximal Bregman response function instead of retraining:
    the order of the examples means more than the size. Embeddings,
    normalizations and whatever has no matrix are held fixed, and so is the
    layer's part that couples it with other layers. Dropout is off and batch
    normalization at inference. Regularizers and decays are not in C: give
    their strength as part of the damping.

    Args:
        model: compiled with a loss that is a mean over the examples, trained.
        train: (x, y), as `fit` takes them, arrays.
        test: (x, y).
        damping: d, of every layer; a tenth of the mean of the layer's
            eigenvalues if None.
        estimator: of C, see `keras_wd.optimizers.KFAC`; "fisher" where the
            exact one has too many outputs.
        batch_size: examples at a time. The gradients of so many examples are
            held at once.
        max_factor_size: a larger factor keeps its diagonal only.
        seed: of the drawn labels.

    Returns:
        (test examples, training examples), float64. Units: of the loss.

    Raises:
        ValueError: if an argument is out of range, the model is not built or
            has no layer with a matrix, or its loss is a sum.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import metrics
    >>> model = keras.Sequential([
    ...     keras.Input((1,)),
    ...     keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
    ... ])
    >>> model.compile(loss="mse", jit_compile=False)
    >>> x, y = np.array([[1.0], [2.0], [-1.0]]), np.array([[1.0], [0.0], [1.0]])
    >>> metrics.influence(model, (x, y), (x[:1], y[:1]), damping=0.0).round(2)
    array([[ 0.33,  0.  , -0.33]])

    Source: Koh and Liang, 2017, "Understanding Black-box Predictions via
    Influence Functions", equation 2; Bae, Ng, Lo, Ghassemi and Grosse, 2022,
    "If Influence Functions are the Answer, Then What is the Question?"; with
    EKFAC and this damping: Grosse et al., 2023, "Studying Large Language
    Model Generalization with Influence Functions", section 3.2.
    """
    autodiff.require("influence")
    if damping is not None:
        damping = check_number("damping", damping, minimum=0)
    batch_size = check_count("batch_size", batch_size)
    check_seed("seed", seed)
    train = _checked(model, "train", train)
    test = _checked(model, "test", test)
    curvature = _fitted(
        model,
        train,
        batch_size,
        Settings(
            estimator,
            0.0,
            check_count("max_factor_size", max_factor_size),
            eigenbasis=True,
            training=False,
        ),
        seed,
    )
    gradients = _Gradients(model, curvature)
    rows = []
    for batch in _batches(test, batch_size):
        solved = gradients.solved(gradients(*batch), damping)
        rows.append(
            np.concatenate(
                [
                    _products(solved, gradients(*other))
                    for other in _batches(train, batch_size)
                ],
                axis=1,
            )
        )
    return np.concatenate(rows) / count_examples(train[0])


def _checked(model, name, data):
    if not isinstance(data, tuple) or len(data) != 2:
        raise ValueError(
            f"`{name}` must be a tuple (x, y) of arrays. Received: "
            f"{name}={type(data).__name__}."
        )
    x = checked_inputs(model, data[0], floats=False)
    y = keras.tree.map_structure(np.asarray, data[1])
    lengths = {len(part) for part in keras.tree.flatten(y)}
    if lengths != {count_examples(x)}:
        raise ValueError(
            f"`{name}` must have as many labels as examples. Received: "
            f"{count_examples(x)} examples and labels of {sorted(lengths)}."
        )
    return x, y


def _batches(data, size):
    """Batches that differ in size by one at most."""
    count = count_examples(data[0])
    for chosen in np.array_split(np.arange(count), -(-count // size)):
        yield keras.tree.map_structure(
            lambda part, own=chosen: ops.convert_to_tensor(part[own]), data
        )


def _fitted(model, train, batch_size, settings, seed):
    """The curvature of all training examples, in its eigenbasis."""
    curvature = without_optimizer(settings, seed, model.trainable_variables)
    # First the basis, then the moments in it.
    for again in (False, True):
        for x, y in _batches(train, batch_size):
            curvature.measure(model, (x, y, None), None, first_pass=True)
        if not again:
            curvature.invert(0.0, jit_compile=False)
            curvature.restart()
    return curvature


class _Gradients:
    """The gradients of the losses of single examples, in the eigenbasis."""

    def __init__(self, model, curvature):
        self._model = model
        self._layers = curvature.layers
        self._state = curvature.state
        self._blocks = [
            index
            for index, seen in enumerate(self._layers)
            if curvature.state.has_moments(index)
            and not isinstance(seen.reader, EmbeddingReader)
        ]
        if not self._blocks:
            raise ValueError(
                "`model` must have a layer that multiplies with a matrix. "
                f"Received: model={model.name!r} with blocks "
                f"{[block.name for block in curvature.state.blocks]}."
            )
        self._loss = CompiledLoss(model)
        bases = [v for i in self._blocks for v in self._state.bases(i)]
        self._program = autodiff.compiled(
            self._compute,
            reads=[*model.variables, *bases],
            writes=[],
            jit_compile=bool(getattr(model, "jit_compile", False)),
        )

    def __call__(self, x, y) -> list:
        """One (examples, ...) per block."""
        return self._program(x, y)

    def _compute(self, x, y):
        examples = keras.tree.flatten(x)[0].shape[0]
        numbers = numbers_of(self._layers)

        def forward(tap):
            outputs, uses = watched(self._model, numbers, x, tap, False)
            terms = self._loss.terms(y, outputs, None)
            return [_sum_over_examples(terms, examples)], uses

        (loss,), uses, pullback = autodiff.tapped_vjp(forward)
        taps = pullback([ops.ones((), loss.dtype)])
        rows = Importance((), examples)
        found = []
        for index in self._blocks:
            own = [i for i, use in enumerate(uses) if use.block == index]
            seen, block = self._layers[index], self._state.blocks[index]
            bases = [autodiff.read(v) for v in self._state.inverses[index]]
            found.append(
                seen.reader.gradients_of_examples(
                    seen.layer,
                    block,
                    [uses[i].seen for i in own],
                    [taps[i] for i in own],
                    self._state.dtypes[index],
                    [Rows(rows, uses[i].mask) for i in own],
                    block.bases(bases),
                )
            )
        return found

    def solved(self, gradients: Sequence, damping: float | None) -> list:
        """The gradients divided by the damped moments."""
        solved = []
        for index, gradient in zip(self._blocks, gradients, strict=True):
            moments = autodiff.read(self._state.inverses[index][-1])
            added = _DAMPING * ops.mean(moments) if damping is None else damping
            solved.append(
                ops.divide_no_nan(
                    gradient, moments + ops.cast(added, moments.dtype)
                )
            )
        return solved


def _sum_over_examples(terms, examples):
    """The sum of the losses of the examples."""
    total = 0.0
    for term in terms:
        if term.settings["reduction"] in _SUMS:
            raise ValueError(
                "`model` must be compiled with a loss that is a mean over "
                f"the examples. Received: loss={term.loss.name!r} with "
                f"reduction={term.settings['reduction']!r}."
            )
        total = total + examples * term.value()
    return total


def _products(first, second):
    """Of every example with every other, summed over blocks."""
    total = 0.0
    for one, other in zip(first, second, strict=True):
        one, other = (
            ops.convert_to_numpy(part).reshape(len(part), -1).astype("float64")
            for part in (one, other)
        )
        total = total + one @ other.T
    return total
