"""Where the configurations of thaw are."""

from importlib.resources import files
from pathlib import Path

CONF = Path(str(files("thaw"))).joinpath("conf").resolve()
"""The configurations: part of an installed package, and in a clone the folder `conf/`, to which a link leads."""
if CONF.is_file():  # a clone on Windows has the link as a text file
    CONF = (CONF.parent / CONF.read_text().strip()).resolve()
