"""What is removed inside of layers that other people wrote.

Units between the layers inside are dead or not as anywhere else. They go where
the configuration of the layer around them says how many there are.
"""

import dataclasses

from keras_wd.graph.channel_analysis import ChannelAnalysis
from keras_wd.graph.channels import AN_INPUT
from keras_wd.graph.followed import Followed
from keras_wd.graph.followed import Whole
from keras_wd.graph.followed import steps_with_layers
from keras_wd.graph.rebuild import Edit
from keras_wd.graph.removal import Removal
from keras_wd.graph.removal import names
from keras_wd.graph.removal import plan_removal
from keras_wd.graph.structure import Step


@dataclasses.dataclass(frozen=True, eq=False)
class Inside:
    """What is removed inside of a layer.

    Attributes:
        step: the first call of the layer.
        removal: what its own layers lose; None if they could not be read.
        smaller: what is different about the layer; None if it stays.
        whole: the same, of the same size, without the units that are taken
            for dead; None if there are none.
        reason: why it stays, if it does.
        entrance: why what it reads has to stay, if its own layers say so.
    """

    step: Step
    removal: Removal | None
    smaller: Edit | None
    whole: Edit | None
    reason: str
    entrance: str = ""

    def left_whole(self) -> "Inside":
        """The same if the model as a whole refutes it."""
        if self.smaller is None:
            return self
        reason = f"the model differs when {self.step.path} is made smaller"
        return dataclasses.replace(
            self, smaller=None, whole=None, reason=reason
        )


def look_inside(analysis: ChannelAnalysis, threshold: float) -> list[Inside]:
    """What can be removed inside of the layers that are read as a whole."""
    return [
        _look_into(analysis.graph, step, threshold)
        for step in steps_with_layers(analysis)
    ]


def _look_into(graph, step, threshold):
    try:
        inner = Followed(graph, step)
        removal = plan_removal(inner.graph, threshold)
    except Exception as error:  # whatever a layer of somebody else raises
        return Inside(step, None, None, None, _said(step, error))
    entrance = _entrance(step, removal)
    if removal.is_empty:
        return Inside(step, removal, None, None, "", entrance)
    try:
        return Inside(step, *inner.shrunk(removal), "", entrance)
    except Exception as error:
        reason = _said(step, error)
        return Inside(step, removal, None, None, reason, entrance)


def _entrance(step, removal):
    """Why the first tensor that a layer reads keeps its channels."""
    labels = removal.analysis.labels_of(removal.analysis.graph.steps[0].outputs)
    reasons = names(labels, removal.reasons)
    if not reasons or reasons[0] == AN_INPUT:
        return ""
    return f"{step.path}/{reasons[0]}"


def _said(step, error):
    if isinstance(error, Whole):
        return str(error)
    said = " ".join(str(error).split())[:100]
    return f"{step.path} could not be followed: {type(error).__name__}: {said}"
