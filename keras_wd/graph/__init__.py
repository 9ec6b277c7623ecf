"""What the structure of a model says: units, and how to make it smaller."""

from keras_wd.graph.compaction import compact
from keras_wd.graph.explanation import explain
from keras_wd.graph.pairs import homogeneous_units

__all__ = ["compact", "explain", "homogeneous_units"]
