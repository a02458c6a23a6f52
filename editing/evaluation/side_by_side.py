"""Several edits of one case, side by side."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from editing.evaluation.one_edit import Audit
from editing.readings.asking import METRICS, MORE_METRICS, READINGS
from labkit.arguments import checked
from labkit.errors import InputError


@checked
def audit_table(audits: Mapping[str, Audit], *, reading: str = "accuracy") -> pd.DataFrame:
    """Several edits of one case side by side, the unedited model first.

    Args:
        audits: Audits by a name of your choice; all of one case and model.
        reading: One of `editing.readings.asking.READINGS`.

    Returns:
        One row per edit: an estimate with its interval over prompts in each column that was
        measured (efficacy, paraphrase, neighbourhood, attribute, distractor), `nats per token`
        (change on held-out text) and `essence` (drift, in nats).

    Raises:
        InputError: If there is no audit, they are of several cases, or there is no such reading.
    """
    if not audits:
        raise InputError("no audits to set side by side")
    if reading not in READINGS:
        raise InputError(f"no reading {reading!r}; there are {', '.join(READINGS)}")
    if len({(found.case.case_id, found.fingerprint) for found in audits.values()}) > 1:
        raise InputError("audits of several cases or models do not share an unedited row")
    metrics = (*METRICS, *MORE_METRICS)
    first = next(iter(audits.values()))
    rows: dict[str, dict[str, Any]] = {
        "unedited": {metric: first.estimate("before", reading, metric) for metric in metrics}
    }
    for name, found in audits.items():
        rows[name] = {metric: found.estimate("after", reading, metric) for metric in metrics}
        rows[name] |= {"nats per token": found.nll_change, "essence": found.essence_drift}
    return pd.DataFrame(rows).T.dropna(axis="columns", how="all")
