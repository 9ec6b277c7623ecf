"""What the structure of a model says: units, invariance, smaller models."""

from keras_wd.graph.compaction import compact
from keras_wd.graph.explanation import explain
from keras_wd.graph.invariance import scale_invariant
from keras_wd.graph.pairs import homogeneous_units
from keras_wd.graph.pruning import prune
from keras_wd.graph.sizes import sizes_of as sizes

__all__ = [
    "compact",
    "explain",
    "homogeneous_units",
    "prune",
    "scale_invariant",
    "sizes",
]
