"""Token ids for `harness ppl --corpus`, from plain text and a model's own tokenizer.

pip install transformers numpy
python passages.py MODEL_FOLDER out.npy --ctx 4096 --passages 48 book.txt notes.txt ...

Passages do not overlap; each has ctx + 1 tokens, so that the last position has a token to predict, and starts with the
tokenizer's BOS if it has one.
"""
import argparse

import numpy as np
from transformers import AutoTokenizer

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("model")
p.add_argument("out")
p.add_argument("text", nargs="+")
p.add_argument("--ctx", type=int, default=4096)
p.add_argument("--passages", type=int, default=48)
a = p.parse_args()

tokenizer = AutoTokenizer.from_pretrained(a.model)
first = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
wanted, ids = a.ctx + 1 - len(first), []
for path in a.text:
    with open(path, encoding="utf-8") as f:
        ids += tokenizer(f.read(), add_special_tokens=False)["input_ids"]
count = min(a.passages, len(ids) // wanted)
if count < a.passages:
    print(f"the text holds {count} passages of {a.ctx + 1} tokens, not {a.passages}; give more text or a smaller --ctx")
if count == 0:
    raise SystemExit(1)
rows = [first + ids[i * wanted:(i + 1) * wanted] for i in range(count)]
np.save(a.out, np.array(rows, dtype=np.int32))
print(f"wrote {a.out}: {count} passages of {a.ctx + 1} tokens")
