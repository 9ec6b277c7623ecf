"""What compaction did to a model."""

import dataclasses

from keras_wd.graph.litert import LiteRT
from keras_wd.graph.sizes import Sizes
from keras_wd.tables import table


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """What became of a layer.

    Attributes:
        layer: its name, with the nested models before it.
        kind: its class.
        units_before: its units; None for a layer that is not understood.
        units_after: its units in the new model.
        note: why it was left whole or what else changed; "" for nothing.
    """

    layer: str
    kind: str
    units_before: int | None
    units_after: int | None
    note: str


@dataclasses.dataclass(frozen=True)
class Report:
    """A model before and after compaction; `str` makes two tables.

    Attributes:
        layers: the layers with units, and those left whole, in order.
        before: sizes of the model that was given, without an optimizer.
        after: sizes of the new one.
        batch_size: examples in the batch that was timed; None if none was.
        milliseconds_before: median time to predict it on this machine; None
            if the size of an input is not fixed and no batch was given.
        milliseconds_after: the same for the new model.
        not_counted: layers that the multiply-adds leave out.
        litert_before: the `LiteRT` size and time of the given model; None
            unless that was asked for.
        litert_after: those of the new one.
        unreadable: the layers for which a `.keras` file of the new one cannot
            be loaded, and why.
    """

    layers: tuple[LayerReport, ...]
    before: Sizes
    after: Sizes
    batch_size: int | None
    milliseconds_before: float | None
    milliseconds_after: float | None
    not_counted: tuple[str, ...]
    litert_before: LiteRT | None = None
    litert_after: LiteRT | None = None
    unreadable: tuple[str, ...] = ()

    def __str__(self) -> str:
        units = table(
            ("layer", "kind", "units", "left", "note"),
            [
                (
                    row.layer,
                    row.kind,
                    _count(row.units_before),
                    _count(row.units_after),
                    row.note,
                )
                for row in self.layers
            ],
        )
        sizes = table(("", "before", "after", "ratio"), self._size_rows())
        lines = [units, "", sizes, ""]
        if self.not_counted:
            lines.append(
                "multiply-adds leave out: " + ", ".join(self.not_counted)
            )
        for layer in self.unreadable:
            lines.append(
                f"No .keras file of the new model can be loaded. {layer}. "
                "Keep its weights (`save_weights`) or export it."
            )
        lines.append(
            "Zeros that stay inside a layer make neither it nor its file "
            "faster or smaller; CSR and gzip show what storing the weights "
            "as sparse rows or compressed would save."
        )
        return "\n".join(lines)

    def _size_rows(self):
        names = {
            "units": "units",
            "parameters": "parameters",
            "multiply_adds": "multiply-adds",
            "file_bytes": "file, bytes",
            "dense_bytes": "weights, bytes",
            "csr_bytes": "sparse size, CSR, bytes",
            "gzip_bytes": "sparse size, gzip, bytes",
        }
        rows = [
            (label, getattr(self.before, name), getattr(self.after, name))
            for name, label in names.items()
        ]
        rows = [
            (label, _count(a), _count(b), _ratio(a, b)) for label, a, b in rows
        ]
        a, b = self.milliseconds_before, self.milliseconds_after
        label = f"batch of {_count(self.batch_size)}, ms"
        rows.append((label, _time(a), _time(b), _ratio(a, b)))
        if self.litert_before is not None and self.litert_after is not None:
            served = self.litert_before, self.litert_after
            a, b = (one.file_bytes for one in served)
            rows.append(
                ("LiteRT file, bytes", _count(a), _count(b), _ratio(a, b))
            )
            a, b = (one.milliseconds for one in served)
            label = f"LiteRT, {label}"
            rows.append((label, _time(a), _time(b), _ratio(a, b)))
        return rows


def _count(number):
    return "-" if number is None else f"{number:,}"


def _time(number):
    return "-" if number is None else f"{number:.2f}"


def _ratio(before, after):
    if before is None or not after:  # no layer of the model is counted
        return "-"
    return f"{before / after:.2f}x"
