"""Joins our decode times with the peers' of the same run into one Markdown table and one SVG.

    python benches/peers/join.py ROWS TABLE.md PLOT.svg [HEADS]

ROWS: what `benches/peers/run` left, a JSON object a line, or the step of scripts/gpu that holds it as `results`; of them those of
so many query heads, 32 by default.
Besides microseconds the table says how many times faster than the best fp8 peer, than the best bf16 peer, and than
vLLM's kernel for the same preset; `worst` is the least of it over the shapes.
"""

import json
import sys


def rows_of(path):
    text = open(path).read()
    try:
        whole = json.loads(text)
        return whole["results"], whole
    except (json.JSONDecodeError, KeyError):
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")], {}


def times(rows, bench, key, heads=32):
    """{name: {shape: microseconds}}, in order of appearance."""
    found = {}
    for r in rows:
        if r["bench"] == bench and "us" in r and r.get("heads", 32) == heads:
            found.setdefault(r[key], {})[r["shape"]] = r["us"]
    return found


def best(peers, shape, word):
    """The fastest peer with that word in its name: microseconds, or None."""
    return min((at[shape] for n, at in peers.items() if shape in at and word in n.split("_")), default=None)


def line(name, cells):
    return f"| {name} | " + " | ".join(cells) + " |"


def microseconds(ours, peers, shapes):
    out = [line("us", shapes), "|---|" + "--:|" * len(shapes)]
    for name, at in [*peers.items(), *((f"**{n}**", at) for n, at in ours.items())]:
        out.append(line(name, [f"{at[s]:.1f}" if s in at else "" for s in shapes]))
    return out


def ratios(ours, title, shapes, reference):
    """A table of `reference(name, shape) / ours`, without the names that have no reference."""
    out = [line(title, [*shapes, "worst"]), "|---|" + "--:|" * (len(shapes) + 1)]
    for name, at in ours.items():
        found = {s: reference(name, s) / at[s] for s in shapes if s in at and reference(name, s)}
        if found:
            out.append(line(name, [*(f"{found[s]:.2f}" if s in found else "" for s in shapes), f"**{min(found.values()):.2f}**"]))
    return out


def table(ours, peers, shapes, about, heads):
    facts = [str(about[k]) for k in ("device", "driver", "commit", "date", "command") if k in about]
    parts = [
        ["# Decode attention beside other libraries", "", f"{heads} query heads, 8 kv heads, D 128, cold L2, joins included; one run. " + ", ".join(facts)],
        microseconds(ours, peers, shapes),
        ratios(ours, "times faster than the best fp8 peer", shapes, lambda n, s: best(peers, s, "fp8")),
        ratios(ours, "times faster than the best bf16 peer", shapes, lambda n, s: best(peers, s, "bf16")),
        ratios(ours, "times faster than vLLM with the same preset", shapes, lambda n, s: peers.get(f"vllm_{n}", {}).get(s)),
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def plot(ours, peers, shape):
    """Horizontal bars of one shape, slowest first; ours are dark."""
    both = [(at[shape], n, n in ours) for n, at in [*peers.items(), *ours.items()] if shape in at]
    both.sort(reverse=True)
    # One bar above four times the best fp8 peer would flatten the others: it is cut, its number stays.
    fp8 = best(peers, shape, "fp8")
    top = min(max(b[0] for b in both), 4 * fp8 if fp8 else 1e9)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {40 + 20 * len(both)}" font-family="sans-serif" font-size="12">']
    out.append(f'<text x="8" y="20" font-size="14">Decode attention, {shape.replace("x", " sequences x ")} tokens, microseconds</text>')
    for i, (us, name, own) in enumerate(both):
        y, w = 34 + 20 * i, 480 * min(us, top) / top
        out.append(f'<text x="190" y="{y + 12}" text-anchor="end">{name}</text>')
        out.append(f'<rect x="198" y="{y}" width="{w:.1f}" height="15" fill="{"#1b6ca8" if own else "#b8bec6"}"/>')
        out.append(f'<text x="{204 + w:.1f}" y="{y + 12}">{us:.0f}{" (cut)" if us > top else ""}</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    heads = int(sys.argv[4]) if len(sys.argv) > 4 else 32
    rows, about = rows_of(sys.argv[1])
    ours, peers = times(rows, "decode_attention", "codec", heads), times(rows, "peers", "peer", heads)
    shapes = list(dict.fromkeys(s for at in [*peers.values(), *ours.values()] for s in at))
    if not ours or not peers:
        sys.exit(f"{sys.argv[1]} holds {len(ours)} codecs of ours and {len(peers)} peers; both are needed")
    for path, text in [(sys.argv[2], table(ours, peers, shapes, about, heads)), (sys.argv[3], plot(ours, peers, shapes[0]))]:
        with open(path, "w") as f:
            f.write(text)
    print(open(sys.argv[2]).read())


if __name__ == "__main__":
    main()
