"""The flags of a weight decay and of K-FAC."""

from keras_wd.cli.option import Needs
from keras_wd.cli.option import Option
from keras_wd.cli.option import none_of
from keras_wd.cli.option import one_of


def _is_kfac(optimizer):
    return optimizer.lower() == "kfac"


WITH_P = Needs(
    "decay", one_of("lp", "proximal_lp"), "--decay=lp or proximal_lp"
)
L2 = Needs("decay", one_of("l2"), "--decay=l2")
LP = Needs("decay", one_of("lp"), "--decay=lp")
CAUTIOUS = Needs("decay", one_of("l2", "l1", "lp"), "--decay=l2, l1 or lp")
OF_ROWS = Needs(
    "decay",
    one_of("l2", "l1", "lp", "proximal_lp"),
    "--decay=l2, l1, lp or proximal_lp",
)
ANCHORED = Needs(
    "decay",
    one_of("l2", "l1", "group_lasso"),
    "--decay=l2, l1 or group_lasso",
)
PROXIMAL = Needs(
    "decay",
    one_of("l1", "proximal_lp", "group_lasso"),
    "--decay=l1, proximal_lp or group_lasso",
)
CPR = Needs("decay", one_of("cpr"), "--decay=cpr")
DECAYING = Needs("decay", none_of("none"), "a decay")
SELECTING = Needs(
    "decay", none_of("none", "path_norm"), "a decay other than path_norm"
)
WARMUP_HOLD = Needs(
    "decay_schedule", one_of("warmup_hold"), "--decay_schedule=warmup_hold"
)
STEPWISE = Needs(
    "decay_schedule", one_of("stepwise"), "--decay_schedule=stepwise"
)
KFAC = Needs("optimizer", _is_kfac, "--optimizer=kfac")

METHODS = (
    Option(
        "decay",
        "Weight decay",
        str,
        "lp",
        "The rule that shrinks weights: none, l2 (classic weight "
        "decay), l1, lp and proximal_lp (p-norm decay), group_lasso "
        "(whole units), norm_control (norms held where they start), cpr "
        "(norms bounded at those after a warm-up; takes "
        "--coupling=independent), hyperball and radial_brake (research; "
        "the latter takes --coupling=independent), path_norm (PathProx: "
        "on pairs of layers, coupled l2 on the rest).",
        choices=(
            "none",
            "l2",
            "l1",
            "lp",
            "proximal_lp",
            "group_lasso",
            "norm_control",
            "cpr",
            "hyperball",
            "radial_brake",
            "path_norm",
        ),
    ),
    Option(
        "weight_decay",
        "Weight decay",
        float,
        None,
        "Rate of the decay. A decoupled l2 step takes learning rate x "
        "rate off every weight, as a fraction. Default: 0.1, or 0.001 "
        "for sgd and momentum.",
        least=0,
        needs=DECAYING,
    ),
    Option(
        "decay_schedule",
        "Weight decay",
        str,
        "constant",
        "Schedule of the rate: constant, constant_timescale (same "
        "shrinkage at any learning rate), proportional (to the learning "
        "rate), warmup_hold (rises, then stays), stepwise "
        "(--decay_factors), auto_l2 (divided by 10 when training "
        "stalls).",
        choices=(
            "constant",
            "constant_timescale",
            "proportional",
            "warmup_hold",
            "stepwise",
            "auto_l2",
        ),
        needs=DECAYING,
    ),
    Option(
        "decay_warmup_epochs",
        "Weight decay",
        float,
        5.0,
        ("Epochs over which --decay_schedule=warmup_hold rises from zero."),
        least=0,
        needs=WARMUP_HOLD,
    ),
    Option(
        "decay_factors",
        "Weight decay",
        str,
        "1,0.1,0.01",
        "For --decay_schedule=stepwise: the rate is multiplied by each "
        "in turn, for equal parts of the run.",
        needs=STEPWISE,
    ),
    Option(
        "cpr_warmup_epochs",
        "Weight decay",
        float,
        1.0,
        "Epochs after which --decay=cpr takes the norms as bounds.",
        least=0,
        needs=CPR,
    ),
    Option(
        "p",
        "Weight decay",
        float,
        0.8,
        "Exponent of the norm in lp and proximal_lp, above 0. Below 1 "
        "most weights vanish; 2 is close to l2.",
        needs=WITH_P,
    ),
    Option(
        "coupling",
        "Weight decay",
        str,
        "decoupled",
        "How the decay depends on the learning rate: decoupled "
        "(multiplied by it, as in AdamW of Keras), independent (not "
        "multiplied), coupled (a penalty in the gradient).",
        choices=("decoupled", "independent", "coupled"),
        needs=DECAYING,
    ),
    Option(
        "where",
        "Weight decay",
        str,
        "kernels",
        "Which weights decay: kernels (no biases), everything, "
        "embeddings, attention, normalizations, tokens, or globs on "
        "their paths such as 'hidden_*/kernel', separated by commas; a "
        "leading ~ leaves out.",
        needs=SELECTING,
    ),
    Option(
        "cautious",
        "Weight decay",
        bool,
        False,
        "Decay a weight only where the step does not make it larger.",
        needs=CAUTIOUS,
    ),
    Option(
        "touched_rows",
        "Weight decay",
        bool,
        False,
        "Decay only the rows that a batch has gradients for: the tokens of an "
        "embedding table (--where=embeddings).",
        needs=OF_ROWS,
    ),
    Option(
        "anchor",
        "Weight decay",
        str,
        None,
        "What the weights decay toward in place of zero: start (where this "
        "run starts), or the path of a .keras file with the same layers.",
        needs=ANCHORED,
    ),
    Option(
        "metric",
        "Weight decay",
        str,
        None,
        "optimizer: the proximal step measures distances as Adam, Nadam, "
        "Adamax, RMSprop or Adagrad does, and ends where the penalty has its "
        "minimum.",
        choices=("optimizer",),
        needs=PROXIMAL,
    ),
    Option(
        "late",
        "Weight decay",
        bool,
        False,
        "For --decay=lp: the strength goes by the weights after the step.",
        needs=LP,
    ),
    Option(
        "layerwise",
        "Weight decay",
        bool,
        False,
        "For --decay=l2: a factor for every layer, moved until all turn by "
        "the same angle per step.",
        needs=L2,
    ),
    Option(
        "damping",
        "K-FAC",
        float,
        0.03,
        "For --optimizer=kfac: what is added to the curvature before it "
        "is inverted.",
        least=0,
        needs=KFAC,
    ),
    Option(
        "kl_clip",
        "K-FAC",
        float,
        1e-4,
        "For --optimizer=kfac: steps are shortened to this bound on "
        "what they change in the predictions; 0 for no bound.",
        least=0,
        needs=KFAC,
    ),
    Option(
        "estimator",
        "K-FAC",
        str,
        "fisher",
        "For --optimizer=kfac, the curvature: fisher (labels drawn from "
        "the predictions), gauss_newton (of the outputs alone), their "
        "exact forms with one backward pass per class, or empirical "
        "(the true labels).",
        choices=(
            "fisher",
            "fisher_exact",
            "gauss_newton",
            "gauss_newton_exact",
            "empirical",
        ),
        needs=KFAC,
    ),
    Option(
        "curvature_every",
        "K-FAC",
        int,
        10,
        ("For --optimizer=kfac: steps between two measurements of curvature."),
        least=1,
        needs=KFAC,
    ),
    Option(
        "invert_every",
        "K-FAC",
        int,
        50,
        "For --optimizer=kfac: steps between two inversions.",
        least=1,
        needs=KFAC,
    ),
)
