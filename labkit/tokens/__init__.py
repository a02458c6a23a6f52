"""Text to token ids, and back to the positions that a question is about.

Everything here works on token ids and character offsets. Nothing decodes, glues strings
and tokenises again: that moves token boundaries, and with them the position that an edit
or a trace is about.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.tokens.batches import TokenBatch, pad_id, pad_left
    from labkit.tokens.prompts import adds_bos, front_id, n_prepended, require_text, text_ids
    from labkit.tokens.subjects import TokenSpan, find_subject, subject_span
    from labkit.tokens.targets import continuation_ids, target_ids
    from labkit.tokens.vocabulary import Token

__getattr__, __dir__, __all__ = door(__name__, __file__)
