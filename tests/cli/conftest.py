"""The pocket model and the random ones are opened once, however many commands ask for them."""

import pytest

from labkit.models import loading
from labkit.models.in_effect import fingerprint
from labkit.models.random_models import FAMILIES

SHARED = {"pocket", *(f"random-{family}" for family in FAMILIES)}


@pytest.fixture(scope="session")
def _opened():
    """Models by what they were opened with."""
    return {}


@pytest.fixture(autouse=True)
def _opened_once(_opened, monkeypatch):
    """A command finds a shared model as it was when it was opened: none may change it."""
    own = loading.load

    def load(name, **asked):
        if name not in SHARED:
            return own(name, **asked)
        key = (name, *sorted(asked.items()))
        model = _opened[key] = _opened.get(key) or own(name, **asked)
        assert fingerprint(model.hf, model.tokenizer) == model.fingerprint, "a command changed it"
        return model

    monkeypatch.setattr(loading, "load", load)
