# ruff: noqa: E501
"""Planted in what locates facts: traces, attention, attribution, neurons, agreement."""

from tests.mutants.record import Mutant

MUTANTS = (
    Mutant(
        name="noise without the spread of the embeddings",
        file="labkit/locate/traces/tracing.py",
        before="drawn * noise * embedding_spread(model)",
        after="drawn * noise",
        tests=(
            "tests/locate/test_tracing.py"
            "::test_the_noise_is_three_spreads_of_what_enters_the_model",
        ),
    ),
    Mutant(
        name="the noise one token to the right of the subject",
        file="labkit/locate/traces/tracing.py",
        before="embeddings[:, self.span.start : self.span.stop] += self.noise.to(embeddings)",
        after="embeddings[:, self.span.start + 1 : self.span.stop + 1] += self.noise.to(embeddings)",
        tests=(
            "tests/locate/test_tracing.py"
            "::test_restoring_every_site_is_the_clean_run_and_restoring_none_the_corrupted",
            "tests/locate/test_tracing.py::test_every_cell_is_a_hand_written_hook_in_a_full_run",
        ),
    ),
    Mutant(
        name="a window that begins at its layer",
        file="labkit/locate/traces/restoring.py",
        before="start = layer - window // 2",
        after="start = layer",
        tests=(
            "tests/locate/test_tracing.py::test_every_cell_is_a_hand_written_hook_in_a_full_run",
        ),
    ),
    Mutant(
        name="later cells behind the clean prefix",
        file="labkit/locate/traces/restoring.py",
        before="goes_on_clean = pos == runs.first and",
        after="goes_on_clean = pos >= runs.first and",
        tests=(
            "tests/locate/test_tracing.py::test_every_cell_is_a_hand_written_hook_in_a_full_run",
        ),
    ),
    Mutant(
        name="a severed output held at that of the first draw",
        file="labkit/locate/traces/restoring.py",
        before="held = corrupted[severed, block][draws, self.pos]",
        after="held = corrupted[severed, block][draws * 0, self.pos]",
        tests=(
            "tests/locate/test_tracing_severed.py::test_every_severed_cell_is_a_hand_written_one",
        ),
    ),
    Mutant(
        name="the subject's last token counted as its first too",
        file="labkit/locate/traces/alignment.py",
        before='"first subject token": range(first, last)[:1],',
        after='"first subject token": range(first, after)[:1],',
        tests=("tests/locate/test_alignment.py",),
    ),
    Mutant(
        name="an attribution with its sign turned",
        file="labkit/locate/attributions/attribution.py",
        before="(clean[site, layer][:, span.start :] - states[layer].detach()) * gradients[layer]",
        after="(states[layer].detach() - clean[site, layer][:, span.start :]) * gradients[layer]",
        tests=(
            "tests/locate/test_attribution.py::test_every_cell_is_the_slope_of_the_exact_effect",
        ),
    ),
    Mutant(
        name="gradients at the ends of the steps",
        file="labkit/locate/attributions/attribution.py",
        before="left = drawn * (1 - (step + 0.5) / steps)",
        after="left = drawn * (1 - (step + 1.0) / steps)",
        tests=("tests/locate/test_attribution.py::test_more_steps_lead_to_the_integral",),
    ),
    Mutant(
        name="attention blocked from the next block on",
        file="labkit/locate/attention/edges.py",
        before="torch.where(blocked.any(dim=1), blocked.int().argmax(dim=1), model.n_layers)",
        after="torch.where(blocked.any(dim=1), blocked.int().argmax(dim=1) + 1, model.n_layers)",
        tests=("tests/locate/test_heads.py::test_every_cut_is_what_blocking_by_hand_gives",),
    ),
    Mutant(
        name="a control of heads that repeats the tokens",
        file="labkit/locate/attention/head_kinds.py",
        before="fresh.append([*bos, *first, *other])",
        after="fresh.append([*bos, *first, *first])",
        tests=("tests/locate/test_heads.py::test_a_hand_built_induction_head_is_found",),
    ),
    Mutant(
        name="random heads that are not drawn",
        file="labkit/locate/attention/knockout.py",
        before="random[layer, pool[torch.randperm(len(pool), generator=pick)[:n_chosen]]] = True",
        after="random[layer, pool[:n_chosen]] = True",
        tests=(
            "tests/locate/test_heads.py::test_random_heads_sit_in_the_layers_of_the_chosen",
            "tests/locate/test_heads.py"
            "::test_the_control_blocks_other_tokens_and_depends_on_the_seed_alone",
        ),
    ),
    Mutant(
        name="heads chosen on the fact that they are tested on",
        file="labkit/locate/attention/knockout_of_many.py",
        before="chosen = costliest(np.delete(by_head, index, axis=0), n_together)",
        after="chosen = costliest(by_head, n_together)",
        tests=(
            "tests/locate/test_heads.py"
            "::test_the_heads_blocked_together_are_chosen_on_the_other_facts",
        ),
    ),
    Mutant(
        name="attributions of positions that are not read",
        file="labkit/locate/neurons/key_runs.py",
        before='key = self._seen["ffn_key", layer] * self.read[..., None]',
        after='key = self._seen["ffn_key", layer]',
        tests=(
            "tests/locate/test_neurons.py"
            "::test_an_attribution_is_activation_times_slope_on_the_way_up_from_zero",
        ),
    ),
    Mutant(
        name="a subject read where it would stand without padding",
        file="labkit/locate/neurons/key_runs.py",
        before="read[row, padding + span.start : padding + span.stop] = True",
        after="read[row, span.start : span.stop] = True",
        tests=(
            "tests/locate/test_neurons.py"
            "::test_prompts_of_different_lengths_do_not_disturb_each_other",
            "tests/locate/test_neurons.py"
            "::test_an_attribution_is_activation_times_slope_on_the_way_up_from_zero",
        ),
    ),
    Mutant(
        name="an interval of random neurons over prompts",
        file="labkit/locate/neurons/switching.py",
        before='return "draw" if group == "random neurons" else "prompt"',
        after='return "prompt"',
        tests=(
            "tests/locate/test_neurons.py"
            "::test_changes_are_relative_with_prompts_and_draws_as_units",
        ),
    ),
    Mutant(
        name="agreement of numbers and not of ranks",
        file="labkit/locate/agreement.py",
        before="return float(spearmanr(first[both], second[both]).statistic)",
        after="return float(np.corrcoef(first[both], second[both])[0, 1])",
        tests=("tests/locate/test_compare.py::test_a_correlation_is_that_of_ranks",),
    ),
)
