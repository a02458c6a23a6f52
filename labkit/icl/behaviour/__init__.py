"""What demonstrations do, from outside: conditions, number, order, choice, instructions, gains."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.icl.behaviour.choice import Choice
    from labkit.icl.behaviour.conditions import CONDITIONS
    from labkit.icl.behaviour.demonstrations import Demonstrations
    from labkit.icl.behaviour.demonstrations_result import DemonstrationsResult
    from labkit.icl.behaviour.gains import Gains, GainsResult
    from labkit.icl.behaviour.instructions import Instructions
    from labkit.icl.behaviour.instructions_result import InstructionsResult
    from labkit.icl.behaviour.order_result import OrdersResult
    from labkit.icl.behaviour.ordering import Orders

__getattr__, __dir__, __all__ = door(__name__, __file__)
