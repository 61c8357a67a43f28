"""Medians and ratios of paired runs: summarise.py LENGTH ROWS.jsonl"""
import json
import statistics
import sys

length, path = sys.argv[1:]
rows = [json.loads(line) for line in open(path, encoding="utf-8")]
for figure, unit, scale in [
    ("prefill_tokens_per_second", "tokens/s", 1),
    ("decode_tokens_per_second", "tokens/s", 1),
    ("peak_rss_bytes", "MB", 1e-6),
]:
    ours = [row["mneme"][figure] * scale for row in rows]
    theirs = [row["llama"][figure] * scale for row in rows]
    ratios = [a / b for a, b in zip(ours, theirs)]
    print(
        f"| {length} | {figure.split('_')[0]} ({unit}) "
        f"| {statistics.median(ours):.1f} | {statistics.median(theirs):.1f} "
        f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    )
