"""The whole path on one fact: read, locate, edit, audit, locate again, export, report.

It sits on top of everything, like the command line that calls it.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.demo.outcome import Demo, metrics
    from labkit.demo.walk import run_demo

__getattr__, __dir__, __all__ = door(__name__, __file__)
