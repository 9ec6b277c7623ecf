"""What the measured laws share: verdicts, and the page they are written to."""

import re

import numpy as np
from markdown_tables import table
from scipy import stats

INTRODUCTION = """\
# Laws, measured

What papers on weight decay state, as numbers that can be measured, and what
was measured here. Each table is written by the command above it, which says in
its docstring how every number is found; the verdict is computed from the
numbers, and nothing is left out because it came out wrong.

`+-` is the standard error over seeds. With it, a law *holds* if the 95 %
interval (Student's t) of the mean is inside what is expected, is
*contradicted* if the interval is outside, and is *not resolved* if the
interval crosses a bound. Without it the number has no noise that seeds
would show, and is compared with the bound itself.

Laws that are exact are tests: what leaves normalised weights alone
(`tests/test_laws.py`), the Gauss-Newton norm of weights and Jacobians
(`tests/metrics/test_gauss_newton.py`), scale and damping under K-FAC, and that
coupled and decoupled decay differ there (`tests/kfac/test_laws.py`,
`tests/optimizers/test_kfac.py`), when AutoL2 acts
(`tests/callbacks/test_auto_l2.py`).
"""
COLUMNS = ("law", "source", "expected", "measured", "verdict")


def summary(values, form, plus=""):
    error = stats.sem(values)
    return f"{np.mean(values):{plus}{form}} +-{error:{form}}"


def verdict(values, low=-np.inf, high=np.inf):
    """Whether the mean is inside the bounds, by its 95 % interval."""
    values = np.atleast_1d(values)
    mean, reach = np.mean(values), 0.0
    if len(values) > 1:
        reach = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    if low < mean - reach and mean + reach < high:
        return "holds"
    if mean + reach < low or high < mean - reach:
        return "contradicted"
    return "not resolved"


def write(path, title, command, about, rows):
    """Put a section into the page, in place of the one with this title."""
    try:
        page = path.read_text("utf-8")
    except FileNotFoundError:
        page = ""
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", page, re.M))
    body = f"\n```sh\n{command}\n```\n\n{about}\n\n{table(COLUMNS, rows)}"
    sections[title] = body
    parts = [
        f"## {name}\n\n{text.strip()}\n" for name, text in sections.items()
    ]
    path.write_text("\n".join([INTRODUCTION, *parts]), "utf-8")
