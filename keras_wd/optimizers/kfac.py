"""K-FAC as a Keras optimizer."""

import copy
from collections.abc import Sequence

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_wd import backend
from keras_wd.backend import autodiff
from keras_wd.errors import check_choice
from keras_wd.errors import check_count
from keras_wd.errors import check_flag
from keras_wd.errors import check_fraction
from keras_wd.errors import check_number
from keras_wd.errors import check_seed
from keras_wd.kfac.blocks import SHARING
from keras_wd.kfac.curvature import Settings
from keras_wd.kfac.estimators import ESTIMATORS
from keras_wd.optimizers.clipping import check_replicas
from keras_wd.optimizers.clipping import clip_over_replicas
from keras_wd.optimizers.curvature_optimizer import NO_CURVATURE
from keras_wd.optimizers.curvature_optimizer import CurvatureOptimizer
from keras_wd.optimizers.division import Division
from keras_wd.optimizers.division import LearningRateOf
from keras_wd.optimizers.division import check_left_to_inner
from keras_wd.optimizers.division import check_one_decay
from keras_wd.schedules import check_learning_rate
from keras_wd.schedules import deserialize_rate
from keras_wd.schedules import serialize_rate
from keras_wd.where import Selection

_OBJECTS = ("where", "inner", "rest")

# They train the networks of `python -m benchmarks kfac_whole_runs` as they are.
LEARNING_RATE, DAMPING, KL_CLIP = 0.1, 0.03, 1e-4


@keras.saving.register_keras_serializable("keras_wd.optimizers")
class KFAC(CurvatureOptimizer):
    """Natural gradient with a Kronecker-factored curvature.

    Formula, per layer with gradient matrix G (inputs x outputs, the bias as
    the last row), `A = E[a a^T]`, `S = E[g g^T]`, damping d:
    `U = (A + pi sqrt(d) I)^-1 G (S + sqrt(d)/pi I)^-1` with
    `pi = sqrt((tr A / n) / (tr S / m))`; then, as in `keras.optimizers.SGD`,
    `velocity <- momentum * velocity - lr * U` and `w <- w + velocity`.
    Convention: A and S belong to the loss the model is compiled with, as
    `fit` prints it, so d adds to the curvature of that very loss. With
    `loss = sum c l` over its elements (examples, tokens, pixels), S is
    `sum c g g^T`: sample weights, the weights of outputs, masks, ignored
    classes and the reduction are in c, once; of "empirical" too, where the
    gradients themselves are of l and not of c l. A is the mean over rows
    weighted by their c, so that padding and examples without weight do not
    count.

    What bounds the length of a step is `kl_clip`, and the damping. The defaults
    are made for training without tuning, see "K-FAC" in docs/performance.md:
    where every step should be `lr U` instead, pass `kl_clip=None`, with which
    stale or noisy curvature can make the loss leap or become NaN.

    The curvature is measured between the steps, by the callback
    `keras_wd.callbacks.Curvature` in `fit` or by `update_curvature` in a loop
    of your own; a step without any raises. A variable of a layer K-FAC does
    not know takes the plain gradient; `summary` lists it.

    Clipping acts on the gradient before it is preconditioned; accumulated
    gradients are preconditioned once they are complete; the moving average
    (`use_ema`) and loss scaling are Keras's own. Measuring does not scale the
    loss: what it sends backwards is not divided by the batch size.

    Args:
        learning_rate: a float or a schedule, 0.1 if None; None beside
            `inner`, whose own counts.
        damping: d >= 0, a float or a schedule of `iterations`; read when
            inverses are computed.
        momentum: in [0, 1), 0.9 if None; None beside `inner`.
        curvature_decay: weight of the past in the averages of A and S, in
            [0, 1), with the start corrected for.
        kl_clip: c > 0, or None for no bound: U is scaled by
            `min(1, sqrt(c / (lr^2 sum g . U)))`, over the variables with a
            block.
        estimator: "fisher" (labels drawn from the model's predictions),
            "gauss_newton" (identity metric on the outputs),
            "generalized_gauss_newton" (the second derivatives of the loss by
            the outputs, their positive part, found automatically for any
            loss of `(y_true, y_pred)`), their noise-free forms
            "fisher_exact", "gauss_newton_exact" and
            "generalized_gauss_newton_exact" (one backward pass per output),
            or "empirical" (the labels of the data).
        max_factor_size: a larger factor keeps its diagonal only. A factor of
            size n takes `8 n^2` bytes with its inverse, `6 n^2` if n > 512
            and 4.25 to `5 n^2` if n > 1536, as symmetric halves are kept once;
            eigenvectors take `4 n^2` of it always.
        seed: of the drawn labels.
        sharing: how a layer treats several rows of one example, as in
            a convolution or a layer on a sequence: "expand" takes every row
            for an example of its own, exact for linear networks whose loss
            has an element for every row; "reduce" takes the mean of the rows
            that enter and the sum of the gradients that leave, exact where
            the rows are averaged, as by a global pooling.
        eigenbasis: EKFAC. The direction is `U ((U^T G V) / (M + d)) V^T`,
            with U and V the eigenvectors of A and S, found when the inverses
            are renewed, and M the second moments of the gradients of single
            examples in that basis, averaged at every measurement of the
            curvature; the damping is exact, and acts at once. Of all
            curvatures with these eigenvectors it is the nearest to the exact
            block, so never further from it than A (x) S, from which M
            starts. It takes twice the products of a step and a third array
            of the kernel's size, and eigenvectors, which take longer than
            inverses; `summary` says how long. M counts an example as a
            whole, whatever `sharing`; of a loss with several elements per
            example (tokens, pixels) an "exact" estimator then counts how they
            go together, which the others average out.
        where: selection of the variables that have a block, all if None. The
            others take the plain gradient, or the step of `rest`.
        inner: a Keras optimizer that steps in place of the heavy ball above:
            it takes U for the gradient, so that K-FAC is a preconditioner of
            Adam or any other. Its learning rate is that of `kl_clip`, its
            clipping acts on U.
        rest: a Keras optimizer that steps the variables `where` leaves out,
            with their plain gradient and a learning rate of its own. A
            decoupled decay around KFAC is multiplied, for each variable, by
            the learning rate of the optimizer that steps it.
        **kwargs: any further argument of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: if an argument is out of range, or a step is taken before
            there is curvature; when built, if `where` selects nothing, or
            leaves nothing for `rest`.

    >>> import keras
    >>> import numpy as np
    >>> from keras_wd.optimizers import KFAC
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> optimizer = KFAC(0.5, damping=1e-4, momentum=0.0, kl_clip=None)
    >>> model.compile(optimizer, "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 3))
    >>> y = x @ np.array([[1.0], [2.0], [3.0]])
    >>> for _ in range(20):
    ...     optimizer.update_curvature(model, x)
    ...     loss = model.train_on_batch(x, y)
    >>> bool(loss < 0.05)
    True

    The first layer by K-FAC, the rest by Adam, and a decay of both:

    >>> from keras_wd import decays, where
    >>> from keras_wd.optimizers import WeightDecay
    >>> optimizer = KFAC(
    ...     0.1,
    ...     where=where.paths("encoder/*"),
    ...     rest=keras.optimizers.Adam(1e-3),
    ... )
    >>> optimizer = WeightDecay(optimizer, decays.L2(0.01))

    Source: Martens and Grosse, 2015, "Optimizing Neural Networks with
    Kronecker-factored Approximate Curvature"; convolutions: Grosse and
    Martens, 2016; as used with weight decay: Zhang, Wang, Xu and Grosse, 2019;
    `sharing`: Eschenhagen, Immer, Turner, Schneider and Hennig, 2023,
    "Kronecker-Factored Approximate Curvature for Modern Neural Network
    Architectures"; `eigenbasis`: George, Laurent, Bouthillier, Ballas and
    Vincent, 2018, "Fast Approximate Natural Gradient Descent in a Kronecker
    Factored Eigenbasis".
    """

    clips_whole_batch = True

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule | None = None,
        damping: float | LearningRateSchedule = DAMPING,
        momentum: float | None = None,
        curvature_decay: float = 0.95,
        kl_clip: float | None = KL_CLIP,
        estimator: str = "fisher",
        max_factor_size: int = 8192,
        seed: int | None = None,
        sharing: str = "expand",
        eigenbasis: bool = False,
        where: Selection | None = None,
        inner: keras.optimizers.Optimizer | None = None,
        rest: keras.optimizers.Optimizer | None = None,
        **kwargs,
    ):
        autodiff.require("KFAC")
        division = Division(where, inner, rest)
        check_one_decay(rest, kwargs.get("weight_decay"))
        if inner is None:
            given = LEARNING_RATE if learning_rate is None else learning_rate
            learning_rate = check_learning_rate(given)
            momentum = 0.9 if momentum is None else momentum
        else:
            check_left_to_inner(learning_rate=learning_rate, momentum=momentum)
            learning_rate = LearningRateOf(inner)
        if seed is not None:
            seed = check_seed("seed", seed)
        settings = Settings(
            check_choice("estimator", estimator, ESTIMATORS),
            check_fraction("curvature_decay", curvature_decay),
            check_count("max_factor_size", max_factor_size),
            check_choice("sharing", sharing, SHARING),
            check_flag("eigenbasis", eigenbasis),
        )
        if momentum is not None:
            momentum = check_fraction("momentum", momentum)
        if kl_clip is not None:
            kl_clip = check_number("kl_clip", kl_clip, above=0)
        super().__init__(learning_rate, damping, settings, seed, **kwargs)
        self.momentum = momentum
        self.curvature_decay = settings.decay
        self.kl_clip = kl_clip
        self.estimator = settings.estimator
        self.max_factor_size = settings.limit
        self.seed = seed
        self.sharing = settings.sharing
        self.eigenbasis = settings.eigenbasis
        self.where = where
        self.inner = inner
        self.rest = rest
        self._division = division

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the velocities, and the factors if they are known."""
        if self.built:
            return
        check_replicas(self)
        variables = list(variables)
        super().build(variables)
        self._division.build(variables)
        if self.momentum:
            self.velocities = [
                self.add_optimizer_variables([variable], "velocity")[0]
                if self._division.owner_steps(position)
                else None
                for position, variable in enumerate(variables)
            ]
        self._build_blocks()
        self.saved_state.after_build(variables)

    def _build_blocks(self):
        variables = self._trainable_variables
        known = self._curvature.registration
        if known is not None and known.variable_count() > len(variables):
            # Some are frozen now: the rest is registered and measured anew.
            self._curvature.registration = None
        self._curvature.build(variables, self._division.left_out)

    @property
    def optimizers_inside(self) -> list[keras.optimizers.Optimizer]:
        """Those inside: `inner` and `rest`, if they were given."""
        return self._division.optimizers

    @property
    def variables(self) -> list[keras.Variable]:
        """The optimizer's own state and that of those inside."""
        inside = (v for one in self.optimizers_inside for v in one.variables)
        return [*super().variables, *inside]

    @property
    def learning_rate(self):
        """The learning rate now; that of `inner`, if there is one."""
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        if self.inner is None:
            keras.optimizers.Optimizer.learning_rate.fset(self, learning_rate)
        else:
            self.inner.learning_rate = learning_rate

    def stepper(self, position: int) -> keras.optimizers.Optimizer:
        """The optimizer that steps a variable: `inner`, `rest`, or this one.

        Args:
            position: of the variable among those the optimizer was built for.
        """
        return self._division.stepper(position, self)

    def apply(self, grads, trainable_variables=None) -> None:
        """One step; raises if no curvature has been measured."""
        if not self._has_curvature:
            raise ValueError(NO_CURVATURE)
        super().apply(clip_over_replicas(self, grads), trainable_variables)

    # The one place after clipping and accumulation that sees all gradients;
    # there is no public one. `_get_variable_index` goes with it: on
    # TensorFlow variables arrive without a path.
    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        grads = [ops.convert_to_tensor(g, sparse=False) for g in grads]
        replicas = 1
        if self.kl_clip is not None:
            # The clip is not linear: it has to see the sum over replicas.
            grads = autodiff.sum_over_replicas(grads)
            replicas = backend.replica_count()
        positions = [self._get_variable_index(v) for v in trainable_variables]
        by_position = dict(zip(positions, grads, strict=True))
        steps = self._curvature.precondition(by_position, self.damping)
        if self.kl_clip is not None:
            steps = self._curvature.clipped(
                steps, by_position, learning_rate, self.kl_clip
            )
        by_position.update(
            (i, ops.cast(step, by_position[i].dtype))
            for i, step in steps.items()
        )
        if replicas > 1:
            by_position = {i: g / replicas for i, g in by_position.items()}
        variables = dict(zip(positions, trainable_variables, strict=True))
        own = self._division.step(by_position)
        if own:
            super()._backend_update_step(
                [by_position[i] for i in own],
                [variables[i] for i in own],
                learning_rate,
            )

    def update_step(self, gradient, variable, learning_rate) -> None:
        """The heavy-ball step, on the preconditioned gradient."""
        learning_rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        if not self.momentum:
            self.assign_sub(variable, gradient * learning_rate)
            return
        velocity = self.velocities[self._get_variable_index(variable)]
        momentum = ops.cast(self.momentum, variable.dtype)
        step = velocity * momentum - gradient * learning_rate
        self.assign(velocity, step)
        self.assign_add(variable, step)

    def saved_structure(self) -> dict | None:
        """The blocks, without which the factors have no variables."""
        return self._curvature.get_config()

    def restore_structure(self, structure: dict) -> None:
        """Create the factors of a saved optimizer, if there are none."""
        if self._curvature.registration is None:
            self._curvature.set_config(structure)
            self._build_blocks()

    def after_restore(self) -> None:
        """See whether there is a curvature now."""
        state = self._curvature.state
        self._has_curvature = state is not None and state.count_inversions() > 0

    def get_config(self) -> dict:
        """The constructor's arguments and the blocks as plain Python."""
        damping = self._damping
        if not isinstance(damping, LearningRateSchedule):
            damping = self._damping_now()
        config = super().get_config()
        if self.inner is not None:
            config["learning_rate"] = None
        config.update(
            damping=serialize_rate(damping),
            momentum=self.momentum,
            curvature_decay=self.curvature_decay,
            kl_clip=self.kl_clip,
            estimator=self.estimator,
            max_factor_size=self.max_factor_size,
            seed=self.seed,
            sharing=self.sharing,
            eigenbasis=self.eigenbasis,
            **{
                name: keras.saving.serialize_keras_object(getattr(self, name))
                for name in _OBJECTS
            },
            registration=self._curvature.get_config(),
        )
        return config

    @classmethod
    def from_config(cls, config: dict, custom_objects=None) -> "KFAC":
        """The inverse of `get_config`."""
        # Keras replaces entries of the dictionaries it reads.
        config = copy.deepcopy(config)
        registration = config.pop("registration", None)
        config["damping"] = deserialize_rate(config["damping"])
        for name in _OBJECTS:
            config[name] = keras.saving.deserialize_keras_object(
                config.get(name), custom_objects=custom_objects
            )
        optimizer = super().from_config(config, custom_objects)
        optimizer._curvature.set_config(registration)
        return optimizer
