"""What heads and edges are held against: a circuit written by hand, masks in full runs."""

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from labkit.models.loading import wrap
from labkit.models.random_models import random_model
from labkit.stats import generator

CODE, N_CTX = 64, 128  # width of a code of a token or a position, and of a head
TOKEN, PLACE, BEFORE = (slice(start, start + CODE) for start in (0, CODE, 2 * CODE))


@torch.no_grad()
def induction_circuit():
    """Two blocks that continue what was repeated: attention alone, written by hand.

    The stream holds a code of the token, a code of the position (angles, so that one step back
    is a rotation), and room for a third. Head 1 of block 0 looks one position back and writes
    the code of the token there into the third; head 2 of block 1 looks for a third code that is
    its own token's, and writes the token found there four times over its own. All else is noise.
    """
    _, tokenizer = random_model("gpt2")
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=4 * CODE, n_head=4, n_layer=2, n_positions=N_CTX
    )
    hf = GPT2LMHeadModel(config)
    for name, parameter in hf.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator(0, "circuit", name))
        is_norm = name.endswith("weight") and parameter.dim() == 1
        parameter.copy_(0.01 * noise + is_norm)
    codes = torch.randn(len(tokenizer), CODE, generator=generator(0, "codes"))
    speeds = torch.linspace(0.1, 3.0, CODE // 2)
    angles = torch.arange(N_CTX)[:, None] * speeds
    wte, wpe = hf.transformer.wte.weight, hf.transformer.wpe.weight
    wte[:, TOKEN] += torch.nn.functional.normalize(codes, dim=-1) * CODE**0.5
    wpe[:, PLACE] += torch.cat([angles.cos(), angles.sin()], dim=-1) * 2**0.5
    cos, sin = speeds.cos().diag(), speeds.sin().diag()
    # On rows: (cos a, sin a) @ back = (cos (a - speed), sin (a - speed)).
    back = torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)])

    def write(block, head, query, key, into, *, turn, sharp, gain):
        attn = hf.transformer.h[block].attn
        own = [slice(part * 4 * CODE + head * CODE, part * 4 * CODE + (head + 1) * CODE)
               for part in range(3)]  # fmt: skip
        attn.c_attn.weight[:, own[0]] = attn.c_attn.weight[:, own[1]] = 0
        attn.c_attn.weight[query, own[0]] = sharp * turn
        attn.c_attn.weight[key, own[1]] = torch.eye(CODE)
        attn.c_attn.weight[:, own[2]] = 0
        attn.c_attn.weight[TOKEN, own[2]] = torch.eye(CODE)
        attn.c_proj.weight[own[0]] = 0
        attn.c_proj.weight[own[0], into] = gain * torch.eye(CODE)

    one = torch.eye(CODE)
    write(0, 1, PLACE, PLACE, BEFORE, turn=back, sharp=4.0, gain=1.0)
    write(1, 2, TOKEN, BEFORE, TOKEN, turn=one, sharp=4.0, gain=4.0)
    hf.transformer.ln_f.weight.mul_(0.05)  # else it is far too sure of what it says
    return wrap(hf, tokenizer, name="circuit")


def by_mask(model, ids, blocked):
    """Hugging Face's own model in full, edges `[query key]` masked in every layer."""
    n = len(ids)
    allowed = torch.ones(n, n, dtype=torch.bool).tril() & ~torch.from_numpy(blocked)
    mask = torch.zeros(n, n, dtype=model.dtype).masked_fill(~allowed, torch.finfo(model.dtype).min)
    with torch.no_grad():
        out = model.hf(torch.tensor([ids]), attention_mask=mask[None, None], use_cache=False)
    return out.logits[0, -1].double().log_softmax(dim=-1)


def whole(cut, n, total):
    """A cut's edges in a whole prompt: those of the query from each of its tokens."""
    blocked = np.zeros((total, total), dtype=bool)
    blocked[:n, :n] = cut.front
    blocked[n:, :n] = cut.query
    return blocked
