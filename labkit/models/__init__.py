"""Models: their anatomy, where their weights come from, and how they are opened.

`load(name)` opens a short name, a local folder or a hub id as a `LabModel`: a Hugging Face model
with a hook on every attention and FFN activation, named parts and a fingerprint. This is the
only room that knows architectures.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.models.anatomy import Site
    from labkit.models.formats import DTYPES
    from labkit.models.in_effect import fingerprint
    from labkit.models.loading import load, wrap
    from labkit.models.model import LabModel
    from labkit.models.random_models import FAMILIES
    from labkit.models.registry import ENTRIES, Entry
    from labkit.models.twins import random_twin

__getattr__, __dir__, __all__ = door(__name__, __file__)
