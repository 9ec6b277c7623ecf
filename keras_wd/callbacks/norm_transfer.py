"""The norms of one run given to the weights of another."""

from collections.abc import Mapping
from collections.abc import Sequence

import keras
import numpy as np

from keras_wd.callbacks.counting import EpochCount
from keras_wd.errors import check_number
from keras_wd.graph.invariance import invariant_variables
from keras_wd.graph.invariance import scale_invariant
from keras_wd.metrics.effective_rates import norm_of


class NormTransfer(keras.callbacks.Callback):
    """Records the norms of scale-invariant weights, or imposes them.

    The experiment that separates what weight decay does to the learning rate
    from what it does to the function: record the norms of a run with decay
    after every epoch, then train without decay and, after every epoch,
    rescale each weight to the norm it had there:
    `w <- w * recorded_norm / |w|`. As these weights are scale invariant
    (`keras_wd.graph.scale_invariant`), the function stays the same, and only
    the effective learning rate becomes that of the other run. The state of
    the optimizer is left as it is. Epochs are counted over all calls of `fit`
    with one callback and one model.

    Args:
        norms: what another run recorded (`recorder.norms`), one dictionary
            per epoch; None to record.

    Attributes:
        norms: by epoch, the norm of every scale-invariant weight by the end
            of its path. Plain Python, so that it can be stored as JSON.

    Raises:
        ValueError: when `fit` starts, if the model has no scale-invariant
            weight or not those of `norms`, or after an epoch without norms.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd import callbacks, optimizers
    >>> def run(weight_decay, transfer):
    ...     model = keras.Sequential([
    ...         keras.Input((4,)),
    ...         keras.layers.Dense(8, name="hidden"),
    ...         keras.layers.BatchNormalization(),
    ...         keras.layers.Dense(1),
    ...     ])
    ...     model.compile(optimizers.SGDW(0.1, weight_decay), "mse")
    ...     x = np.random.default_rng(0).normal(size=(32, 4))
    ...     model.fit(x, x[:, 0], epochs=3, verbose=0, callbacks=[transfer])
    ...     return float(np.linalg.norm(model.layers[0].get_weights()[0]))
    >>> recorder = callbacks.NormTransfer()
    >>> with_decay = run(0.1, recorder)
    >>> without = run(0.0, callbacks.NormTransfer(recorder.norms))
    >>> round(without / with_decay, 5)
    1.0

    Source: Zhang, Wang, Xu and Grosse, 2019, "Three Mechanisms of Weight
    Decay Regularization", section 4.1.
    """

    def __init__(self, norms: Sequence[Mapping[str, float]] | None = None):
        super().__init__()
        self.norms = [] if norms is None else _checked(norms)
        self._imposes = norms is not None
        self._names = []
        self._epochs = EpochCount()

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Find the weights."""
        self._epochs.begin_fit(self.model)
        self._names = scale_invariant(self.model)
        if not self._names:
            raise ValueError(
                "`NormTransfer` must be used with a model that has "
                "scale-invariant weights. Received: "
                f"model={self.model.name!r} without any. "
                "keras_wd.graph.explain(model) says why."
            )
        if self._imposes:
            for epoch, norms in enumerate(self.norms):
                missing = sorted(set(self._names) ^ set(norms))
                if missing:
                    raise ValueError(
                        "`norms` must have one norm for each of "
                        f"{', '.join(self._names)}. Received: epoch {epoch} "
                        f"that differs in {', '.join(missing)}."
                    )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Record the norms, or rescale the weights."""
        model = self.model
        epoch = self._epochs.end_epoch(epoch)
        variables = dict(
            zip(self._names, invariant_variables(model), strict=True)
        )
        if not self._imposes:
            self.norms.append({n: norm_of(v) for n, v in variables.items()})
            return
        if epoch >= len(self.norms):
            raise ValueError(
                "`norms` must have an entry for every epoch. Received: "
                f"{len(self.norms)} for epoch {epoch}, counted from 0."
            )
        for name, variable in variables.items():
            norm = norm_of(variable)
            if not 0 < norm < np.inf:
                raise ValueError(
                    "`NormTransfer` must be used with weights whose norm can "
                    f"be changed. Received: {variable.path} with norm {norm} "
                    f"after epoch {epoch}, counted from 0."
                )
            factor = self.norms[epoch][name] / norm
            variable.assign(np.float32(factor) * variable.value)


def _checked(norms):
    """Copies of the recorded norms, or an error."""
    if not isinstance(norms, list | tuple) or not all(
        isinstance(epoch, Mapping) for epoch in norms
    ):
        raise ValueError(
            "`norms` must be a list with one dictionary of norms per epoch, "
            f"as another NormTransfer recorded it. Received: norms={norms!r}"
        )
    return [
        {
            name: check_number(f"norms[{number}][{name!r}]", norm, above=0)
            for name, norm in epoch.items()
        }
        for number, epoch in enumerate(norms)
    ]
