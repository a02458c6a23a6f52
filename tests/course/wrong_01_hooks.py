"""Wrong answers to assignment 01, and the message meant for each."""

WRONG = {
    "capture_stream": {
        "hooks left": ([("            handle.remove()", "            pass")], "still on the model"),
        "no last entry": ([("torch.stack(seen)", "torch.stack(seen[:-1])")], "last block leaves"),
        "no first entry": ([("torch.stack(seen)", "torch.stack(seen[1:])")], "first block reads"),
        "the last one normed": (
            [("torch.stack(seen)", "torch.stack([*seen[:-1], model.final_norm(seen[-1])])")],
            "after the final norm",
        ),
        "what blocks add": (
            [("torch.stack(seen)", "torch.stack([seen[0], *[b - a for a, b in "
              "zip(seen[:-1], seen[1:])]])")],
            "what the blocks add",
        ),
        "batch left": ([("torch.stack(seen)", "torch.stack(seen)[None]")], "length 1 is left"),
    },
    "parts_of_block": {
        "swapped": (
            [('return written["attn_out"], written["ffn_out"]',
              'return written["ffn_out"], written["attn_out"]')],
            "changed places",
        ),
        "what the FFN reads": (
            [('written["attn_out"], written["ffn_out"]', 'written["attn_out"], written["ffn_in"]'),
             ("def keep(module, inputs, output, site=site):",
              "def keep(module, inputs, output, site=site):\n"
              "            written[site.replace('out', 'in')] = inputs[0][0] if inputs else None")],
            "not what it writes",
        ),
        "stream within the FFN's part": (
            [('written["ffn_out"]\n',
              'written["ffn_out"] + written["attn_out"] + written["pre"]\n'),
             ("    try:\n", "    handles.append(model.blocks[layer].register_forward_pre_hook("
              "lambda m, i: written.update(pre=i[0][0])))\n    try:\n")],
            "FFN's part still holds the stream",
        ),
        "hooks left": ([("            handle.remove()", "            pass")], "still on the model"),
        "one part": (
            [('return written["attn_out"], written["ffn_out"]', 'return written["attn_out"]')],
            "not a pair",
        ),
    },
    "logits_of": {
        "norm forgotten": ([("model.final_norm(state)", "state")], "twice as long"),
        "probabilities": ([("model.final_norm(state))", "model.final_norm(state)).softmax(-1)")],
                          "these are probabilities"),
        "log-probabilities": (
            [("model.final_norm(state))", "model.final_norm(state)).log_softmax(-1)")],
            "these are log-probabilities",
        ),
        "transposed": ([("model.final_norm(state))", "model.final_norm(state)).T")], "transposed"),
        "one position": ([("model.final_norm(state))", "model.final_norm(state))[-1]")],
                         "shape is"),
    },
}  # fmt: skip
