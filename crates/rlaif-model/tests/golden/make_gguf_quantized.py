"""Float32 values in the blocks that the reference writes (PyPI package `gguf`, llama.cpp's own).

usage: pip install gguf; python make_gguf_quantized.py > gguf_quantized.json

Among the values: a block of zeros, halves that round away from zero, one outlier, denormals of float16, and noise.
"""
import json, sys
import numpy as np
import gguf
from gguf import GGMLQuantizationType as Q

rng = np.random.default_rng(20261127)
blocks = [
    np.zeros(32),
    np.concatenate([[127.0], np.arange(-15.5, 15.5)]),  # d = 1: every other value is a tie
    np.concatenate([[-254.0], np.arange(-31, 31, 2)]),  # d = 2
    np.concatenate([[30.0], rng.standard_normal(31) * 1e-2]),
    rng.standard_normal(32) * 1e-7,
    rng.standard_normal(32) * 0.02,
    rng.standard_normal(32),
]
values = np.concatenate(blocks).astype("<f4")
out = {"made_by": f"gguf {__import__('importlib.metadata').metadata.version('gguf')}, numpy {np.__version__}",
       "values": values.view("<u4").tolist(), "bytes": {}}
for kind in [Q.F16, Q.BF16, Q.Q8_0]:
    out["bytes"][kind.name] = gguf.quants.quantize(values.reshape(-1, 32), kind).tobytes().hex()
json.dump(out, sys.stdout)
print()
