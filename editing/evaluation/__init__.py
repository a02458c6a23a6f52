"""Judging edits: one edit prompt by prompt, a method over many cases, several methods compared."""

from typing import TYPE_CHECKING

from labkit.doors import door

if TYPE_CHECKING:
    from editing.evaluation.many_cases import Evaluation, evaluate
    from editing.evaluation.method_comparison import MethodComparison
    from editing.evaluation.one_edit import Audit, audit
    from editing.evaluation.options import EvaluationOptions
    from editing.evaluation.several_methods import compare_methods
    from editing.evaluation.side_by_side import audit_table

__getattr__, __dir__, __all__ = door(__name__, __file__)
