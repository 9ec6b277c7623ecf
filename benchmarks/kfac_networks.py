"""The networks both sides of the K-FAC benchmark train. NumPy alone."""

import numpy as np

# Layers: ("dense", units) or ("conv", filters), 3 x 3 with stride 2.
NETWORKS = {
    "mlp-1024": (512, (784,), [("dense", 1024), ("dense", 1024)]),
    "mlp-256": (128, (784,), [("dense", 256), ("dense", 256)]),
    "cnn": (128, (28, 28, 1), [("conv", 16), ("conv", 32), ("conv", 32)]),
}
CLASSES = 10
LEARNING_RATE = 1e-3
DAMPING = 1e-2
MOMENTUM = 0.9
EMA = 0.95


def batch(
    name: str, size: int | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """One batch of noise: the time does not depend on what is learnt."""
    own, shape, _ = NETWORKS[name]
    size = own if size is None else size
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, *shape)).astype("float32")
    return x, rng.integers(0, CLASSES, size).astype("int32")
