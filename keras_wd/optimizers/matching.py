"""Which variables of a file are which variables of a model."""

import re
from collections.abc import Sequence

_COUNTER = re.compile(r"(?:_(\d+))?$")


class SlotNames:
    """How the variables of an optimizer are called in a file.

    Keras names a slot after the path of its variable, with underscores in
    place of slashes; the longest path that fits is that of the owner.

    Args:
        variables: the optimizer's.
        model: the trainable variables it was built with.

    Attributes:
        model: `[path, shape]` of each variable of the model.
        entries: `[key, owner, name, count, shape]` of each variable of the
            optimizer: a distinct readable key; the position of the variable
            of the model, or None; the name after the owner's; how many
            before have the same owner and name.
    """

    def __init__(self, variables: Sequence, model: Sequence):
        paths = [path_of(variable) for variable in model]
        self.model = [
            [path, _shape(variable)]
            for path, variable in zip(paths, model, strict=True)
        ]
        prefixes = {
            re.sub("[/:]", "_", path) + "_": index
            for index, path in enumerate(paths)
        }
        ordered = sorted(prefixes, key=len, reverse=True)
        shown = shown_paths(paths)
        seen, keys = {}, set()
        self.entries = []
        for variable in variables:
            owner, name = None, variable.name
            for prefix in ordered:
                if name.startswith(prefix):
                    owner, name = prefixes[prefix], name[len(prefix) :]
                    break
            count = seen.get((owner, name), 0)
            seen[owner, name] = count + 1
            place = "" if owner is None else f"{shown[owner]}/"
            key = plain = f"{place}{name}".replace("/", ".")
            while key in keys:
                count_of_key = int(key[len(plain) + 1 :] or 0) + 1
                key = f"{plain}#{count_of_key}"
            keys.add(key)
            self.entries.append([key, owner, name, count, _shape(variable)])


def path_of(variable) -> str:
    """A variable's path; its name if it is not one of Keras."""
    return getattr(variable, "path", None) or variable.name


def shown_paths(paths: Sequence[str]) -> list[str]:
    """Paths without the model's name, where all begin with it."""
    described = [(path, ()) for path in paths]
    count = max(_droppable(described)) if paths else 0
    return ["/".join(path.split("/")[count:]) for path in paths]


def match(saved: Sequence, current: Sequence) -> list[int] | None:
    """The position in the file of each variable of the model.

    The variables of a file may be more than those of the model, some of which
    may be frozen now. Names that Keras has counted on, `dense_3` for `dense`,
    are the same where all of them are and their order is.

    Args:
        saved: path and shape of each variable in the file.
        current: path and shape of each variable now.

    Returns:
        The positions, increasing; None if the variables are others.
    """
    for drop_saved in _droppable(saved):
        for drop_current in _droppable(current):
            there = _dropped(saved, drop_saved)
            here = _dropped(current, drop_current)
            found = _by_name(there, here)
            if found is not None:
                return found
    for drop_saved in _droppable(saved):
        for drop_current in _droppable(current):
            there = _dropped(saved, drop_saved)
            here = _dropped(current, drop_current)
            if _by_number(there, here):
                return list(range(len(here)))
    return None


def difference(saved: Sequence, current: Sequence) -> str:
    """How two lists of names and shapes differ, for people.

    Args:
        saved: name and shape of each variable in the file.
        current: name and shape of each variable now.
    """
    saved_shapes, current_shapes = (
        {name: tuple(shape) for name, shape in described}
        for described in (saved, current)
    )
    missing = [name for name in current_shapes if name not in saved_shapes]
    surplus = [name for name in saved_shapes if name not in current_shapes]
    sentences = [
        f"{name} has shape {saved_shapes[name]} in the file and "
        f"{current_shapes[name]} here"
        for name in current_shapes
        if name in saved_shapes and saved_shapes[name] != current_shapes[name]
    ]
    if missing:
        sentences.append(f"the file lacks {', '.join(missing)}")
    if surplus:
        sentences.append(f"the file has {', '.join(surplus)} besides")
    return "; ".join(sentences) or "the variables are in another order"


def _shape(variable):
    return [int(size) for size in variable.shape]


def _droppable(described):
    """How many leading parts may be the model's name: none, or one.

    A Sequential model has its name in the paths of its variables until it is
    loaded from a file.
    """
    parts = [path.split("/") for path, _ in described]
    named = (
        len({part[0] for part in parts}) == 1
        and min(len(part) for part in parts) > 2
    )
    return (0, 1) if named else (0,)


def _dropped(described, count):
    return [
        (tuple(path.split("/")[count:]), tuple(shape))
        for path, shape in described
    ]


def _by_name(saved, current):
    """Positions of the very names and shapes, in the order they come in."""
    positions, start = [], 0
    for described in current:
        try:
            start = saved.index(described, start) + 1
        except ValueError:
            return None
        positions.append(start - 1)
    return positions


def _by_number(saved, current):
    """Whether all agree but for numbers, which grow on both sides alike."""
    if [shape for _, shape in saved] != [shape for _, shape in current]:
        return False
    numbers = {}
    for (there, _), (here, _) in zip(saved, current, strict=True):
        if len(there) != len(here):
            return False
        for one, other in zip(there, here, strict=True):
            base, number = _counted(one)
            other_base, other_number = _counted(other)
            if base != other_base:
                return False
            known = numbers.setdefault(base, {})
            if known.setdefault(number, other_number) != other_number:
                return False
    return all(
        _grows([known[number] for number in sorted(known)])
        for known in numbers.values()
    )


def _counted(segment):
    """`("dense", 3)` of `dense_3`, `("dense", 0)` of `dense`."""
    found = _COUNTER.search(segment)
    return segment[: found.start()], int(found.group(1) or 0)


def _grows(numbers):
    return all(a < b for a, b in zip(numbers, numbers[1:], strict=False))
