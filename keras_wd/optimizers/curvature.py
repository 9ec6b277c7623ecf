"""The curvature of K-FAC: measured between the steps, and read."""

from collections.abc import Callable

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from keras_wd.backend import curvature as seam
from keras_wd.errors import check_number
from keras_wd.kfac import report
from keras_wd.optimizers.chain import parts
from keras_wd.optimizers.rates import number_of

NO_CURVATURE = (
    "`KFAC` must measure curvature before its first step. Received: a step "
    "without any. Pass keras_wd.callbacks.Curvature(data) to `fit`, or call "
    "optimizer.update_curvature(model, x) in a loop of your own."
)


class MeasuresCurvature:
    """What `KFAC` does between its steps.

    The class using it has `_engine`, `_damping` and `_has_curvature`.
    """

    @property
    def damping(self):
        """The damping now; settable if it was given as a number."""
        if isinstance(self._damping, LearningRateSchedule):
            return self._damping(self.iterations)
        return self._damping

    def _damping_now(self):
        return number_of(self.damping)

    @damping.setter
    def damping(self, value: float):
        if isinstance(self._damping, LearningRateSchedule):
            raise ValueError(
                "`damping` must not be set when it follows a schedule. "
                f"Received: damping={value!r}."
            )
        self._damping.assign(check_number("damping", value, minimum=0))

    @property
    def has_curvature(self) -> bool:
        """Whether a step can be taken."""
        if not self._has_curvature and self._engine.state is not None:
            self._has_curvature = self._engine.state.count_inversions() > 0
        return self._has_curvature

    @property
    def curvature_measurements(self) -> int:
        """How many batches the curvature was measured on, or tried to be."""
        state = self._engine.state
        return 0 if state is None else state.count_measurements()

    def update_curvature(
        self,
        model: keras.Model,
        x,
        y=None,
        sample_weight=None,
        loss=None,
        invert: bool = True,
        first_pass: bool = False,
    ) -> None:
        """Measure the curvature on a batch and renew the inverses.

        Args:
            model: the model this optimizer trains, built.
            x: a batch of inputs, as `fit` takes it.
            y: labels, as `fit` takes them; only "empirical",
                "generalized_gauss_newton" and a loss with `ignore_class` use
                them.
            sample_weight: weights of the examples in the loss.
            loss: in place of the compiled loss, for a model without one.
            invert: renew the inverses too. The first call has to.
            first_pass: average this and the earlier batches with equal
                weights, to initialise the factors by a pass over the data.

        Raises:
            ValueError: if the model has another set of variables, no layer
                that K-FAC knows, or a loss the estimator cannot use.
        """
        self._build_for(model)
        self._engine.measure(model, (x, y, sample_weight), loss, first_pass)
        if invert:
            self.update_inverses()

    def update_inverses(self, jit_compile: bool = False) -> None:
        """Renew the inverses from the averages and the damping of now.

        Args:
            jit_compile: compile with XLA on TensorFlow too, which takes long
                and gains nothing on CPU and GPU. JAX always compiles.
        """
        if self._engine.state is None:
            raise ValueError(NO_CURVATURE)
        damping = self._damping_now()
        self._engine.invert(damping, bool(jit_compile))
        self._has_curvature = True

    def register(self, model: keras.Model, x) -> None:
        """Find the layers of `model` and create their factors.

        `update_curvature` does it by itself the first time.
        """
        self._build_for(model)
        self._engine.register(model, x)

    def _build_for(self, model):
        if not model.built:
            raise ValueError(
                "`model` must be built. Received: "
                f"model={model.name!r}, which is not. Call it on a batch "
                "first, or give it an `Input`."
            )
        outer = getattr(model, "optimizer", None)
        holder = outer if self in parts(outer) else self
        if not holder.built:
            with seam.scope(model):
                holder.build(model.trainable_variables)

    def summary(self, print_fn: Callable[[str], None] = print) -> None:
        """Print each variable's block, factors, memory, or why it has none."""
        if self._engine.registration is None:
            raise ValueError(NO_CURVATURE)
        names = [variable.path for variable in self._trainable_variables]
        print_fn(report.table(self._engine.registration, names))

    def diagnostics(self) -> dict[str, float]:
        """Numbers for logs, read now.

        Returns:
            "damping"; "curvature_trace", the trace of all blocks;
            "weight_norm" `sum w . C w` over all blocks (the Gauss-Newton
            norm of the weights under that estimator); "step_kl", with
            momentum, `sum v . C v / 2` of the last step v; how many
            measurements were taken ("curvature_updates") or skipped for
            non-finite statistics ("curvature_skipped"), inversions repeated
            ("inverse_retries") or given up ("inverse_failures"), counted per
            block; "curvature_seconds" and "inverse_seconds" since the
            optimizer was created.
        """
        if self._engine.state is None:
            raise ValueError(NO_CURVATURE)
        numbers = {"damping": self._damping_now()}
        numbers.update(report.numbers(self._engine))
        variables = dict(enumerate(self._trainable_variables))
        form = report.quadratic_form
        numbers["weight_norm"] = form(self._engine, variables)
        if self.momentum:
            velocities = dict(enumerate(self.velocities))
            numbers["step_kl"] = form(self._engine, velocities) / 2.0
        return numbers

    def factors(self) -> dict[str, dict[str, np.ndarray]]:
        """Copies of the running averages, by block and factor name.

        A block's name is the path of its first variable. "input_factor" is A
        and "output_factor" S, full or the diagonal, after a leading axis of
        groups if there are groups; "unit_factor" is the squared scale
        gradients, the squared shift gradients, and their products.
        """
        if self._engine.state is None:
            raise ValueError(NO_CURVATURE)
        return report.factors(self._engine)

    def block_diagnostics(self) -> dict[str, dict[str, float]]:
        """Per block: traces of the factors, `|w|^2`, effective damping.

        Formula: "effective_damping" is `|w|^2 d`, what the damping is for the
        direction w / |w| of a layer whose scale does not matter (one followed
        by a normalization). The block's name is its first variable's path.

        Source: Zhang, Wang, Xu and Grosse, 2019, section 4.3.
        """
        if self._engine.state is None:
            raise ValueError(NO_CURVATURE)
        damping = self._damping_now()
        return report.blocks(self._engine, self._trainable_variables, damping)
