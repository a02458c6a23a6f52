"""Does the model use what a probe reads? Directions removed, states moved along them."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from probes.use.configuration import Forgetting, Moving
    from probes.use.interventions import forget, move

__getattr__, __dir__, __all__ = door(__name__, __file__)
