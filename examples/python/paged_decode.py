"""An engine's cache in miniature: pages, slots, one store, one decode.

    python3 examples/python/paged_decode.py [CODEC...]

Keys and queries are as projections leave them: RoPE is part of the store.

With torch and a GPU: the fused kernels beside the scalar reference, bit for bit where the codec promises it, and beside
exact attention over the rows as they were. Without: the reference on two page orders, which must not change a bit.
"""

import math
import random
import sys
from array import array

import kvfuse

D, HEADS, KV_HEADS, PAGE, PAGES = 128, 8, 2, 64, 12
LENS = [200, 97]
STRIDE = PAGES // len(LENS)
TOKENS = sum(LENS)
# Where in its sequence each token stands, the last tokens of sequences, and cosines and sines of every place.
POSITIONS = [i for n in LENS for i in range(n)]
LAST = [sum(LENS[: b + 1]) - 1 for b in range(len(LENS))]
ANGLES = [[p * 10000 ** (-2 * i / D) for i in range(D // 2)] for p in range(max(LENS))]
COS_SIN = [f(a) for angles in ANGLES for f in (math.cos, math.sin) for a in angles]


def give_pages():
    """Each sequence's pages, in a random order, and each token's slot."""
    pages = random.sample(range(PAGES), PAGES)
    table = [pages[i * STRIDE : (i + 1) * STRIDE] for i in range(len(LENS))]
    return table, [own[i // PAGE] * PAGE + i % PAGE for own, n in zip(table, LENS) for i in range(n)]


def on_host(codec, k, v, q):
    """The scalar reference; f32 rows, flat lists in, `out` flat."""
    table, slots = give_pages()
    base = bytearray(PAGES * KV_HEADS * codec.block_bytes(D, PAGE))
    rope = kvfuse.Rope(array("f", COS_SIN), max(LENS), D)
    cache = kvfuse.Cache(codec, base, PAGES, heads=HEADS, kv_heads=KV_HEADS, head_dim=D, page_tokens=PAGE, dtype=kvfuse.F32, rope=rope)
    status, turned, out = array("i", [0] * 4), array("f", bytes(4 * len(q))), array("f", bytes(4 * len(LENS) * HEADS * D))
    cache.store(array("f", k), array("f", v), array("q", slots), status, tokens=len(slots), positions=array("i", POSITIONS), q=array("f", q), q_out=turned)
    last = array("f", [x for t in LAST for x in turned[t * HEADS * D : (t + 1) * HEADS * D]])
    cache.decode(last, array("i", sum(table, [])), array("i", LENS), out, status, batch=len(LENS), stride=STRIDE)
    assert not any(status), f"a slot, page or length is wrong: {list(status)}"
    return list(out)


def on_gpu(torch, codec, k, v, q):
    """The fused kernels; f32 rows, flat lists in, `out` flat."""
    table, slots = give_pages()
    gpu = lambda x, dtype: torch.tensor(x, dtype=dtype, device="cuda")
    space = lambda count: torch.empty(count, dtype=torch.uint8, device="cuda")
    base = space(PAGES * KV_HEADS * codec.block_bytes(D, PAGE))
    rope = kvfuse.Rope(gpu(COS_SIN, torch.float32), max(LENS), D)
    cache = kvfuse.Cache(codec, base, PAGES, heads=HEADS, kv_heads=KV_HEADS, head_dim=D, page_tokens=PAGE, dtype=kvfuse.F32, device=0, space=space, rope=rope)
    status, out = gpu([0] * 4, torch.int32), gpu([float("nan")] * (len(LENS) * HEADS * D), torch.float32)
    rows = [gpu(x, torch.float32) for x in (k, v, q)]
    turned = torch.empty_like(rows[2])
    cache.store(rows[0], rows[1], gpu(slots, torch.int64), status, tokens=len(slots), positions=gpu(POSITIONS, torch.int32), q=rows[2], q_out=turned)
    cache.decode(turned.view(TOKENS, HEADS * D)[LAST].contiguous(), gpu(table, torch.int32), gpu(LENS, torch.int32), out, status, batch=len(LENS), stride=STRIDE)
    assert not status.any(), f"a slot, page or length is wrong: {status.tolist()}"
    return out.tolist()


def exact_attention(torch, k, v, q):
    """Attention over the rows before any coding, RoPE as Hugging Face writes it."""
    angles = torch.tensor(ANGLES)[torch.tensor(POSITIONS)].repeat(1, 2)[:, None]
    turn = lambda x: x * angles.cos() + torch.cat((-x[..., D // 2 :], x[..., : D // 2]), -1) * angles.sin()
    k = turn(torch.tensor(k).view(-1, KV_HEADS, D)).flatten().tolist()
    q = turn(torch.tensor(q).view(-1, HEADS, D))[LAST].flatten().tolist()
    k, v = (torch.tensor(x).view(-1, KV_HEADS, D).repeat_interleave(HEADS // KV_HEADS, 1) for x in (k, v))
    q, outs, begin = torch.tensor(q).view(-1, HEADS, D), [], 0
    for b, n in enumerate(LENS):
        weights = torch.softmax(torch.einsum("hd,nhd->hn", q[b], k[begin : begin + n]) / D**0.5, -1)
        outs.append(torch.einsum("hn,nhd->hd", weights, v[begin : begin + n]))
        begin += n
    return torch.stack(outs).flatten().tolist()


def main():
    try:
        import torch
    except ImportError:
        torch = None
    gpu = torch is not None and torch.cuda.is_available()
    draw = lambda count: [random.gauss(0, 1) for _ in range(count)]
    for name in sys.argv[1:] or ["bf16", "int4", "e8w4", "turboquant_4bit_nc"]:
        codec = kvfuse.Codec(name)
        k, v, q = draw(TOKENS * KV_HEADS * D), draw(TOKENS * KV_HEADS * D), draw(TOKENS * HEADS * D)
        reference = on_host(codec, k, v, q)
        other = on_gpu(torch, codec, k, v, q) if gpu else on_host(codec, k, v, q)
        worst = max(abs(a - b) for a, b in zip(reference, other))
        assert worst == 0 if codec.exact() or not gpu else worst < 1e-2, f"{name}: apart by {worst}"
        line = f"{name}: {codec.bits(D):.3f} bits a number, {'GPU against reference' if gpu else 'no GPU with torch: reference on two page orders'}, apart by {worst:g}"
        if torch is not None:
            exact = exact_attention(torch, k, v, q)
            error = sum((a - b) ** 2 for a, b in zip(other, exact)) / sum(b * b for b in exact)
            assert error < 0.5, f"{name}: relative squared error {error}"
            line += f"; relative squared error of attention {error:.2e}"
        print(line)


if __name__ == "__main__":
    main()
