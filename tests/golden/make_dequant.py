"""Writes dequant.bin: random blocks of every element type and their values, by `gguf`'s own
numpy dequantisers (pip install gguf). Layout, little-endian, one record a type:

    type id u32 | blocks u32 | bytes of all blocks | values f32 of all blocks
"""

import pathlib
import struct

import gguf
import numpy as np

TYPES = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K".split()
# Where in a block the f16 scales lie.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}  # fmt: skip

rng = np.random.default_rng(7)
records = []
for name in TYPES:
    dtype = gguf.GGMLQuantizationType[name]
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[dtype]
    n_blocks = 256 if block_len == 1 else 8 if block_len == 32 else 4
    blocks = rng.integers(0, 256, (n_blocks, block_bytes), dtype=np.uint8)
    for at in SCALES.get(name, []):
        scale = rng.normal(0, 0.1, n_blocks).astype("<f2")
        scale[0] = np.float16(6e-8)  # a subnormal
        blocks[:, at : at + 2] = scale.view(np.uint8).reshape(n_blocks, 2)
    if block_len == 1:  # any finite number
        blocks = rng.normal(0, 1, n_blocks).astype("<f4")
        if name == "F16":
            blocks = blocks.astype("<f2")
        if name == "BF16":
            blocks = (blocks.view("<u4") >> 16).astype("<u2")
        blocks = blocks.view(np.uint8).reshape(n_blocks, block_bytes)
    values = gguf.dequantize(blocks, dtype).astype("<f4").reshape(-1)
    assert np.isfinite(values).all() and values.size == n_blocks * block_len
    records.append(struct.pack("<II", dtype.value, n_blocks) + blocks.tobytes() + values.tobytes())
pathlib.Path(__file__).with_name("dequant.bin").write_bytes(b"".join(records))
