"""PathProx in NumPy float64, unit by unit, from the formulas.

Units of a pair: `w[..., i]` and the rows `(p * units + i) * channels + c` of
the next-to-last axis of v. Plain loops, on purpose.
"""

import numpy as np


def input_norms(w):
    w = np.asarray(w, "float64")
    return np.array(
        [np.linalg.norm(w[..., i].ravel()) for i in range(w.shape[-1])]
    )


def unit_rows(unit, units, positions=1, channels=1):
    """The rows of the output kernel that belong to a unit."""
    return [
        (p * units + unit) * channels + c
        for p in range(positions)
        for c in range(channels)
    ]


def output_norms(v, units, positions=1, channels=1):
    v = np.asarray(v, "float64")
    return np.array(
        [
            np.linalg.norm(
                v[..., unit_rows(i, units, positions, channels), :].ravel()
            )
            for i in range(units)
        ]
    )


def scaled_outputs(v, factors, positions=1, channels=1):
    v = np.array(v, "float64")
    units = len(factors)
    for i, factor in enumerate(factors):
        v[..., unit_rows(i, units, positions, channels), :] *= factor
    return v


def path_norm(w, v):
    return float(np.sum(input_norms(w) * output_norms(v, w.shape[-1])))


def step(pairs, strength, balance=True, absorb=False):
    """One PathProx step after the inner step, on a row of dense pairs.

    Args:
        pairs: dictionaries of arrays `w`, `b`, `v`, `c` (the bias after v).
    """
    pairs = [
        {name: np.array(value, "float64") for name, value in pair.items()}
        for pair in pairs
    ]
    if balance:
        norms = [path_norm(pair["w"], pair["v"]) for pair in pairs]
        mean = np.exp(np.mean(np.log(norms)))
        running = 1.0
        for pair, norm in zip(pairs, norms, strict=True):
            pair["b"] *= running
            pair["v"] *= mean / norm
            running *= mean / norm
            pair["c"] *= running
    for pair in pairs:
        for i in range(pair["w"].shape[1]):
            length = np.linalg.norm(pair["w"][:, i])
            pair["w"][:, i] /= length
            pair["b"][i] /= length
            if absorb:
                pair["v"][i] *= length
            outgoing = np.linalg.norm(pair["v"][i])
            pair["v"][i] *= max(0.0, 1 - strength / outgoing)
    return pairs
