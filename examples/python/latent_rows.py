"""DeepSeek-V4's attention in miniature: a window and chosen compressed rows under one softmax with sinks.

    python3 examples/python/latent_rows.py [FORMAT...]

With torch and a GPU: the fused kernels beside the scalar reference, bit for bit. Without: the reference with rows in two
orders of places, which must not change a bit.
"""

import random
import sys
from array import array

from kvfuse_latent import DIM, Latent, Rows, row_bytes

HEADS, TOKENS, NEAR, FAR, CAPACITIES = 64, 2, 150, 200, (128, 96)
LENS = [128, 96, 128, 0]


def bf16(x):
    """The upper halves of f32 numbers."""
    return array("H", memoryview(array("f", x)).cast("B").cast("H")[1::2].tolist())


def places():
    """Every row its place, and the lists of the two tokens: the window ends at the token, the others are chosen."""
    near, far = random.sample(range(NEAR), NEAR), random.sample(range(FAR), FAR)
    window = [near[NEAR - TOKENS + 1 + t - CAPACITIES[0] + i] for t in range(TOKENS) for i in range(CAPACITIES[0])]
    return near, far, window, [far[(7 * i + t) % FAR] for t in range(TOKENS) for i in range(CAPACITIES[1])]


def run(format, near, far, q, sinks, make, space, device):
    """`make(code, numbers)` puts numbers where the calls want them, `space(bytes)` gives memory there; (out, lse) as bytes."""
    near_at, far_at, window, chosen = places()
    latent = Latent(format, device=device, space=space)
    caches = [Rows(format, space(n * row_bytes(format)), n) for n in (NEAR, FAR)]
    status, out, lse = make("i", [0] * 4), make("H", [0] * len(q)), make("f", [0.0] * (TOKENS * HEADS))
    keep = [make("f", near), make("q", near_at), make("f", far), make("q", far_at)]
    latent.store(caches[0], *keep[:2], status, rows=NEAR)
    latent.store(caches[1], *keep[2:], status, rows=FAR)
    keep += [make("H", q), make("i", window), make("i", chosen), make("i", LENS), make("f", sinks)]
    latent.decode(*caches, *keep[4:], out, lse, tokens=TOKENS, heads=HEADS, capacities=CAPACITIES, share=128)
    read = lambda x: bytes(x.cpu().contiguous().view(torch.uint8).numpy()) if device >= 0 else x.tobytes()
    assert not any(read(status)), "a slot is wrong"
    return read(out), read(lse)


def main():
    global torch
    try:
        import torch
    except ImportError:
        torch = None
    gpu = torch is not None and torch.cuda.is_available()
    kinds = {"f": "float32", "i": "int32", "q": "int64", "H": "int16"}
    signed = lambda code, x: [v - 65536 if v > 32767 else v for v in x] if code == "H" else list(x)
    there = lambda code, x: torch.tensor(signed(code, x), dtype=getattr(torch, kinds[code]), device="cuda")
    # bytearrays begin at multiples of 16.
    host = (array, bytearray, -1)
    other = (there, lambda n: torch.empty(n, dtype=torch.uint8, device="cuda"), 0) if gpu else host
    draw = lambda count: [random.gauss(0, 1) for _ in range(count)]
    for format in sys.argv[1:] or ["v4_e8w4_int8", "v4_int8_int8"]:
        problem = draw(NEAR * DIM), draw(FAR * DIM), bf16(draw(TOKENS * HEADS * DIM)), draw(HEADS)
        reference, found = run(format, *problem, *host), run(format, *problem, *other)
        assert reference == found and any(reference[0]), f"{format}: bits differ"
        print(f"{format}: {row_bytes(format)} bytes a row, {'GPU against reference' if gpu else 'no GPU with torch: reference with rows in other places'}, every bit equal")


if __name__ == "__main__":
    main()
