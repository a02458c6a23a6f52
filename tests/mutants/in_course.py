"""Planted in checks of exercises, and in what keeps solutions and points where they belong."""

from tests.mutants.record import Mutant

MUTANTS = (
    Mutant(
        name="a stub that keeps the solution",
        file="labkit/course/sources.py",
        before='function.body = [function.body[0], *ast.parse("raise NotImplementedError").body]',
        after='function.body = [*function.body, *ast.parse("raise NotImplementedError").body]',
        tests=("tests/course/test_assignments.py",),
    ),
    Mutant(
        name="contexts summed up in place of averaged are let pass",
        file="labkit/course/check/rome.py",
        before="if close(together, total / len(alone)):",
        after="if close(together, total / len(alone)) or close(together, total):",
        tests=("tests/course/test_assignments.py",),
    ),
    Mutant(
        name="values of unknown kinds are handed on",
        file="labkit/course/grading/wire.py",
        before='raise Malformed("a value of an unknown kind")',
        after="return plain",
        tests=("tests/course/test_grading.py::test_what_is_no_value_is_refused",),
    ),
    Mutant(
        name="a table with formulas",
        file="labkit/course/grading/grades.py",
        before='value[:1] in tuple("=+-@\\t\\r")',
        after="False",
        tests=("tests/course/test_grading.py::test_no_cell_of_the_table_is_a_formula",),
    ),
)
