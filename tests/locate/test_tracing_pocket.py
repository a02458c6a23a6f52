"""Where the pocket model keeps its facts: at the subject's last token, in a window of low layers.

The window is chosen on some facts and tested on others. The control: the same layers at a random
other token, and the same token in layers above the window.
"""

from html import unescape

import numpy as np
import pytest

from labkit import pocket as world
from labkit.facts.fact import Fact
from labkit.facts.known import known_facts
from labkit.locate import CausalTrace, average_traces, compare_severed
from labkit.locate.traces.trace_result import ratio_of_means
from labkit.stats import numpy_generator

LAST = "last subject token"
N_FACTS = 30
TRACE = CausalTrace(samples=4)


@pytest.fixture(scope="module")
def halves(pocket):
    """Facts that the model knows, some to choose the window on and others to test it on."""
    known = known_facts(pocket, world.facts()).facts
    order = numpy_generator(0, "facts to trace").permutation(len(known))
    picked = [known[index] for index in order[: 2 * N_FACTS]]
    return picked[:N_FACTS], picked[N_FACTS:]


@pytest.fixture(scope="module")
def window(pocket, halves):
    """Layers whose state at the last subject token recovers at least 80 % on the first half."""
    shares = average_traces(pocket, halves[0], TRACE).shares()
    at_last = shares[shares["role"] == LAST]
    return at_last[at_last["low"] >= 0.8]["layer"].tolist()


@pytest.fixture(scope="module")
def traces(pocket, halves):
    return [TRACE(pocket, fact) for fact in halves[1]]


def share(traces, position, layer):
    """Share of what the noise destroys that a state recovers, over facts."""
    effects = [one.cells[:, position(one), layer].mean() - one.corrupted.mean() for one in traces]
    totals = [one.clean - one.corrupted.mean() for one in traces]
    return ratio_of_means(np.array(effects), np.array(totals))


def last_of_subject(trace):
    return trace.subject_positions[-1]


def random_other_token(trace):
    """A token of the prompt that is not the subject's, neither BOS nor the last."""
    others = set(range(1, len(trace.tokens) - 1)) - set(trace.subject_positions)
    return int(numpy_generator(0, "control", trace.prompt).choice(sorted(others)))


def test_another_word_than_the_known_subject_is_remarked_on(pocket, halves):
    """And so it is in every wording that is known of the fact; a prompt of nobody's is not."""
    fact = halves[0][0]
    trace = CausalTrace(samples=1)
    assert trace(pocket, fact).warning is None
    for template in (fact.template, *fact.paraphrases[:1]):
        word = max(template.replace("{}", " ").split(), key=len)
        prompt = template.replace("{}", fact.subject)
        found = trace(pocket, Fact.from_prompt(prompt, word))
        assert repr(fact.subject) in found.warning and repr(word) in found.warning
        said = found.figure().layout.title.subtitle.text
        assert found.warning in unescape(said.replace("<br>", " "))
    assert trace(pocket, Fact.from_prompt(f"{prompt} the", word)).warning is None


def test_the_window_is_one_run_of_low_layers(pocket, window):
    assert window == list(range(window[0], window[-1] + 1)) and len(window) >= 2
    assert window[-1] < pocket.n_layers - 1


def test_the_last_subject_token_recovers_the_answer_in_the_window(window, traces):
    for layer in window:
        recovered = share(traces, last_of_subject, layer)
        assert recovered.mean >= 0.8 and recovered.low > 0.7, (layer, str(recovered))


def test_a_random_other_token_in_the_same_layers_does_not(window, traces):
    asked = [trace for trace in traces if len(trace.tokens) - len(trace.subject_positions) > 2]
    for layer in window:
        recovered = share(asked, random_other_token, layer)
        assert recovered.high < 0.3, (layer, str(recovered))


def test_above_the_window_the_fact_has_moved_on(pocket, window, traces):
    """It is at the last token then, where the answer is read."""
    top = pocket.n_layers - 1
    nothing = share(traces, last_of_subject, top)  # nothing behind it reads it any more
    assert nothing.mean == 0 and not nothing.has_interval
    everything = share(traces, lambda trace: len(trace.tokens) - 1, top)  # all that is read
    assert everything.mean == pytest.approx(1, abs=1e-6) and not everything.has_interval
    assert share(traces, lambda trace: len(trace.tokens) - 1, window[0]).high < 0.3


def test_low_states_need_the_ffn_above_them_and_high_states_do_not(pocket, halves, window):
    """The severed FFN costs part of the effect at the bottom, and nothing at the window's top."""
    facts, at_last = halves[1], CausalTrace(samples=4, roles=(LAST,))
    plain = average_traces(pocket, facts, at_last)
    cut = average_traces(pocket, facts, CausalTrace(samples=4, roles=(LAST,), severed="ffn"))
    gaps = compare_severed(plain, cut).to_frame().query("path == 'ffn'").set_index("layer")
    assert gaps.loc[0, "gap_low"] > 0.05
    assert gaps.loc[window[-1], "gap_high"] < gaps.loc[0, "gap_low"]
