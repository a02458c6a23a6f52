"""What a notebook answers is shown, kept and refused where it says nothing."""

import json

import pytest

from labkit.errors import InputError, OutputError
from labkit.results import Finding, answered
from labkit.stats import Estimate

FOUND = {
    "claim": "C6", "measured": "P(new object) after ROME",
    "value": Estimate(mean=0.9, low=0.8, high=0.95, n=12), "control": "before",
    "control_value": 0.1,
    "on": "12 facts", "verdict": "supports", "changed_by": "as much without the edit",
}  # fmt: skip


def test_it_is_kept_as_it_was_measured_and_the_later_one_replaces_the_earlier(tiny, tmp_path):
    model = tiny("llama")
    for answer in ("1 of 2", "2 of 2"):
        found = answered(model, "05", answer, Finding(**FOUND)).keep(tmp_path / "runs")
    kept = json.loads((tmp_path / "runs" / "05" / "results.json").read_text())
    assert (kept["answer"], kept["model"], kept["fingerprint"]) == (
        "2 of 2", model.name, model.fingerprint,
    )  # fmt: skip
    finding = kept["findings"][0]
    assert finding["value"] == FOUND["value"].to_dict()
    assert {k: v for k, v in finding.items() if k != "value"} == {
        k: v for k, v in FOUND.items() if k != "value"
    }
    assert "0.900 [0.800, 0.950] (n = 12)" in found._repr_mimebundle_()["text/html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        found.keep(tmp_path / "file")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"claim": "six"}, "no number of a claim"),
        ({"verdict": "proves"}, "proves"),
        ({"on": ""}, "'on'"),
    ],
)
def test_a_finding_that_says_nothing_is_refused(change, match):
    with pytest.raises(InputError, match=match):
        Finding(**FOUND | change)


def test_an_answer_without_a_number_is_refused(tiny):
    with pytest.raises(InputError, match="no number"):
        answered(tiny("llama"), "05", "it works")
