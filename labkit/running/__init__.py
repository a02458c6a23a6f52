"""Running a model: whole or in part, with states read and written on the way.

`Execution` stops early, resumes at a block and keeps a shared beginning frozen; `capture` and
`patched` read and write states and always take their hooks away; `check` holds a model to the
laws that the lab's numbers rest on.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.running.activations import (
        Activations,
        capture,
        patched,
        patched_embedding,
        run_with_cache,
    )
    from labkit.running.execute import Execution, Prefix, freeze, next_token_logits, read_logits
    from labkit.running.selfcheck import check

__getattr__, __dir__, __all__ = door(__name__, __file__)
