"""Cuts the pieces beside this file out of what transformers 5.17 computed in f32 of a trained model of this architecture.

python cut.py GOLDEN_FOLDER MODEL_FOLDER; needs numpy. GOLDEN_FOLDER holds layers.safetensors, logits.safetensors and nll_f32.npy of two
passages: attention inputs and outputs, rows, routes and streams of layers 0 (window alone), 2 (groups of 4) and 3 (groups of 128).
"""
import json
import os
import struct
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
KINDS = {"F32": np.float32, "I32": np.int32, "U8": np.uint8}
GOLDEN, MODEL = sys.argv[1:3]


def read(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        if entry["dtype"] in KINDS:
            found[name] = np.frombuffer(data[8 + size + first:8 + size + end], KINDS[entry["dtype"]]).reshape(entry["shape"])
    return found


def write(path, tensors):
    header, body = {}, b""
    for name, value in sorted(tensors.items()):
        kind = next(k for k, v in KINDS.items() if v == value.dtype)
        raw = np.ascontiguousarray(value).tobytes()
        header[name] = dict(dtype=kind, shape=list(value.shape), data_offsets=[len(body), len(body) + len(raw)])
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + body)


full = read(os.path.join(GOLDEN, "layers.safetensors"))
weights = {}
for shard in sorted(f for f in os.listdir(MODEL) if f.endswith(".safetensors")):
    weights.update(read(os.path.join(MODEL, shard)))
cut = {}
# queries of some positions with all rows that they read; rows of "F" are positions 0..15 and 608..639, of "W" 0..63 and 480..639
for layer, queries, window, groups in ((0, slice(0, 4), slice(0, 4), 0), (2, slice(12, 16), slice(0, 16), 4), (3, slice(47, 48), slice(96, 224), 5)):
    at = f"l{layer}."
    cut[at + "q"] = full[at + "q_post_rope"][queries]
    cut[at + "window"] = full[at + "window_kv_post_rope"][window]
    cut[at + "out"] = full[at + "attn_ctx_pre_o_a_proj"][queries]
    cut[at + "sinks"] = weights[f"layers.{layer}.attn.attn_sink"]
    if groups:
        cut[at + "groups"] = full[at + "compressed_rows_post_rope"][:groups]
for what in ("fn", "base", "scale"):
    cut["hc." + what] = weights[f"layers.2.hc_attn_{what}"]
for what in ("post", "comb", "collapsed"):
    cut["hc." + what] = full["l2.attn_hc_" + what]
for layer in (0, 2):
    for index, what in enumerate(("logits", "weights", "experts")):
        cut[f"l{layer}.router_{what}"] = full[f"l{layer}.router_out{index}_last16"]
cut["l2.router_bias"] = weights["layers.2.ffn.gate.bias"]
# of the last position, for a run of the whole model
for layer in range(6):
    cut[f"l{layer}.streams"] = full[f"l{layer}.layer_out_streams_last4"]
for layer in (0, 2, 3):
    for name in ("q_post_rope", "window_kv_post_rope", "attn_ctx_pre_o_a_proj"):
        cut[f"l{layer}.last.{name}"] = full[f"l{layer}.{name}"][-1]
for layer in (2, 3):
    cut[f"l{layer}.last.compressed_rows_post_rope"] = full[f"l{layer}.compressed_rows_post_rope"][-1]
write(os.path.join(HERE, "pieces.safetensors"), cut)
logits = read(os.path.join(GOLDEN, "logits.safetensors"))
write(os.path.join(HERE, "logits.safetensors"), dict(ids=logits["ids"], logits=logits["logits"][:, [0, 31, 63]],
                                                     positions=np.array([576, 607, 639], np.int32)))
np.save(os.path.join(HERE, "nll.npy"), np.load(os.path.join(GOLDEN, "nll_f32.npy"))[:4])
