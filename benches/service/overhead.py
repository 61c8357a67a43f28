#!/usr/bin/env python3
"""What do HTTP and scheduling cost one stream?

    overhead.py URL [--tokens 400] [--rounds 5]

One client streams an answer; the server counts the time of its steps (`mneme_step_microseconds` of /metrics).
What is left of the time on the client's clock, from the request to the last byte, is neither the model's nor
the sampler's. Prints one JSON object. Both times are of the same run, so that a machine whose speed drifts does
not matter. Standard library only; loopback only.
"""
import argparse
import http.client
import json
import time
from urllib.parse import urlparse


def get(url, path):
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def step_seconds(url):
    for line in get(url, "/metrics").splitlines():
        if line.startswith("mneme_step_microseconds_total "):
            return int(line.split()[1]) / 1e6
    raise SystemExit("this is no mneme server")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    url = urlparse(options.url)
    assert url.hostname in ("127.0.0.1", "localhost"), "only servers on this machine"
    shares, speeds = [], []
    for seed in range(options.rounds):
        body = {"prompt": f"Once upon a time, in year {seed},", "max_tokens": options.tokens, "seed": seed,
                "temperature": 1.0, "stream": True, "stream_options": {"include_usage": True},
                "logit_bias": {"0": -100, "2": -100}}
        before, begun, tokens = step_seconds(url), time.monotonic(), 0
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=600)
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                tokens = (json.loads(line[6:]).get("usage") or {}).get("completion_tokens", tokens)
        took = time.monotonic() - begun
        shares.append(1 - (step_seconds(url) - before) / took)
        speeds.append(tokens / took)
    shares.sort()
    print(json.dumps({"overhead_share": shares, "median": shares[len(shares) // 2],
                      "tokens_per_second": speeds}))


main()
