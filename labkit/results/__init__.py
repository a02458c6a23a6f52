"""Results: shown, kept, read back, written up.

`Result` is what every measurement returns, a `Measured` one says on which weights it was taken.
`RunDirectory` keeps one with its provenance; `Report` writes it up as one HTML file; `verdicts`
tests claims together.
"""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from labkit.files import atomic_folder, atomic_write
    from labkit.results.answers import Answers, Finding, answered
    from labkit.results.claims import Claim, Verdicts, verdicts
    from labkit.results.encoding import dumps, from_json, to_json
    from labkit.results.measured import Measured, measured_on
    from labkit.results.provenance import environment
    from labkit.results.report import Report
    from labkit.results.result import Result
    from labkit.results.runs import RunDirectory

__getattr__, __dir__, __all__ = door(__name__, __file__)
