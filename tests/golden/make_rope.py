"""Writes rope.json: frequencies after scaling, by the formulas of transformers'
modeling_rope_utils.py (Apache-2.0) in double precision."""

import json
import math
import pathlib


def yarn(case, inverse):
    dim, base = case["rotated"], case["theta"]

    def correction_dim(rotations):
        return dim * math.log(case["original"] / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = correction_dim(case["beta_fast"]), correction_dim(case["beta_slow"])
    if case["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    for i, extrapolated in enumerate(inverse):
        ramp = min(max((i - low) / (high - low), 0), 1)
        interpolated = extrapolated / case["factor"]
        yield interpolated * ramp + extrapolated * (1 - ramp)


def llama3(case, inverse):
    low_wave = case["original"] / case["low_freq_factor"]
    high_wave = case["original"] / case["high_freq_factor"]
    for frequency in inverse:
        wave = 2 * math.pi / frequency
        if wave > low_wave:
            yield frequency / case["factor"]
        elif wave < high_wave:
            yield frequency
        else:
            span = case["high_freq_factor"] - case["low_freq_factor"]
            smooth = (case["original"] / wave - case["low_freq_factor"]) / span
            yield (1 - smooth) * frequency / case["factor"] + smooth * frequency


def solve(case):
    dim, base = case["rotated"], case["theta"]
    inverse = [1.0 / base ** (i / dim) for i in range(0, dim, 2)]
    magnitude = 1.0
    if case["type"] == "linear":
        inverse = [f / case["factor"] for f in inverse]
    if case["type"] == "llama3":
        inverse = list(llama3(case, inverse))
    if case["type"] == "yarn":
        inverse = list(yarn(case, inverse))
        magnitude = 0.1 * math.log(case["factor"]) + 1.0 if case["factor"] > 1 else 1.0
    return case | {"frequencies": inverse, "magnitude": magnitude}


LLAMA3 = {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
CASES = [
    {"type": "default", "theta": 1e5, "rotated": 64},
    {"type": "default", "theta": 1e4, "rotated": 80},
    {"type": "linear", "theta": 1e4, "rotated": 64, "factor": 4.0},
    LLAMA3 | {"theta": 5e5, "rotated": 128, "original": 8192},
    LLAMA3 | {"theta": 5e5, "rotated": 64, "original": 8192, "factor": 32.0},
    YARN | {"theta": 1e6, "rotated": 128, "original": 32768},
    YARN | {"theta": 1e4, "rotated": 64, "original": 4096, "truncate": False},
    YARN | {"theta": 1e4, "rotated": 16, "original": 64, "factor": 2.0},
    YARN | {"theta": 1e6, "rotated": 128, "original": 32768, "factor": 1.0},
    YARN | {"theta": 1e4, "rotated": 32, "original": 2048, "beta_fast": 16.0, "beta_slow": 2.0},
]
text = ",\n".join(json.dumps(solve(case)) for case in CASES)
pathlib.Path(__file__).with_name("rope.json").write_text(f"[{text}]\n")
