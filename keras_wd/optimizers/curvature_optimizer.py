"""An optimizer that owns the curvature of the model it trains."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import initializers
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_wd.backend import autodiff
from keras_wd.errors import check_number
from keras_wd.kfac import summary
from keras_wd.kfac.curvature import Curvature
from keras_wd.kfac.curvature import Settings
from keras_wd.losses import weights_of_classes
from keras_wd.optimizers.chain import parts
from keras_wd.optimizers.rates import decimal_of
from keras_wd.optimizers.saved_state import SavesState
from keras_wd.schedules import check_rate

NO_CURVATURE = (
    "`KFAC` must measure curvature before its first step. Received: a step "
    "without any. Pass keras_wd.callbacks.Curvature(data) to `fit`, or call "
    "optimizer.update_curvature(model, x) in a loop of your own."
)


def _float_of_numbers():
    """float64 where Keras computes in it, and float32 otherwise."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


class CurvatureOptimizer(SavesState, keras.optimizers.Optimizer):
    """Measures curvature between its steps; how it steps is a subclass's.

    Args:
        learning_rate: a float or a schedule.
        damping: a float or a schedule of `iterations`.
        settings: how curvature is measured and kept.
        seed: of the drawn labels.
        **kwargs: any further argument of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        damping: float | LearningRateSchedule,
        settings: Settings,
        seed: int | None,
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, **kwargs)
        # Orbax finds the state by its path, which begins with this name.
        noise = keras.random.SeedGenerator(seed, name=f"{self.name}_noise")
        # Tracked, so that a resumed run draws the labels it would have drawn.
        self.noise_state = noise.state
        self._damping: Any = check_rate("damping", damping)
        if not isinstance(damping, LearningRateSchedule):
            self._damping = self.add_variable(
                shape=(),
                initializer=initializers.Constant(damping),
                dtype=_float_of_numbers(),
                aggregation="only_first_replica",
                name="damping",
            )
        self._curvature = Curvature(settings, noise, self.add_variable)
        self._has_curvature = False
        self._keep_state()

    @property
    def damping(self):
        """The damping now; settable if it was given as a number."""
        if isinstance(self._damping, LearningRateSchedule):
            return self._damping(self.iterations)
        return self._damping

    @damping.setter
    def damping(self, value: float):
        if isinstance(self._damping, LearningRateSchedule):
            raise ValueError(
                "`damping` must not be set when it follows a schedule. "
                f"Received: damping={value!r}."
            )
        self._damping.assign(check_number("damping", value, minimum=0))

    def _damping_now(self):
        return decimal_of(self.damping)

    @property
    def has_curvature(self) -> bool:
        """Whether a step can be taken."""
        if not self._has_curvature and self._curvature.state is not None:
            self._has_curvature = self._curvature.state.count_inversions() > 0
        return self._has_curvature

    @property
    def curvature_measurements(self) -> int:
        """How many batches the curvature was measured on, or tried to be."""
        state = self._curvature.state
        return 0 if state is None else state.count_measurements()

    def is_plain(self, variable: keras.Variable) -> bool:
        """Whether it is known by now that a variable has no block.

        Its step is made from the plain gradient.

        Args:
            variable: of the model.
        """
        return self._curvature.is_plain(variable)

    def update_curvature(
        self,
        model: keras.Model,
        x,
        y=None,
        sample_weight=None,
        loss=None,
        invert: bool = True,
        first_pass: bool = False,
        class_weight: dict[int, float] | None = None,
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
            class_weight: weights of the classes in the loss, as `fit` takes
                them, in place of `sample_weight`. The model has one output,
                and `y` holds class numbers or one-hot rows.

        Raises:
            ValueError: if the model has another set of variables, no layer
                that K-FAC knows, or a loss the estimator cannot use.
        """
        if class_weight is not None:
            sample_weight = weights_of_classes(class_weight, y, sample_weight)
        self._build_for(model)
        self._curvature.measure(model, (x, y, sample_weight), loss, first_pass)
        if invert:
            self.update_inverses()

    def update_inverses(self, jit_compile: bool = False) -> None:
        """Renew the inverses from the averages and the damping of now.

        Args:
            jit_compile: compile with XLA on TensorFlow too, which takes long
                and gains nothing on a GPU. JAX always compiles; where one CPU
                computes, NumPy inverts and nothing is compiled.
        """
        if self._curvature.state is None:
            raise ValueError(NO_CURVATURE)
        damping = self._damping_now()
        self._curvature.invert(damping, bool(jit_compile))
        self._has_curvature = True

    def register(self, model: keras.Model, x) -> None:
        """Find the layers of `model` and create their factors.

        `update_curvature` does it by itself the first time.
        """
        self._build_for(model)
        self._curvature.register(model, x)

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
            with autodiff.scope(model):
                holder.build(model.trainable_variables)

    def summary(self, print_fn: Callable[[str], None] = print) -> None:
        """Print each variable's block, factors, memory, or why it has none.

        And where the seconds went since the optimizer was created: finding
        the layers, compiling (the first run of every program), measuring
        curvature, inverting it, and, in `fit` with the callback `Curvature`,
        the training steps.
        """
        if self._curvature.registration is None:
            raise ValueError(NO_CURVATURE)
        names = [variable.path for variable in self._trainable_variables]
        print_fn(summary.table(self._curvature.registration, names))
        print_fn(self.seconds())

    def seconds(self) -> str:
        """Where the time went, as `summary` prints it."""
        return str(self._curvature.seconds)

    def add_seconds(self, kind: str, seconds: float) -> None:
        """Add to `seconds` what was measured elsewhere: "steps" of `fit`."""
        self._curvature.seconds.add(kind, seconds)

    def diagnostics(self, products: bool = True) -> dict[str, float]:
        """Numbers for logs, read now.

        Args:
            products: also those that multiply with every factor:
                "curvature_trace", the trace of all blocks; "weight_norm"
                `sum w . C w` over all blocks (the Gauss-Newton norm of the
                weights under that estimator); "step_kl", with momentum,
                `sum v . C v / 2` of the last step v.

        Returns:
            "damping"; how many measurements were taken
            ("curvature_updates") or skipped for non-finite statistics
            ("curvature_skipped"), inversions repeated ("inverse_retries") or
            given up ("inverse_failures"), counted per block;
            "compile_seconds", of finding the layers and of the first run of
            every program, "curvature_seconds" and "inverse_seconds" of all
            further runs, since the optimizer was created.
        """
        if self._curvature.state is None:
            raise ValueError(NO_CURVATURE)
        numbers = {"damping": self._damping_now()}
        numbers.update(summary.numbers(self._curvature))
        if not products:
            return numbers
        numbers["curvature_trace"] = summary.trace(self._curvature)
        form = summary.quadratic_form
        variables = dict(enumerate(self._trainable_variables))
        numbers["weight_norm"] = form(self._curvature, variables)
        velocities = {
            position: velocity
            for position, velocity in enumerate(getattr(self, "velocities", ()))
            if velocity is not None
        }
        if velocities:
            numbers["step_kl"] = form(self._curvature, velocities) / 2.0
        return numbers

    def predicted_change(
        self, variables: Sequence, steps: Sequence, gradients: Sequence
    ) -> float:
        """What the quadratic model says a step changes the loss by.

        Formula: `sum g . v + v . (C + d) v / 2`, the second part over the
        variables that have a block.

        Args:
            variables: of the model.
            steps: v, one array per variable.
            gradients: g, one array per variable.
        """
        if self._curvature.state is None:
            raise ValueError(NO_CURVATURE)
        positions = {id(v): i for i, v in enumerate(self._trainable_variables)}
        taken = {
            positions[id(variable)]: ops.convert_to_tensor(step)
            for variable, step in zip(variables, steps, strict=True)
            if id(variable) in positions
        }
        products = self._curvature.times(taken)
        change = sum(
            float(np.vdot(gradient, step))
            for gradient, step in zip(gradients, steps, strict=True)
        )
        for position, product in products.items():
            step = ops.convert_to_numpy(taken[position])
            bent = ops.convert_to_numpy(product) + self._damping_now() * step
            change += float(np.vdot(step, bent)) / 2.0
        return change

    def factors(self) -> dict[str, dict[str, np.ndarray]]:
        """Copies of the running averages, by block and factor name.

        A block's name is the path of its first variable. "input_factor" is A
        and "output_factor" S, full or the diagonal, after a leading axis of
        groups if there are groups; "second_moments" those in an eigenbasis;
        "unit_factor" is the squared scale
        gradients, the squared shift gradients, and their products.
        """
        if self._curvature.state is None:
            raise ValueError(NO_CURVATURE)
        return summary.factors(self._curvature)

    def block_diagnostics(self) -> dict[str, dict[str, float]]:
        """Per block: traces of the factors, `|w|^2`, effective damping.

        Formula: "effective_damping" is `|w|^2 d`, what the damping is for the
        direction w / |w| of a layer whose scale does not matter (one followed
        by a normalization). The block's name is its first variable's path.

        Source: Zhang, Wang, Xu and Grosse, 2019, section 4.3.
        """
        if self._curvature.state is None:
            raise ValueError(NO_CURVATURE)
        damping = self._damping_now()
        return summary.blocks(
            self._curvature, self._trainable_variables, damping
        )
