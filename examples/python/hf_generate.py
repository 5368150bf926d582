"""A Hugging Face model that keeps its cache compressed: plain `generate()`, other keys and values.

    python3 examples/python/hf_generate.py [MODEL [CODEC...]]     # default: the bundled model

Each layer of the model gets pages of its own; `update` stores the new tokens and hands them on with a note of where the
whole cache is, and the attention function reads the pages. Nothing is unpacked to memory, the model's code is untouched.
Prints what each codec costs the next token's distribution over a passage that is decoded token by token, and what it
generates. Without a GPU the scalar reference attends. Sequences of equal length: padding and beam search are refused.
"""

import os
import sys
from pathlib import Path

import torch
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

import kvfuse

PAGE = 64
ASSETS = Path(os.environ.get("KVF_ASSETS", Path(__file__).resolve().parents[2] / "assets"))


class Layer(CacheLayerMixin):
    """A layer's pages: sequence b has pages b * stride .. (b + 1) * stride."""

    is_sliding = False

    def __init__(self, codec, heads, positions):
        super().__init__()
        self.codec, self.heads, self.stride, self.tokens = codec, heads, -(-positions // PAGE), 0

    def lazy_initialization(self, k, v):
        batch, kv_heads, _, d = k.shape
        device = k.device.index if k.is_cuda else -1
        space = lambda count: torch.zeros(count, dtype=torch.uint8, device=k.device)
        pages = batch * self.stride
        self.base = space(pages * kv_heads * self.codec.block_bytes(d, PAGE))
        dtype = kvfuse.BF16 if k.dtype == torch.bfloat16 else kvfuse.F32
        self.cache = kvfuse.Cache(self.codec, self.base, pages, heads=self.heads, kv_heads=kv_heads, head_dim=d, page_tokens=PAGE, dtype=dtype, device=device, space=space)
        self.table = torch.arange(pages, dtype=torch.int32, device=k.device)
        self.first_slot = torch.arange(batch, device=k.device)[:, None] * self.stride * PAGE
        self.status = torch.zeros(4, dtype=torch.int32, device=k.device)
        self.is_initialized = True

    def update(self, k, v, *args, **kwargs):
        """Stores k, v [batch, kv_heads, new, d]; gives them back, the keys with a note of this layer."""
        if not self.is_initialized:
            self.lazy_initialization(k, v)
        batch, new = k.shape[0], k.shape[2]
        if self.tokens + new > self.stride * PAGE:
            raise ValueError(f"the cache was made for {self.stride * PAGE} tokens, and {self.tokens + new} are needed")
        positions = torch.arange(self.tokens, self.tokens + new, device=k.device)
        slots = (self.first_slot + positions).contiguous()
        self.held = k.transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous(), slots
        self.cache.store(*self.held, self.status, tokens=batch * new, positions=positions.repeat(batch).int())
        self.tokens += new
        k.kvf = self
        return k, v

    def attend(self, q, scale):
        """q [batch, heads, new, d] over all that is stored; out [batch, new, heads, d]."""
        batch, new = q.shape[0], q.shape[2]
        rows = q.transpose(1, 2).contiguous()
        out = torch.empty_like(rows)
        lens = torch.full((batch,), self.tokens, dtype=torch.int32, device=q.device)
        table, queries = self.table, new
        if self.codec.calibration:
            # One query a sequence: each token's row becomes a sequence that ends with it, on the same pages.
            batch, queries = batch * new, 1
            lens = (lens[:, None] - torch.arange(new - 1, -1, -1, device=q.device)).flatten().int()
            table = table.view(-1, self.stride).repeat_interleave(new, 0)
        self.cache.decode(rows, table, lens, out, self.status, batch=batch, stride=self.stride, queries=queries, scale=scale)
        return out

    def get_seq_length(self):
        return self.tokens

    def get_mask_sizes(self, query_length):
        return self.tokens + (query_length if isinstance(query_length, int) else len(query_length)), 0

    def get_max_length(self):
        return self.stride * PAGE

    get_max_cache_shape = get_max_length

    def crop(self, tokens):
        """Forgets the last tokens: all beyond `tokens`, or -tokens of them."""
        self.tokens = min(self.tokens, tokens if tokens >= 0 else self.tokens + tokens)

    def reset(self):
        self.tokens = 0

    def reorder_cache(self, beam_idx):
        raise NotImplementedError("beam search would move pages between sequences; use greedy search or sampling")


def attention(module, q, k, v, mask, scaling=None, **kwargs):
    """What the model calls for the attention named `kvf`."""
    layer = getattr(k, "kvf", None)
    if layer is None:
        raise ValueError("the attention `kvf` reads a cache of its own: pass past_key_values=cache_for(model, codec, positions)")
    # The last query sees every token, unless some are padding.
    if mask is not None and not bool(mask[..., -1, :].all()):
        raise NotImplementedError("padded sequences are not served; give sequences of equal length")
    return layer.attend(q, scaling), None


AttentionInterface.register("kvf", attention)
AttentionMaskInterface.register("kvf", sdpa_mask)


def cache_for(model, name, positions, calibration=None):
    """A compressed cache for `positions` tokens a sequence; pass it as past_key_values. A `kvfuse-N` needs the model's `calibration`."""
    config, device = model.config, model.device.index if model.device.type == "cuda" else -1
    codec = lambda layer: kvfuse.Codec(name)
    if name.startswith("kvfuse"):
        codec = kvfuse.Calibration(name, calibration, layers=config.num_hidden_layers, kv_heads=config.num_key_value_heads, head_dim=config.head_dim, positions=positions, device=device).codec
    return Cache(layers=[Layer(codec(i), config.num_attention_heads, positions) for i in range(config.num_hidden_layers)])


@torch.no_grad()
def next_tokens(model, tokens, prompt, cache=None):
    """Log probabilities after each token from `prompt` on, the prompt at once and the rest one by one."""
    out = model(tokens[:, :prompt], past_key_values=cache, use_cache=True)
    rows = [out.logits[:, -1]]
    for i in range(prompt, tokens.shape[1]):
        out = model(tokens[:, i : i + 1], past_key_values=out.past_key_values, use_cache=True)
        rows.append(out.logits[:, -1])
    return torch.log_softmax(torch.stack(rows, 1).float(), -1)


def passage(model, count):
    """Tokens of the bundled text for the bundled model, else random ones."""
    if model.config.vocab_size > 8192:
        return torch.randint(0, model.config.vocab_size, (1, count), generator=torch.Generator().manual_seed(1))
    import numpy

    return torch.from_numpy(numpy.load(ASSETS / "eval" / "passages.npy")[:2, :count].astype("int64"))


def main():
    name, codecs = (sys.argv[1:2] or [str(ASSETS / "qwen3-tiny")])[0], sys.argv[2:] or ["bf16", "int4", "e8w4", "kvfuse-4"]
    calibration = Path(name) / "kvfuse.calibration"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16 if device == "cuda" else torch.float32).to(device).eval()
    count, prompt = (1024, 512) if device == "cuda" else (160, 128)
    tokens = passage(model, count).to(device)
    raw = next_tokens(model, tokens, prompt)
    own = model.generate(tokens[:1, :prompt], max_new_tokens=24, do_sample=False, attention_mask=torch.ones_like(tokens[:1, :prompt]))[0, prompt:]
    model.set_attn_implementation("kvf")
    for codec in codecs:
        coded = next_tokens(model, tokens, prompt, cache_for(model, codec, count, calibration))
        kl = (raw.exp() * (raw - coded)).sum(-1).mean().item()
        assert kl < 0.2, f"{codec}: KL {kl}"
        cache = cache_for(model, codec, prompt + 24, calibration)
        text = model.generate(tokens[:1, :prompt], max_new_tokens=24, do_sample=False, past_key_values=cache, attention_mask=torch.ones_like(tokens[:1, :prompt]))[0, prompt:]
        same = next((i for i, (a, b) in enumerate(zip(own, text)) if a != b), len(own))
        status = [layer.status.tolist() for layer in cache.layers]
        assert not any(map(any, status)), f"{codec}: a slot, page or length is wrong: {status}"
        kept = sum(layer.base.numel() for layer in cache.layers)
        print(f"{codec}: {cache.layers[0].codec.bits(model.config.head_dim):.3f} bits a number, {kept} bytes, KL of the next token {kl:.2e}, {same} of {len(own)} generated tokens as without")


if __name__ == "__main__":
    main()
