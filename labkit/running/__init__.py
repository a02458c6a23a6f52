"""Running a model: whole or in part, with states read and written on the way.

`Execution` stops early, resumes at a block and keeps a shared beginning frozen; `capture` and
`patched` read and write states and always take their hooks away; `check` checks the laws that all
results rest on. `score`, `next_logprobs`, `generate`, `read_text` and `last_states` ask many
prompts at once, packed, and run what they share once.
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
    from labkit.running.execute import Execution, freeze
    from labkit.running.logits import next_token_logits, read_logits
    from labkit.running.prefixes import Prefix
    from labkit.running.reading import TextReading, read_text, text_nll
    from labkit.running.scoring import generate, next_logprobs, score, score_ids
    from labkit.running.selfcheck import check
    from labkit.running.states import last_states

__getattr__, __dir__, __all__ = door(__name__, __file__)
