#!/usr/bin/env python3
"""Replays a trace of chat requests, scaled to this machine, and prints completion times.

    replay.py URL TRACE.jsonl.gz TEXT_FILE [--requests 60] [--scale 16] [--speed 40] [--skip 0]

Requests keep their order, their shapes and their shared beginnings (`hash_ids` of 512-token blocks): lengths
are divided by --scale, arrivals are --speed times apart. Give the same numbers to servers with another
schedule and compare. Standard library only; loopback only.
"""
import argparse
import gzip
import http.client
import json
import threading
import time
from urllib.parse import urlparse


def block(text, number, chars):
    at = (number * 7919 * chars) % (len(text) - chars)
    return f"[{number}] " + text[at:at + chars]


def ask(url, body, at, out):
    time.sleep(max(0.0, at - time.monotonic()))
    begun = time.monotonic()
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=1800)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    reply = json.loads(response.read())
    out.append((time.monotonic() - begun, response.status, reply.get("usage", {})))


def share(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def thirds(out):
    """Mean times of the third with the least to do, the middle and the one with the most."""
    done = [(usage["prompt_tokens"] + 4 * usage["completion_tokens"], seconds)
            for seconds, status, usage in out if status == 200]
    done.sort()
    ends = [len(done) * i // 3 for i in range(4)]
    parts = [done[a:b] for a, b in zip(ends, ends[1:])]
    return [sum(seconds for _, seconds in part) / max(1, len(part)) for part in parts]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("trace")
    parser.add_argument("text")
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--scale", type=float, default=16)
    parser.add_argument("--speed", type=float, default=40)
    options = parser.parse_args()
    url = urlparse(options.url)
    assert url.hostname in ("127.0.0.1", "localhost"), "only servers on this machine"
    text = open(options.text, encoding="utf-8").read()
    with gzip.open(options.trace, "rt") as lines:
        rows = [json.loads(line) for _, line in zip(range(options.skip + options.requests), lines)]
    rows = rows[options.skip:]
    chars = int(512 * 4 / options.scale)
    begun, first = time.monotonic() + 0.5, rows[0]["timestamp"]
    threads, out = [], []
    for i, row in enumerate(rows):
        prompt = "\n".join(block(text, number, chars) for number in row["hash_ids"])
        body = {"prompt": prompt + f"\n\nRequest {i}.", "temperature": 1.0, "seed": i,
                "max_tokens": max(1, int(row["output_length"] / options.scale))}
        at = begun + (row["timestamp"] - first) / 1000 * options.speed / options.scale
        threads.append(threading.Thread(target=ask, args=(url, body, at, out)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = [seconds for seconds, status, _ in out if status == 200]
    usage = [usage for _, status, usage in out if status == 200]
    print(json.dumps({
        "requests": len(rows), "answered": len(took), "seconds": time.monotonic() - begun,
        "mean": sum(took) / len(took), "p50": share(took, 0.5), "p99": share(took, 0.99),
        "mean_by_size": thirds(out),
        "prompt_tokens": sum(it["prompt_tokens"] for it in usage),
        "cached_tokens": sum(it["prompt_tokens_details"]["cached_tokens"] for it in usage),
        "completion_tokens": sum(it["completion_tokens"] for it in usage),
    }))


main()
