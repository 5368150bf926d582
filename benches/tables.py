#!/usr/bin/env python3
"""The numbers in the tables of README.md and docs, out of benches/results.

    benches/tables.py            writes what differs
    benches/tables.py --check    lists what differs; exit code 1 if anything does

A table is known by how its heading begins, and TABLES says what fills a row of it: one that is nowhere is an error. A cell of which no
file knows keeps its text.
"""

import json
import pathlib
import re
import sys

from peers.join import best, line, times

HERE = pathlib.Path(__file__).resolve().parent
SHAPES = ["32x8192", "8x32768", "64x4096", "1x131072", "1x32768", "1x65536+31x4096", "32x128+32x4096"]


def rows(name):
    return json.loads((HERE / "results" / f"{name}.json").read_text())["results"]


PEERS = {(r.get("peer") or r["codec"], r["shape"]): r for r in rows("peers") if "us" in r}
OTHERS = times(rows("peers"), "peers", "peer")
MATRIX = {(r["codec"], r["shape"], r["group"]): r for r in rows("decode_matrix")}
WHOLE = {(r["codec"], r["shape"]): r for r in rows("decode_calibrated")}
CHUNKS = {(r["codec"], r["queries"], r["block_queries"]): r for r in rows("many_queries")}
# Of several measured cuts the fastest counts.
LATENT = {(r["format"], r["batch"], r["queries"], r["extra"], r["window"]): r for r in sorted(rows("bench_latent"), key=lambda r: -r["us"])}
# Microseconds of a step at 32 x 8192, four heads a kv head.
DECODE = {codec: r["us"] for (codec, shape, group), r in MATRIX.items() if (shape, group) == ("32x8192", 4)}
DECODE |= {codec: r["us"] for (codec, shape), r in WHOLE.items() if shape == "32x8192"}
DECODE |= {r["codec"]: r["us"] for name in ("bench_pca", "bench_kivi") for r in rows(name) if r["codec"].startswith(("pca", "kivi"))}
# Later files say the same codecs anew.
QUALITY = {r["codec"]: r for name, those in (("quality_all", ""), ("quality_cpu", ("e8", "turboquant")), ("quality_kvfuse", "kvfuse")) for r in rows(name) if r["codec"].startswith(those)}


def named(cell):
    """The codec, peer or format that a row begins with."""
    return re.split(r"[`,†* ]+", cell.strip("` "))[0]


def power(x):
    """1.49e-5, as our tables write it."""
    return re.sub(r"e([-+])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", f"{x:.2e}")


def beside(cells):
    """Microseconds, and the share of the read where a row is ours."""
    found = [PEERS.get((named(cells[0]), s)) for s in SHAPES]
    share = lambda r: f", {100 * r['share_of_ceiling']:.0f} %" if "share_of_ceiling" in r else ""
    return [r and (f"{r['us']:.1f}" if share(r) else f"{r['us']:.0f}") + share(r) for r in found]


def groups(cells):
    name = named(cells[0])
    found = [MATRIX.get((name, s, g)) for s in ("32x8192", "1x32768") for g in (1, 4, 8)]
    if (name, "32x8192") in WHOLE:
        found = [None, WHOLE[name, "32x8192"], None, None, WHOLE[name, "1x32768"], None]
    read = found[1] and f"{found[1]['read_us']:.1f}"
    return [read] + [r and f"{r['us']:.1f}" for r in found]


def several(cells):
    found = [CHUNKS.get((named(cells[0]), q, b)) for q, b in ((2, 2), (4, 2), (2048, 32))]
    return [r and f"{r['us']:.0f}, {r['row_by_row_us']:.0f}" for r in found]


def latent(cells):
    *window, extra = map(int, cells[3].split(" + "))
    r = LATENT.get((named(cells[0]), int(cells[1]), int(cells[2]), extra, sum(window)))
    return [None] * 3 + ([f"{r['us']:.1f}", f"{r['tflops']:.0f}"] if r else [None] * 2)


def losses(r):
    low, high = r["ppl_ratio_ci95"]
    return [f"{r['ppl_ratio']:.4f} [{low:.4f}, {high:.4f}]", power(r["kl_mean"])]


def results(cells):
    """Of a name that the run with other libraries left out the time is another run's, with a star."""
    name = named(cells[0])
    ours, quality = PEERS.get((name, "32x8192")), QUALITY[name]
    times = f"{best(OTHERS, '32x8192', 'fp8') / ours['us']:.2f}, {best(OTHERS, '32x8192', 'bf16') / ours['us']:.2f}" if ours else ""
    decode = f"{ours['us']:.0f}" if ours else f"{DECODE[name]:.0f} *"
    return [f"{quality['stored_bits_per_element']:.3f}", decode, times, *losses(quality), f"{100 * quality['top1']:.1f} %"]


def quality(cells):
    r = QUALITY.get(named(cells[0]))
    errors = r and [power(r[k]) for k in ("rel_mse_k", "rel_mse_v")]
    return r and [f"{r['stored_bits_per_element']:.3f}", *losses(r), power(r["kl_p999"]), f"{100 * r['top1']:.1f} %", *errors]


def codecs(cells):
    """The number after each `name` of the last cell."""
    renew = lambda m: f"`{m[1]}` {DECODE[m[1]]:.0f}" if m[1] in DECODE else m[0]
    return [None] * (len(cells) - 2) + [re.sub(r"`([^`]+)` (\d+)", renew, cells[-1])]


TABLES = {
    "| us | 32 x 8192 | 8 x 32768 |": beside,
    "| | reading | 32 x 8192, group 1 |": groups,
    "| codec | 2 tokens | 4 tokens | chunk |": several,
    "| rows | batch | query tokens |": latent,
    "| codec | bits/el | decode, us |": results,
    "| codec | bits/el | ppl ratio [95 % CI] | KL mean | KL p99.9 |": quality,
    "| name | what | bits/el, D 128 |": codecs,
}


def renewed(text, seen):
    """The lines of a page; `seen` gathers the headings that it has."""
    fill = None
    for old in text.split("\n"):
        if not old.startswith("|"):
            fill = None
        elif fill is None:
            heading = next((heading for heading in TABLES if old.startswith(heading)), None)
            seen.add(heading)
            fill = TABLES.get(heading, False)
        elif fill and not re.match(r"\|[-:|]+$", old):
            cells = [cell.strip() for cell in old.strip("|").split("|")]
            new = fill(cells)
            if new:
                assert len(new) == len(cells) - 1, f"{fill.__name__} fills {len(new)} cells of {old}"
                yield line(cells[0], [had if cell is None else cell for cell, had in zip(new, cells[1:])])
                continue
        yield old


def main():
    check, differing, seen = "--check" in sys.argv, 0, set()
    for name in ("README.md", "docs/speed.md", "docs/quality.md"):
        path = HERE.parent / name
        text = path.read_text()
        new = "\n".join(renewed(text, seen))
        for old, now in zip(text.split("\n"), new.split("\n")):
            if old != now:
                differing += 1
                print(f"{name}:\n- {old}\n+ {now}")
        if not check:
            path.write_text(new)
    if lost := TABLES.keys() - seen:
        sys.exit(f"no page has a table that begins with {sorted(lost)}; TABLES names the headings")
    if check and differing:
        sys.exit(f"{differing} rows are not those of benches/results; benches/tables.py writes them")


main()
