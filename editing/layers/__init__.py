"""Which layer to edit: measured presets, a cheap screening, a sweep over layers."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from editing.layers.presets import Preset, preset
    from editing.layers.sweep import LayerSweep, sweep_layers
    from editing.layers.tuning_cases import known_cases

__getattr__, __dir__, __all__ = door(__name__, __file__)
