"""Blocks of every GGUF tensor type we read, and their values by the reference (PyPI package `gguf`, llama.cpp's own).

usage: pip install gguf; python make_gguf_blocks.py > gguf_blocks.json

The blocks are random bytes with finite scales, so that every bit of a block matters; values are given as float32 bits.
"""
import json, sys
import numpy as np
import gguf
from gguf import GGMLQuantizationType as Q
from gguf.constants import GGML_QUANT_SIZES

rng = np.random.default_rng(20260101)
# Byte offsets of the float16 scales in a block.
SCALES = {Q.F16: [0], Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0],
          Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}
out = {"made_by": f"gguf {__import__('importlib.metadata').metadata.version('gguf')}, numpy {np.__version__}", "types": {}}
for kind in [Q.F32, Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q4_K, Q.Q5_K, Q.Q6_K]:
    length, size = GGML_QUANT_SIZES[kind]
    count = 3 if length > 1 else 5
    blocks = rng.integers(0, 256, size=(count, size), dtype=np.uint8)
    if kind == Q.F32:
        blocks = rng.standard_normal((count, 1)).astype("<f4").view(np.uint8)
    elif kind == Q.BF16:
        blocks = np.ascontiguousarray(rng.standard_normal((count, 1)).astype("<f4").view(np.uint8)[:, 2:])
    for block in blocks:
        for at in SCALES.get(kind, []):
            block[at:at + 2] = np.array([rng.standard_normal() * 0.1], dtype="<f2").view(np.uint8)
    values = gguf.quants.dequantize(blocks, kind).astype("<f4").reshape(-1)
    assert np.isfinite(values).all() and values.size == count * length
    out["types"][kind.name] = {"bytes": blocks.tobytes().hex(), "values": values.view("<u4").tolist()}
json.dump(out, sys.stdout)
print()
