"""Which layer to edit: a cheap screening, then a sweep that measures."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from editing.layers.screening import ScreeningOptions, screen
    from editing.layers.sweep import SweepOptions, sweep_layers
    from editing.layers.sweep_result import LayerSweep
    from editing.layers.tuning_cases import known_cases

__getattr__, __dir__, __all__ = door(__name__, __file__)
