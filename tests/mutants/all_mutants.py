"""All planted mistakes."""

from tests.mutants import (
    in_context,
    in_course,
    in_edits,
    in_evaluation,
    in_facts_and_results,
    in_locate,
    in_memories,
    in_methods,
    in_models,
    in_numbers,
    in_probes,
)

MUTANTS = (
    *in_numbers.MUTANTS,
    *in_models.MUTANTS,
    *in_facts_and_results.MUTANTS,
    *in_locate.MUTANTS,
    *in_memories.MUTANTS,
    *in_context.MUTANTS,
    *in_course.MUTANTS,
    *in_edits.MUTANTS,
    *in_methods.MUTANTS,
    *in_evaluation.MUTANTS,
    *in_probes.MUTANTS,
)
