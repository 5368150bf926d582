"""Decode attention of other libraries, timed as benches/decode_attention.rs times ours.

    pip install torch flashinfer-python vllm
    python benches/peers/decode.py --out peers.jsonl [--shapes 32x8192,1x65536+31x4096] [--heads 64] [--only xqa_fp8]

32 query heads unless `--heads` says otherwise, 8 kv heads, head size 128, shuffled pages. Each time is the median of replays of a CUDA
graph that walks over copies of the cache, more bytes than the L2 holds; where a peer has several forms, the
fastest counts. Every peer's output is compared with float32 attention over what the peer itself stored
(`error`, relative; the first sequence); a peer that is not installed or fails is a line with `failed`, and
counts as such. `benches/peers/run` runs this beside our own bench.
"""

import argparse
import json
import math
import subprocess

import torch

HEADS, KV_HEADS, D = 32, 8, 128
SCALE = 1 / math.sqrt(D)
L2 = 64 << 20


def driver():
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(ask, capture_output=True, text=True).stdout.split("\n")[0].strip()


def median_us(run, copies, replays=9):
    """Microseconds of one `run(copy)`, cold: a graph of every copy in turn."""
    for i in range(copies):
        run(i)
    torch.cuda.synchronize()
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        run(0)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            for i in range(copies):
                run(i)
    times = []
    for _ in range(replays):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / copies)
    return sorted(times)[len(times) // 2]


def lens_of(shape):
    """Tokens of each sequence of a shape: `1x65536+31x4096`."""
    parts = [tuple(map(int, part.split("x"))) for part in shape.split("+")]
    return [tokens for count, tokens in parts for _ in range(count)]


class Problem:
    """Queries, rows and a page table of one shape; `page` tokens a page."""

    def __init__(self, lens, page):
        g = torch.Generator(device="cuda").manual_seed(sum(lens) + page)
        self.batch, self.most, self.page = len(lens), max(lens), page
        self.uniform = min(lens) == self.most
        self.of_each = [n // page for n in lens]
        self.pages = sum(self.of_each)
        self.q = torch.randn(self.batch, HEADS, D, device="cuda", generator=g).bfloat16()
        # The pages of every sequence in turn, and the same as rows of a table.
        self.order = torch.randperm(self.pages, device="cuda", generator=g).int()
        self.table = torch.zeros(self.batch, max(self.of_each), dtype=torch.int32, device="cuda")
        for row, own in zip(self.table, self.order.split(self.of_each)):
            row[: len(own)] = own
        self.lens = torch.tensor(lens, dtype=torch.int32, device="cuda")
        self.first = lens[0]
        self.g = g

    def copies(self, bytes_of_one):
        return max(4, -(-4 * L2 // bytes_of_one)) if bytes_of_one < 2 * L2 else 4

    def rows(self, dtype):
        """A cache [pages, page, kv heads, d] of random rows."""
        shape = (self.pages, self.page, KV_HEADS, D)
        return torch.randn(shape, device="cuda", generator=self.g, dtype=torch.bfloat16).to(dtype)

    def exact(self, k, v):
        """Attention of the first sequence in float32 over NHD pages: [heads, d]."""
        own = self.order[: self.of_each[0]].long()
        k, v = (x[own].reshape(self.first, KV_HEADS, D).float() for x in (k, v))
        q = self.q[0].float().view(KV_HEADS, HEADS // KV_HEADS, D)
        p = torch.softmax(torch.einsum("hgd,thd->hgt", q, k) * SCALE, -1)
        return torch.einsum("hgt,thd->hgd", p, v).reshape(HEADS, D)


def error_of(out, exact):
    return ((out.float() - exact).norm() / exact.norm()).item()


def flash_attention_3(p, dtype):
    """FlashAttention 3 as vLLM builds it. Fp8: queries too, one scale."""
    from vllm.vllm_flash_attn import flash_attn_varlen_func, get_scheduler_metadata

    q = p.q.to(dtype)
    bytes_of_one = 2 * p.pages * p.page * KV_HEADS * D * dtype.itemsize
    caches = [(p.rows(dtype), p.rows(dtype)) for _ in range(p.copies(bytes_of_one))]
    starts = torch.arange(p.batch + 1, dtype=torch.int32, device="cuda")
    out = torch.empty(p.batch, HEADS, D, dtype=torch.bfloat16, device="cuda")
    plan = get_scheduler_metadata(
        batch_size=p.batch, max_seqlen_q=1, max_seqlen_k=p.most, num_heads_q=HEADS, num_heads_kv=KV_HEADS, headdim=D,
        cache_seqlens=p.lens, qkv_dtype=dtype, cu_seqlens_q=starts, page_size=p.page, causal=True, num_splits=0,
    )
    one = torch.ones(p.batch, KV_HEADS, device="cuda") if dtype == torch.float8_e4m3fn else None

    def run(i):
        flash_attn_varlen_func(
            q, *caches[i], 1, starts, p.most, seqused_k=p.lens, softmax_scale=SCALE, causal=True, block_table=p.table,
            out=out, scheduler_metadata=plan, q_descale=one, k_descale=one, v_descale=one, fa_version=3,
        )

    return run, len(caches), bytes_of_one, lambda: (run(0), error_of(out[0], p.exact(*caches[0])))[1]


def flashinfer_decode(p, dtype):
    import flashinfer

    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(torch.empty(256 << 20, dtype=torch.uint8, device="cuda"), "NHD", use_tensor_cores=True)
    starts = torch.tensor([0, *p.of_each], device="cuda").cumsum(0).int()
    last = torch.full((p.batch,), p.page, dtype=torch.int32, device="cuda")
    wrapper.plan(starts, p.order, last, HEADS, KV_HEADS, D, p.page, q_data_type=torch.bfloat16, kv_data_type=dtype)
    bytes_of_one = 2 * p.pages * p.page * KV_HEADS * D * dtype.itemsize
    caches = [(p.rows(dtype), p.rows(dtype)) for _ in range(p.copies(bytes_of_one))]
    out = torch.empty_like(p.q)
    run = lambda i: wrapper.run(p.q, caches[i], out=out)
    return run, len(caches), bytes_of_one, lambda: (run(0), error_of(out[0], p.exact(*caches[0])))[1]


def flashinfer_xqa(p, dtype):
    """XQA, the decode kernel of TensorRT-LLM; with fp8 rows the products are fp8 too."""
    from flashinfer.xqa import xqa

    bytes_of_one = 2 * p.pages * p.page * KV_HEADS * D * dtype.itemsize
    caches = [(p.rows(dtype), p.rows(dtype)) for _ in range(p.copies(bytes_of_one))]
    q = p.q.view(p.batch, 1, HEADS, D)
    out = torch.empty_like(q)
    work = torch.zeros(512 << 20, dtype=torch.uint8, device="cuda")
    locks = torch.zeros(8 << 20, dtype=torch.uint8, device="cuda")
    lens = p.lens.view(p.batch, 1).to(torch.uint32)
    run = lambda i: xqa(q, *caches[i], p.table, lens, out, work, locks, KV_HEADS, p.page)
    return run, len(caches), bytes_of_one, lambda: (run(0), error_of(out[0, 0], p.exact(*caches[0])))[1]


def sdpa(p, backend):
    """Torch's attention over sequences side by side, without pages; the heads of a group as rows of one query."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if not p.uniform:
        raise ValueError("takes sequences of one length")
    bytes_of_one = 2 * p.pages * p.page * KV_HEADS * D * 2
    q = p.q.view(p.batch, KV_HEADS, HEADS // KV_HEADS, D)
    caches = [(p.rows(torch.bfloat16), p.rows(torch.bfloat16)) for _ in range(p.copies(bytes_of_one))]
    side = lambda x: x.view(p.batch, p.most, KV_HEADS, D).transpose(1, 2)
    out = {}

    def run(i):
        with sdpa_kernel(getattr(SDPBackend, backend)):
            out[0] = torch.nn.functional.scaled_dot_product_attention(q, *map(side, caches[i]), scale=SCALE)

    def error():
        run(0)
        k, v = (side(x)[0].transpose(0, 1).float() for x in caches[0])
        w = torch.softmax(torch.einsum("hgd,thd->hgt", q[0].float(), k) * SCALE, -1)
        return error_of(out[0][0], torch.einsum("hgt,thd->hgd", w, v))

    return run, len(caches), bytes_of_one, error


def hadamard(d):
    h = torch.ones(1, 1, device="cuda")
    while h.shape[0] < d:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h / math.sqrt(d)


def turboquant(p, preset, splits):
    """vLLM's Triton kernels. The error is that of the kernel and of its codec together."""
    from vllm.model_executor.layers.quantization.turboquant.centroids import get_centroids
    from vllm.model_executor.layers.quantization.turboquant.config import TurboQuantConfig
    from vllm.v1.attention.ops.triton_turboquant_decode import triton_turboquant_decode_attention
    from vllm.v1.attention.ops.triton_turboquant_store import triton_turboquant_store

    c = TurboQuantConfig.from_cache_dtype(preset, D)
    pi = hadamard(D)
    centroids = get_centroids(D, c.centroid_bits).cuda()
    middles = (centroids[1:] + centroids[:-1]) / 2
    bytes_of_one = p.pages * p.page * KV_HEADS * c.slot_size_aligned
    tokens = p.pages * p.page
    k, v = (p.rows(torch.bfloat16) for _ in range(2))
    caches = []
    for _ in range(p.copies(bytes_of_one)):
        cache = torch.zeros(p.pages, p.page, KV_HEADS, c.slot_size_aligned, dtype=torch.uint8, device="cuda")
        for at in range(0, tokens, 8192):
            slots = torch.arange(at, min(at + 8192, tokens), device="cuda")
            part = (x.view(tokens, KV_HEADS, D)[at : at + 8192] for x in (k, v))
            triton_turboquant_store(*part, cache, slots, pi, middles, c.mse_bits, c.key_packed_size, c.effective_value_quant_bits, key_fp8=c.key_fp8)
        caches.append(cache)
    mid = torch.empty(p.batch, HEADS, splits, D + 1, device="cuda")
    out, lse = torch.empty_like(p.q), torch.empty(p.batch, HEADS, device="cuda")

    def run(i):
        triton_turboquant_decode_attention(
            p.q, caches[i], p.table, p.lens, pi, centroids, SCALE, c.mse_bits, c.key_packed_size, c.effective_value_quant_bits,
            key_fp8=c.key_fp8, norm_correction=c.norm_correction, PiT=pi, mid_o_buf=mid, output_buf=out, lse_buf=lse, max_num_kv_splits=splits,
        )

    return run, len(caches), bytes_of_one, lambda: (run(0), error_of(out[0], p.exact(k, v)))[1]


BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn
# Name, tokens of a page, the forms to try (the fastest counts).
PEERS = [
    ("fa3_bf16", 128, [lambda p: flash_attention_3(p, BF16)]),
    ("fa3_fp8", 128, [lambda p: flash_attention_3(p, FP8)]),
    ("flashinfer_bf16", 64, [lambda p: flashinfer_decode(p, BF16)]),
    ("flashinfer_fp8", 64, [lambda p: flashinfer_decode(p, FP8)]),
    ("xqa_bf16", 64, [lambda p: flashinfer_xqa(p, BF16)]),
    ("xqa_fp8", 64, [lambda p: flashinfer_xqa(p, FP8)]),
    ("sdpa_bf16", 64, [lambda p, b=b: sdpa(p, b) for b in ("CUDNN_ATTENTION", "FLASH_ATTENTION")]),
] + [
    (f"vllm_{preset}", 16, [lambda p, preset=preset, s=s: turboquant(p, preset, s) for s in (32, 128)])
    for preset in ("turboquant_k8v4", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_3bit_nc")
]


def versions():
    found = {"torch": torch.__version__}
    for name in ("flashinfer", "vllm", "triton"):
        try:
            found[name] = __import__(name).__version__
        except Exception:
            found[name] = None
    return found


def measured(forms, lens, page):
    """Of the fastest form: microseconds, bytes and error. A form that fails is left out while another works."""
    best, why = {"us": math.inf}, None
    for form in forms:
        try:
            run, copies, size, check = form(Problem(lens, page))
            found = {"kv_bytes": size, "error": check(), "us": median_us(run, copies)}
            best = min(best, found, key=lambda x: x["us"])
        except Exception as e:
            why = f"{type(e).__name__}: {e}"[:300]
        torch.cuda.empty_cache()
    return {"failed": why} if math.isinf(best["us"]) else best


def main():
    global HEADS
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--shapes", default="32x8192,8x32768,64x4096,1x131072,1x32768,1x65536+31x4096,32x128+32x4096")
    args.add_argument("--heads", type=int, default=HEADS)
    args.add_argument("--only", default="")
    args.add_argument("--out", required=True)
    args = args.parse_args()
    HEADS = args.heads
    about = {"device": torch.cuda.get_device_name(), "driver": driver(), "versions": versions()}
    only = [x for x in args.only.split(",") if x]
    failed = 0
    with open(args.out, "a") as f:
        for name, page, forms in PEERS:
            if only and name not in only:
                continue
            for shape in args.shapes.split(","):
                lens = lens_of(shape)
                row = {"bench": "peers", "peer": name, "shape": shape, "heads": HEADS, "kv_heads": KV_HEADS, "d": D, **about, **measured(forms, lens, page)}
                failed += "failed" in row
                # A line that begins with FAILED fails the step; that a peer cannot serve ragged batches does not.
                print(f"{name:24} {shape:16} " + (f"{row['us']:9.1f} us  error {row['error']:.1e}" if "us" in row else f"failed: {row['failed']}"), flush=True)
                f.write(json.dumps(row) + "\n")
                f.flush()
    print(f"{failed} failed")


main()
