"""What papers on weight decay state, measured on digits.

    python -m benchmarks laws [names ...] [--seeds 4] [--write docs/laws.md]

Without names all of them. Prints a table for each: the law, where it is
stated, what is expected, what was measured with its standard error over the
seeds, and whether the law holds; `--write` puts the tables into the page.
What is measured and how is in the functions of these names, in the modules
`laws_of_*`. `kfac_laws.py` measures those of K-FAC.
"""

import argparse
import inspect
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Where steps this small take a quarter of the time.
os.environ.setdefault("KERAS_BACKEND", "jax")

import laws_of_equilibrium
import laws_of_scale
import laws_of_time
import laws_of_width
from laws_page import COLUMNS
from laws_page import write

LAWS = {
    "transfer": ("Norm transfer", laws_of_scale.transfer),
    "damping": ("Effective damping", laws_of_scale.damping),
    "equilibrium": ("Equilibrium", laws_of_equilibrium.noise),
    "slopes": (
        "Equilibrium of a network in training",
        laws_of_equilibrium.slopes,
    ),
    "sphere": ("Training on the sphere", laws_of_equilibrium.sphere),
    "peak": ("The best step", laws_of_time.peak),
    "budget": ("The best decay for a budget", laws_of_time.budget),
    "plateau": ("Small decays", laws_of_time.plateau),
    "kernel": ("Wide networks: the kernel", laws_of_width.kernel),
    "function": ("Wide networks: the function", laws_of_width.function),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(LAWS)}")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--write", type=pathlib.Path)
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(LAWS)
    if unknown:
        parser.error(
            f"names must be of {', '.join(LAWS)}. Received: "
            f"{', '.join(sorted(unknown))}"
        )
    for name in arguments.names or LAWS:
        title, law = LAWS[name]
        about = inspect.getdoc(law)
        print(f"\n{title}\n{about}", flush=True)
        rows = []
        for row in law(arguments.seeds):
            rows.append(row)
            for column, cell in zip(COLUMNS, row, strict=True):
                print(f"  {column:9s} {cell}")
            print(flush=True)
        if arguments.write:
            given = f"{name} --seeds {arguments.seeds}"
            command = f"python -m benchmarks laws {given} --write docs/laws.md"
            write(arguments.write, title, command, about, rows)


if __name__ == "__main__":
    main()
