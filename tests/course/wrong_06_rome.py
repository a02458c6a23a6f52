"""Wrong answers to assignment 06, and the message meant for each."""

WRONG = {
    "key_star": {
        "first token of the subject": (
            [(".span(prompt, subject).last", ".span(prompt, subject).start")],
            "has begun and is not yet complete",
        ),
        "last token of the prompt": (
            [("model.span(prompt, subject).last", "-1")], "of the prompt's last token",
        ),
        "sum in place of mean": ([(".mean(0)", ".sum(0)")], "summed up, not averaged"),
        "mean over the wrong axis": ([(".mean(0)", ".mean(1)")], "shape is"),
        "what the FFN writes": ([('"ffn_key"', '"ffn_out"')], "d_model wide"),
        "the layer before": (
            [("[layer]) as", "[(layer - 1) % 6]) as"),
             ('"ffn_key", layer]', '"ffn_key", (layer - 1) % 6]')],
            "is one of layer",
        ),
        "one context only": (
            [("in contexts:", "in contexts[:1]:")], "only the first one counts",
        ),
        "all tokens": (
            [("model.span(prompt, subject).last]", ":].mean(0)")], "mean over all tokens",
        ),
    },
    "rome_update": {
        "transposed": ([("return W + torch.outer(direction, missing)",
                         "return W.T + torch.outer(missing, direction)")], "transposed"),
        "C for its inverse": ([("torch.linalg.solve(C, k_star)", "C @ k_star")], "wrong way round"),
        "C left out": ([("torch.linalg.solve(C, k_star)", "k_star")], "ignores C"),
        "not divided": ([(" / (direction @ k_star)", "")], "by the wrong length"),
        "v* for the residual": ([("v_star - k_star @ W", "v_star")], "on top of what it had"),
        "the change alone": ([("return W + ", "return ")], "the change alone"),
        "wrong sign": ([("v_star - k_star @ W", "k_star @ W - v_star")], "wrong sign"),
        "in place": (
            [("return W + torch.outer(direction, missing) / (direction @ k_star)",
              "W += torch.outer(direction, missing) / (direction @ k_star)\n    return W")],
            "changed in place",
        ),
    },
    "after_edit": {
        "the edit stays": ([("weight.copy_(before)", "pass")], "change stayed"),
        "no effect": ([("weight += delta", "pass")], "no effect"),
        "subtracted": ([("weight += delta", "weight -= delta")], "subtracted"),
        "logits": ([(".log_softmax(-1)", "")], "log-softmax is missing"),
        "probabilities": ([(".log_softmax(-1)", ".softmax(-1)")], "these are probabilities"),
        "another layer": ([("ffn_out(layer)", "ffn_out(layer + 1)")], "is made in layer"),
    },
}  # fmt: skip
