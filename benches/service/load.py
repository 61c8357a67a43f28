#!/usr/bin/env python3
"""How fast is an OpenAI-compatible server with several clients at once?

    load.py URL TEXT_FILE [--clients 8] [--prompt-chars 16000] [--tokens 128] [--model NAME]

Each client sends one streamed completion with a prompt of its own (a part of TEXT_FILE), all at the same
time. Prints one JSON object: tokens a second in all (from the first request to the last token, and while
all decode), time to the first token and between tokens, p50 and p99. Standard library only; loopback only.
"""
import argparse
import http.client
import json
import threading
import time
from urllib.parse import urlparse


def ask(url, body, times, failures):
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=900)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
    except OSError as error:
        failures.append(f"no answer from {url.netloc}: {error}")
        return
    if response.status != 200:
        failures.append(f"{url.netloc} answered {response.status}: {response.read()[:500]}")
        return
    for line in response:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        choices = json.loads(line[6:])["choices"]
        # A chunk is a token: pieces of characters come with the next.
        if choices and (choices[0].get("logprobs") or choices[0].get("text")):
            times.append(time.monotonic())


def share(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("text")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--prompt-chars", type=int, default=16000)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    url = urlparse(options.url)
    assert url.hostname in ("127.0.0.1", "localhost"), "only servers on this machine"
    text = open(options.text, encoding="utf-8").read()
    times = [[] for _ in range(options.clients)]
    bodies = []
    for i in range(options.clients):
        at = (options.seed * options.clients + i) * options.prompt_chars
        prompt = text[at:at + options.prompt_chars]
        assert len(prompt) == options.prompt_chars, "the text is too short"
        bodies.append({"prompt": prompt, "max_tokens": options.tokens, "temperature": 1.0, "seed": i,
                       "stream": True, "logprobs": 0})
    begun, failures = time.monotonic(), []
    threads = [threading.Thread(target=ask, args=(url, body, out, failures)) for body, out in zip(bodies, times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures or not all(times):
        raise SystemExit("\n".join(failures) or "a client got no token")
    first = [out[0] - begun for out in times]
    between = [b - a for out in times for a, b in zip(out, out[1:])]
    ended = max(out[-1] for out in times)
    all_begun, first_end = max(out[0] for out in times), min(out[-1] for out in times)
    together = sum(1 for out in times for t in out if all_begun < t <= first_end)
    print(json.dumps({
        "clients": options.clients,
        "tokens": sum(map(len, times)),
        "seconds": ended - begun,
        "tokens_per_second": sum(map(len, times)) / (ended - begun),
        "decode_tokens_per_second": together / (first_end - all_begun) if first_end > all_begun else None,
        "first_token_p50": share(first, 0.5), "first_token_p99": share(first, 0.99),
        "between_p50": share(between, 0.5), "between_p99": share(between, 0.99),
    }))


main()
