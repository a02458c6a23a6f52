"""The suite's checks of annotations: with arrays and without, and off where a test asks for it."""

import jaxtyping
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
from torch import Tensor

from labkit.tokens.words import n_words
from tests.checked_annotations import jaxtyped


@jaxtyped(typechecker=beartype)
def wrong_length(text: str) -> int:
    return text


@jaxtyped(typechecker=beartype)
def dot(left: Float[Tensor, " d"], right: Float[Tensor, " d"]) -> Float[Tensor, ""]:
    return (left * right).sum()


def test_a_wrong_kind_is_refused_and_a_wrong_result_too():
    with pytest.raises(BeartypeCallHintViolation, match="text"):
        n_words(3)
    with pytest.raises(BeartypeCallHintViolation, match="return"):
        wrong_length("a")


def test_the_sizes_of_arrays_are_compared_with_each_other():
    assert dot(torch.ones(2), torch.ones(2)) == 2
    with pytest.raises(jaxtyping.TypeCheckError, match="right"):
        dot(torch.ones(2), torch.ones(3))


@pytest.mark.usefixtures("unchecked")
def test_a_test_may_ask_for_none():
    assert wrong_length("a") == "a"
    assert dot(torch.ones(2), torch.ones(1)) == 2
