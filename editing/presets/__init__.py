"""Which layers to edit: shipped presets, those of the user's sweeps, and a guess otherwise."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from editing.presets.preset_files import Preset, preset

__getattr__, __dir__, __all__ = door(__name__, __file__)
