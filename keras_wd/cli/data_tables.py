"""Tables in CSV files, of which only the rows that are needed are read."""

import array
import csv
import io
import itertools
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from keras_wd.cli.streams import Stream
from keras_wd.cli.usage_errors import UsageError
from keras_wd.cli.usage_errors import first_line
from keras_wd.errors import did_you_mean

MOST_WORDS = 10_000  # in a column, each of which is an input of the network
_CHUNK = 1024  # rows
# What tables have in place of a number that is not known, in small letters.
_NO_NUMBERS = {
    *("na", "n/a", "#n/a", "<na>", "null", "none", "nil", "missing", "unknown"),
    *("?", "-", "--", ".", "#value!", "#div/0!"),
}


def read(name: str, target: str | None) -> tuple[Stream, np.ndarray]:
    """The rows of a table as numbers or texts, and the column to predict.

    The file is read twice, some rows at a time. In memory are then the
    targets and where each row begins. A column of numbers is an input; one of
    words is an input for each word, in their order; a single one of sentences
    is a text.

    Args:
        name: of the file, in UTF-8, with a header.
        target: the column to predict.

    Raises:
        UsageError: if it is not such a file or has no such column.
    """
    try:
        return _read(name, target)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--dataset={name} must be in UTF-8, as which a spreadsheet can "
            f"save it: {first_line(error)}"
        ) from error
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(
            f"--dataset={name} cannot be read as CSV: {first_line(error)}"
        ) from error


def _read(name, target):
    _, header = next(_rows(name), (0, None))
    if header is None:
        raise UsageError(f"--dataset={name} has no header")
    if target not in header:
        hint = did_you_mean(target, header) if target else ""
        raise UsageError(
            f"--target must be a column of {name}: {', '.join(header)}. "
            f"Received: --target={target}{hint}"
        )
    twice = {column for column in header if header.count(column) > 1}
    if twice:
        raise UsageError(
            f"--dataset={name} must have columns of different names. Received "
            f"more than once: {', '.join(sorted(twice))}"
        )
    places = {column: place for place, column in enumerate(header)}
    predicted = places.pop(target)
    if not places:
        raise UsageError(f"--dataset={name} has no column besides --target")
    inputs = list(places.values())
    starts, are_words, is_prose = _scanned(name, header, inputs)
    targets, words = _gathered(
        name, header, predicted, [] if is_prose else inputs, are_words
    )
    if is_prose:
        shape, dtype = (), object

        def encode(columns):
            return np.array(columns[inputs[0]], object)

    else:
        encode = _Encoder(inputs, words)
        shape, dtype = (encode.width,), "float32"

    def rows(at):
        found = np.empty((len(at), *shape), dtype)
        # Fields take many times the memory of what they say.
        for start in range(0, len(at), _CHUNK):
            some = slice(start, start + _CHUNK)
            found[some] = encode(_columns(_fields(name, starts, at[some])))
        return found

    return Stream(rows, len(targets), shape, dtype), targets


def _rows(name: str) -> Iterator[tuple[int, list[str]]]:
    """Where each row that is not empty begins, in bytes, and its fields."""
    place = 0

    def lines():
        nonlocal place
        with open(name, newline="", encoding="utf-8") as file:
            for line in file:
                place += len(line.encode())
                yield line.removeprefix("\ufeff")

    start = 0
    for row in csv.reader(lines(), strict=True):
        if row:
            yield start, row
        start = place


def _fields(
    name: str, starts: Sequence[int], at: np.ndarray
) -> list[list[str]]:
    """The fields of some rows."""
    texts = []
    with open(name, "rb") as file:
        for row in at.tolist():
            file.seek(starts[row])
            text = file.read(starts[row + 1] - starts[row])
            texts.append(text.rstrip(b"\r\n") + b"\n")
    whole = io.StringIO(b"".join(texts).decode(), newline="")
    return [row for row in csv.reader(whole) if row]


def _chunks(name):
    """Where rows begin, and their columns, some rows at a time."""
    rows = _rows(name)
    next(rows)
    while chunk := list(itertools.islice(rows, _CHUNK)):
        starts, fields = zip(*chunk, strict=True)
        yield starts, fields


def _columns(rows):
    return list(zip(*rows, strict=True))


def _scanned(name, header, inputs):
    """Where rows begin, which columns have words, and whether in sentences.

    Raises:
        UsageError: if a row is not complete, or there is none.
    """
    starts = array.array("q")
    are_words = set()
    sentences, kinds = 0, array.array("q")
    for places, rows in _chunks(name):
        for line, row in enumerate(rows, 2 + len(starts)):
            if len(row) != len(header) or "" in row:
                what = "an empty field" if "" in row else f"{len(row)} fields"
                raise UsageError(
                    f"--dataset={name} must have {len(header)} fields in each "
                    f"row. Received: {what} in row {line}"
                )
        starts.extend(places)
        columns = _columns(rows)
        for place in set(range(len(header))) - are_words:
            if not _are_numbers(columns[place]):
                _refuse_a_gap(name, header[place], columns[place], len(starts))
                are_words.add(place)
        if len(inputs) == 1:
            texts = columns[inputs[0]]
            sentences += sum(" " in text.strip() for text in texts)
            kinds.extend(map(hash, texts))
    if not starts:
        raise UsageError(f"--dataset={name} has no rows below its header")
    count = len(starts)
    with open(name, "rb") as file:
        starts.append(file.seek(0, 2))
    # Nearly all differ, and are of several words.
    is_prose = (
        len(inputs) == 1
        and inputs[0] in are_words
        and sentences > 0.5 * count
        and len(np.unique(np.asarray(kinds))) > 0.5 * count
    )
    return starts, are_words, is_prose


def _are_numbers(texts):
    try:
        list(map(float, texts))
    except ValueError:
        return False
    return True


def _refuse_a_gap(name, column, texts, count):
    """Refuse numbers with a mark for no number among them.

    With other words among them, numbers are words too.

    Args:
        name: of the file.
        column: its name.
        texts: the first ones of it that are not all numbers.
        count: of the rows up to their end.
    """
    words = [row for row, text in enumerate(texts) if not _are_numbers([text])]
    marks = {texts[row].strip().lower() for row in words}
    if marks <= _NO_NUMBERS and len(words) < count:
        raise UsageError(
            f"--dataset={name} must have a number in each row of {column}. "
            f"Received: {texts[words[0]]!r} in row "
            f"{count - len(texts) + words[0] + 2}. Fill it in, or leave out "
            "the row"
        )


def _gathered(name, header, predicted, inputs, are_words):
    """The column to predict, and the words of each input that has words.

    Raises:
        UsageError: if a column has too many words.
    """
    is_number = predicted not in are_words
    numbers, texts = array.array("d"), []
    once: dict[str, str] = {}
    words: dict[int, set[str]] = {p: set() for p in inputs if p in are_words}
    for _, rows in _chunks(name):
        columns = _columns(rows)
        column = columns[predicted]
        if is_number:
            numbers.extend(map(float, column))
        else:
            texts.extend(once.setdefault(text, text) for text in column)
        for place, found in words.items():
            found.update(columns[place])
            if len(found) > MOST_WORDS:
                raise UsageError(
                    f"--dataset={name} must have at most {MOST_WORDS} "
                    "different words in a column, each of which is an input "
                    f"of the network. Received: more in {header[place]}"
                )
    targets = np.asarray(numbers) if is_number else np.array(texts, object)
    return targets, {place: sorted(found) for place, found in words.items()}


class _Encoder:
    """Columns of fields as rows of numbers."""

    def __init__(self, places, words):
        self._places = list(places)
        self._words = {
            place: {word: number for number, word in enumerate(found)}
            for place, found in words.items()
        }
        self.width = (
            len(self._places)
            - len(self._words)
            + sum(map(len, self._words.values()))
        )

    def __call__(self, columns):
        rows = np.zeros((len(columns[0]), self.width), "float32")
        at = 0
        for place in self._places:
            words = self._words.get(place)
            if words is None:
                with np.errstate(over="ignore"):  # refused as infinite
                    rows[:, at] = list(map(float, columns[place]))
                at += 1
            else:
                numbers = [words[word] for word in columns[place]]
                rows[np.arange(len(rows)), at + np.array(numbers)] = 1
                at += len(words)
        return rows
