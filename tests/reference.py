"""References in NumPy float64, written from the formulas and not from code.

Symbols: `w` weight after the inner step, `before` weight before it, `s` the
strength of one step (learning rate times rate, or the rate alone), `p` the
exponent. Every function takes arrays or numbers and returns float64.
"""

import numpy as np


def _float64(*values):
    return [np.asarray(value, dtype=np.float64) for value in values]


# One step of a decay, after the step of the optimizer.


def shrink_l2(w, before, s):
    """`w - s * before`."""
    w, before, s = _float64(w, before, s)
    return w - s * before


def soft_threshold(w, s):
    """argmin over x of `s |x| + (x - w)^2 / 2`."""
    w, s = _float64(w, s)
    return np.sign(w) * np.maximum(np.abs(w) - s, 0.0)


def shrink_l1(w, before, s):
    """`soft_threshold(w, s)`: the weights before play no part."""
    return soft_threshold(w, s)


def shrink_lp(w, before, s, p):
    """`w / (1 + s |before|^(p - 2))`, its limit 0 at before = 0 and p < 2."""
    w, before, s = _float64(w, before, s)
    if p >= 2:
        return w / (1.0 + s * np.abs(before) ** (p - 2.0))
    weight = np.abs(before) ** (2.0 - p)
    denominator = weight + s
    safe = np.where(denominator > 0, denominator, 1.0)
    return np.where(denominator > 0, w * weight / safe, w)


def group_norm(w, axis):
    """Euclidean norms over the axes in `axis` (None: all), kept as ones."""
    (w,) = _float64(w)
    return np.sqrt(np.sum(np.square(w), axis=axis, keepdims=True))


def group_soft_threshold(w, s, axis):
    """`w max(0, 1 - s / ||w||)`, the norm over the axes in `axis`."""
    w, s = _float64(w, s)
    norm = group_norm(w, axis)
    safe = np.where(norm > 0, norm, 1.0)
    return w * np.where(norm > s, 1.0 - s / safe, 0.0)


def group_soft_threshold_in_metric(w, s, axis):
    """argmin over v of `||v|| + sum (v - w)^2 / (2 s)`, by bisection.

    With t = ||v|| the stationary point is `v = w t / (t + s)`, so that t
    solves `sum (w / (t + s))^2 = 1`: from |w| - max s up to |w|.
    """
    w, s = _float64(w, s)

    def excess(t):
        return 1 - np.sum(np.square(w / (t + s)), axis=axis, keepdims=True)

    largest = group_norm(w, axis)
    t = _bisect(excess, np.zeros_like(largest), largest)
    zero = np.sum(np.square(w / s), axis=axis, keepdims=True) <= 1
    return np.where(zero, 0.0, w * t / (t + s))


def cautious(shrunk, w, stepped, before):
    """`shrunk` where `(before - stepped) * before >= 0`, w elsewhere."""
    shrunk, w, stepped, before = _float64(shrunk, w, stepped, before)
    grows = (stepped - before) * np.sign(before) > 0
    return np.where(grows, w, shrunk)


def on_rows(changed, others, touched):
    """`changed` in the rows of axis 0 that are touched, `others` elsewhere."""
    touched = np.reshape(touched, [-1] + [1] * (np.ndim(changed) - 1))
    return np.where(touched, changed, others)


def shrink_lp_late(w, before, s, p):
    """pAdam's late variant: the size after the inner step decides."""
    return shrink_lp(w, w, s, p)


def adam_l3_2(w, t):
    """`w + sign(w) (t^2 / 2) (1 - sqrt(1 + 4 |w| / t^2))`, of pAdam's code."""
    w, t = _float64(w, t)
    root = np.sqrt(1 + 4 * np.abs(w) / t**2)
    return w + np.sign(w) * t**2 / 2 * (1 - root)


def toward_norm(w, before, s, target, axis=None):
    """Loshchilov 2023: `w - s (1 - target / ||before||) before`.

    `axis`: the axes that are summed over, None for all.
    """
    w, before, s, target = _float64(w, before, s, target)
    norm = group_norm(before, axis)
    return w - s * (1 - target / norm) * before


class CPR:
    """Franke et al. 2024, algorithm 1 with the mean of the squares.

    `step(w, before, rate)` is what follows the inner step.
    """

    def __init__(self, warmup_steps, bound=1.0):
        self.warmup_steps, self.bound = warmup_steps, bound
        self.steps, self.multiplier, self.kappa = 0, 0.0, None

    def step(self, w, before, rate):
        w, before = _float64(w, before)
        square = np.mean(np.square(before))
        if self.steps == self.warmup_steps:
            self.kappa = self.bound**2 * square
        self.steps += 1
        if self.kappa is None:
            return w
        excess = square - self.kappa
        self.multiplier = max(0.0, self.multiplier + rate * excess)
        return w - 2 * self.multiplier * before


def hyperball(w, before, s, radius=None, axis=None):
    """`R normalize(before + s R normalize(w - before))`."""
    w, before, s = _float64(w, before, s)
    if radius is None:
        radius = group_norm(before, axis)
    step = w - before
    moved = before + s * radius * step / group_norm(step, axis)
    return radius * moved / group_norm(moved, axis)


def radial_brake(w, before, outward, inward, axis=None):
    """`w` scaled to `|before| + kept (|w| - |before|)`."""
    w, before = _float64(w, before)
    old, new = group_norm(before, axis), group_norm(w, axis)
    kept = 1 - np.where(new > old, outward, inward)
    return w / new * (old + kept * (new - old))


# The proximal operator of |w|^p by brute force.


def lp_objective(x, z, s, p):
    """`(s / p) |x|^p + (x - z)^2 / 2`."""
    x, z, s = _float64(x, z, s)
    return s / p * np.abs(x) ** p + np.square(x - z) / 2.0


def _bisect(function, low, high, rounds=400):
    """Root of an increasing function with function(low) <= 0."""
    for _ in range(rounds):
        middle = low + (high - low) / 2.0
        above = function(middle) > 0
        high = np.where(above, middle, high)
        low = np.where(above, low, middle)
    return low + (high - low) / 2.0


def prox_lp_branches(z, s, p):
    """The non-zero local minimiser (0 where there is none) and the winner.

    For z > 0 a stationary point solves `h(x) = x - z + s x^(p - 1) = 0` with
    0 < x <= z. For p > 1 h is increasing. For p < 1 it is convex, falls until
    `x0 = (s (1 - p))^(1 / (2 - p))` and rises after it: the minimiser is the
    root above x0, if there is one, or 0.
    """
    z, s = np.broadcast_arrays(*_float64(z, s))
    size = np.abs(z)
    if p == 1:
        stationary = np.maximum(size - s, 0.0)
        best = stationary
    else:

        def slope(x):
            with np.errstate(divide="ignore", invalid="ignore"):
                # x^(p - 1) is infinite at x = 0 for p < 1.
                force = np.where(s > 0, s * x ** (p - 1.0), 0.0)
            return x - size + force

        if p > 1:
            low = np.zeros_like(size)
            exists = size > 0
        else:
            low = (s * (1.0 - p)) ** (1.0 / (2.0 - p))
            exists = (size > low) & ((s == 0) | (slope(low) <= 0))
        high = np.where(exists, size, low)
        root = _bisect(slope, np.minimum(low, high), high)
        stationary = np.where(exists, np.where(s > 0, root, size), 0.0)
        better = lp_objective(stationary, size, s, p) < np.square(size) / 2.0
        best = np.where(better, stationary, 0.0)
    return np.sign(z) * stationary, np.sign(z) * best


def prox_lp(z, s, p):
    """argmin over x of `(s / p) |x|^p + (x - z)^2 / 2`."""
    return prox_lp_branches(z, s, p)[1]


def prox_lp_jump(s, p):
    """For p < 1: the |z| under which 0 is the minimiser.

    There the stationary point has the objective of 0, so that with
    `x - z + s x^(p - 1) = 0` also `s x^p / p + (x - z)^2 / 2 = z^2 / 2`.
    Eliminating z: `x^(2 - p) = 2 s (1 - p) / p`.
    """
    x = (2.0 * s * (1.0 - p) / p) ** (1.0 / (2.0 - p))
    return x + s * x ** (p - 1.0)


# Penalties at rate one and their gradients.


def l2_penalty(w):
    (w,) = _float64(w)
    return np.sum(np.square(w)) / 2.0


def l1_penalty(w):
    (w,) = _float64(w)
    return np.sum(np.abs(w))


def lp_penalty(w, p):
    (w,) = _float64(w)
    return np.sum(np.abs(w) ** p) / p


def group_penalty(w, axis):
    return np.sum(group_norm(w, axis))


def lp_gradient(w, p):
    """`sign(w) |w|^(p - 1)`, and 0 at w = 0 for every p."""
    (w,) = _float64(w)
    size = np.abs(w)
    safe = np.where(size > 0, size, 1.0)
    return np.where(size > 0, np.sign(w) * safe ** (p - 1.0), 0.0)


def group_gradient(w, axis):
    """`w / ||w||`, and 0 where the norm is 0."""
    (w,) = _float64(w)
    norm = group_norm(w, axis)
    return np.where(norm > 0, w / np.where(norm > 0, norm, 1.0), 0.0)


def finite_difference(function, w, step=1e-6):
    """Gradient of a scalar function by central differences."""
    w = np.array(w, dtype=np.float64)
    gradient = np.zeros_like(w)
    for position in np.ndindex(w.shape):
        ahead, behind = w.copy(), w.copy()
        ahead[position] += step
        behind[position] -= step
        gradient[position] = (function(ahead) - function(behind)) / (2 * step)
    return gradient


# Optimizers as Keras defines them. A step returns the new parameters.


class SGD:
    """`v <- momentum v - lr g; w <- w + v`.

    Nesterov: `w <- w + momentum v - lr g` with the new v.
    """

    def __init__(self, momentum=0.0, nesterov=False):
        self.momentum = momentum
        self.nesterov = nesterov
        self.velocities = None

    def step(self, params, grads, lr):
        params, grads = _float64(*params), _float64(*grads)
        if self.velocities is None:
            self.velocities = [np.zeros_like(w) for w in params]
        self.velocities = [
            self.momentum * v - lr * g
            for v, g in zip(self.velocities, grads, strict=True)
        ]
        if self.nesterov:
            moves = [
                self.momentum * v - lr * g
                for v, g in zip(self.velocities, grads, strict=True)
            ]
        else:
            moves = self.velocities
        return [w + move for w, move in zip(params, moves, strict=True)]


class Adam:
    """Adam with bias correction folded in the rate and epsilon outside it.

    `m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2`,
    `w <- w - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)`.
    """

    def __init__(self, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.steps = 0
        self.first = None
        self.second = None

    def step(self, params, grads, lr):
        params, grads = _float64(*params), _float64(*grads)
        if self.first is None:
            self.first = [np.zeros_like(w) for w in params]
            self.second = [np.zeros_like(w) for w in params]
        self.steps += 1
        scale = np.sqrt(1.0 - self.beta_2**self.steps)
        scale = lr * scale / (1.0 - self.beta_1**self.steps)
        self.first = [
            self.beta_1 * m + (1.0 - self.beta_1) * g
            for m, g in zip(self.first, grads, strict=True)
        ]
        self.second = [
            self.beta_2 * v + (1.0 - self.beta_2) * np.square(g)
            for v, g in zip(self.second, grads, strict=True)
        ]
        return [
            w - scale * m / (np.sqrt(v) + self.epsilon)
            for w, m, v in zip(params, self.first, self.second, strict=True)
        ]


class ExponentialAverage:
    """`a <- momentum a + (1 - momentum) w`; the first update copies w."""

    def __init__(self, momentum=0.99):
        self.momentum = momentum
        self.average = None

    def update(self, params):
        params = _float64(*params)
        if self.average is None:
            self.average = [w.copy() for w in params]
        else:
            self.average = [
                self.momentum * a + (1.0 - self.momentum) * w
                for a, w in zip(self.average, params, strict=True)
            ]
        return self.average


def decoupled_step(inner, params, grads, lr, shrink, s, selected=None):
    """Inner step, then `shrink(w, before, s)` on the selected positions.

    `s` is `lr * rate` for a decoupled decay and `rate` for an independent one.
    """
    moved = inner.step(params, grads, lr)
    return [
        shrink(w, before, s) if selected is None or i in selected else w
        for i, (w, before) in enumerate(zip(moved, params, strict=True))
    ]


def coupled_step(inner, params, grads, lr, gradient, rate, selected=None):
    """Inner step along `grad + rate * gradient(w)`."""
    params, grads = _float64(*params), _float64(*grads)
    total = [
        g + rate * gradient(w) if selected is None or i in selected else g
        for i, (w, g) in enumerate(zip(params, grads, strict=True))
    ]
    return inner.step(params, total, lr)


# Constraints.


def fixed_norm(w, axis, radius=1.0):
    """Nearest point with norm `radius` over `axis`; a zero unit stays."""
    (w,) = _float64(w)
    norm = group_norm(w, axis)
    return np.where(norm > 0, radius * w / np.where(norm > 0, norm, 1.0), w)


# Rates over the steps (numbers or arrays of steps and learning rates).


def constant_timescale_rate(lr, timescale):
    """Wang & Aitchison 2024: `1 / (lr * timescale)`, timescale in steps."""
    lr, timescale = _float64(lr, timescale)
    return 1.0 / (lr * timescale)


def corrected_rate(lr, peak_lr, weight_decay):
    """Defazio 2025: a step decays by `lr^2 / peak_lr * weight_decay`.

    As the strength is `lr * rate`, the rate is `weight_decay * lr / peak_lr`.
    """
    lr, peak_lr = _float64(lr, peak_lr)
    return weight_decay * lr / peak_lr


def warmup_rate(step, weight_decay, warmup_steps, start=0.0):
    """A straight line from `start` at step 0, then constant."""
    (step,) = _float64(step)
    share = np.minimum(step / warmup_steps, 1.0)
    return start + (weight_decay - start) * share


def stepwise_rate(step, boundaries, values):
    """`values[i]` with i the number of boundaries that are <= step."""
    step = np.asarray(step)
    reached = np.sum(step[..., None] >= np.asarray(boundaries), axis=-1)
    return np.asarray(values, dtype=np.float64)[reached]


# Conventions of a decay, each as the share of w taken by one plain step.


def step_share(value, convention, lr, p=2.0, w=1.0):
    """What one SGD step takes from a weight `w` under a convention.

    keras, pytorch: `lr * value * w`; addons and the AdamW paper: `value * w`;
    keras regularizers.L2, `value * w^2` in the loss: `lr * 2 * value * w`;
    pAdam code, `value * |w|^p`: `lr * p * value * |w|^(p - 1)`.
    """
    return {
        "keras": lr * value * w,
        "pytorch": lr * value * w,
        "addons": value * w,
        "l2_regularizer": lr * 2.0 * value * w,
        "padam": lr * p * value * w ** (p - 1.0),
    }[convention]


def ulp_distance(a, b):
    """Largest distance of two float32 arrays in units in the last place."""
    a = np.asarray(a, dtype=np.float32)
    b = np.asarray(b, dtype=np.float32)
    spacing = np.spacing(np.maximum(np.abs(a), np.abs(b)))
    return float(np.max(np.abs(a.astype(np.float64) - b) / spacing, initial=0))
