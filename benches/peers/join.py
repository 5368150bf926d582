"""Joins our decode times with the peers' into one Markdown table and one SVG.

    python benches/peers/join.py OURS.json PEERS.json TABLE.md PLOT.svg

Both files hold rows of one run on one machine: objects a line, or a step of scripts/gpu with `results`.
`floor` is the time to read the codec's bytes, measured beside it.
"""

import json
import sys


def rows_of(path):
    text = open(path).read()
    try:
        return json.loads(text)["results"]
    except (json.JSONDecodeError, KeyError):
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def times(rows, key):
    """{name: {shape: microseconds}}, in order of appearance."""
    found = {}
    for r in rows:
        if "us" in r and r.get("group", 4) == 4:
            found.setdefault(r[key], {})[f"{r['batch']}x{r['ctx']}"] = r["us"]
    return found


def best(peers, shape, *words):
    names = [n for n in peers if shape in peers[n] and any(w in n for w in words)]
    return min((peers[n][shape], n) for n in names) if names else None


def table(ours, peers, shapes):
    def line(name, cells):
        return f"| {name} | " + " | ".join(cells) + " |"

    out = [line("us", shapes), "|---|" + "--:|" * len(shapes)]
    for name, at in list(peers.items()) + list(ours.items()):
        out.append(line(name if name in peers else f"**{name}**", [f"{at[s]:.1f}" if s in at else "" for s in shapes]))
    out += ["", line("times faster than the best fp8 / the best bf16 peer", shapes), "|---|" + "--:|" * len(shapes)]
    for name, at in ours.items():
        cells = []
        for s in shapes:
            refs = [best(peers, s, "fp8"), best(peers, s, "bf16")]
            cells.append(" / ".join(f"{r[0] / at[s]:.2f}" if r else "?" for r in refs) if s in at else "")
        out.append(line(name, cells))
    return "\n".join(out) + "\n"


def plot(ours, peers, shape):
    """Horizontal bars of one shape, slowest first; ours are dark."""
    both = [(at[shape], n, n in ours) for n, at in list(peers.items()) + list(ours.items()) if shape in at]
    both.sort(reverse=True)
    # One bar above four times the best fp8 peer would flatten the others: it is cut, its number stays.
    fp8 = best(peers, shape, "fp8")
    top = min(max(b[0] for b in both), 4 * fp8[0] if fp8 else 1e9)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {40 + 20 * len(both)}" font-family="sans-serif" font-size="12">']
    out.append(f'<text x="8" y="20" font-size="14">Decode attention, {shape.replace("x", " sequences x ")} tokens, microseconds</text>')
    for i, (us, name, own) in enumerate(both):
        y, w = 34 + 20 * i, 480 * min(us, top) / top
        out.append(f'<text x="190" y="{y + 12}" text-anchor="end">{name}</text>')
        out.append(f'<rect x="198" y="{y}" width="{w:.1f}" height="15" fill="{"#1b6ca8" if own else "#b8bec6"}"/>')
        out.append(f'<text x="{204 + w:.1f}" y="{y + 12}">{us:.0f}{" (cut)" if us > top else ""}</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    ours, peers = times(rows_of(sys.argv[1]), "codec"), times(rows_of(sys.argv[2]), "peer")
    shapes = list(dict.fromkeys(s for at in list(peers.values()) + list(ours.values()) for s in at))
    open(sys.argv[3], "w").write(table(ours, peers, shapes))
    open(sys.argv[4], "w").write(plot(ours, peers, shapes[0]))
    print(open(sys.argv[3]).read())


main()
