#!/usr/bin/env python3
"""A stand-in for `mneme serve`, for the page alone: docs/api.md as far as the page uses it.

    tests/page/mock.py [--port 8090] [--key KEY] [--rate 4000] [--demo FILE]

It reads nothing and knows no model: a text is cut into "tokens" of four bytes, an answer is put
together from the passages that share words with the question. Everything is held in memory.
What a test wants to go wrong it asks for in the text: a line `#mock: STATUS` at the start of a
document or in a question is answered with that status, `#mock: fail` breaks the reading half way.
"""

import argparse
import json
import re
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = Path(__file__).resolve().parents[2] / "src" / "api" / "page"
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
MODEL = "smollm2-135m"
TOKEN_BYTES = 4
MAX_TEXT_BYTES = 1 << 20
ERRORS = {
    401: ("authentication_error", "invalid_api_key", "The API key is not known here."),
    400: ("invalid_request_error", "invalid_value", "The text could not be used."),
    404: ("not_found_error", "not_found", "There is nothing here."),
    409: ("conflict_error", "context_busy", "The context is in use."),
    413: ("invalid_request_error", "body_too_large", "The body is larger than 64 MiB."),
    429: ("rate_limit_error", "queue_full", "The queue is full."),
    500: ("server_error", "internal_error", "Something went wrong."),
    503: ("server_error", "draining", "The service is shutting down."),
    507: ("server_error", "store_full", "The disk quota of this tenant is used up."),
}


class Refusal(Exception):
    """An error of the API: its status and body."""

    def __init__(self, status, code=None, message=None, param=None):
        kind, default_code, default_message = ERRORS.get(status, ERRORS[500])
        self.status = status
        self.error = {"message": message or default_message, "type": kind, "param": param,
                      "code": code or default_code}


class Contexts:
    """The contexts there are, and the threads that pretend to read them."""

    def __init__(self, rate):
        self.rate = rate
        self.lock = threading.Condition()
        self.all = {}
        self.texts = {}

    def get(self, name):
        with self.lock:
            if name not in self.all:
                raise Refusal(404, "context_not_found", f"There is no context {name!r}.")
            return dict(self.all[name])

    def create(self, body, kind="document"):
        text = body.get("text")
        if not isinstance(text, str) or not text:
            raise Refusal(400, message="`text` has to be a text that is not empty.", param="text")
        refuse_on_demand(text[:200])
        text = text.encode()
        name = body.get("name") or "ctx_" + secrets.token_hex(8)
        with self.lock:
            old = self.all.get(name)
            if old and old["status"] != "stopped":
                raise Refusal(409, "context_exists", f"There is a context {name!r} already.")
            now = int(time.time())
            self.all[name] = {
                "id": name, "object": "context", "model": MODEL, "kind": kind, "status": "queued",
                "created": now, "last_used": now, "expires_at": None if body.get("pinned")
                else now + 7 * 86400, "pinned": bool(body.get("pinned")),
                "tokens": old["tokens"] if old else 0,
                "total_tokens": -(-len(text) // TOKEN_BYTES), "text_bytes": len(text), "turns": 0,
                "disk_bytes": 0, "own_bytes": 0, "forked_from": None,
                "metadata": body.get("metadata") or {}, "error": None}
            self.texts[name] = text
        threading.Thread(target=self.read, args=(name,), daemon=True).start()
        return self.get(name)

    def read(self, name):
        """Counts the tokens of one context up to its end, as a model would by reading."""
        fails = self.texts[name].startswith(b"#mock: fail")
        while True:
            time.sleep(0.1)
            with self.lock:
                context = self.all.get(name)
                if context is None or context["status"] not in ("queued", "reading"):
                    return
                context["status"] = "reading"
                context["tokens"] = min(context["total_tokens"],
                                        context["tokens"] + max(1, self.rate // 10))
                context["disk_bytes"] = context["own_bytes"] = context["tokens"] * 13500
                if fails and context["tokens"] * 2 > context["total_tokens"]:
                    context.update(status="failed", error=Refusal(507).error)
                elif context["tokens"] == context["total_tokens"]:
                    context["status"] = "ready"
                self.lock.notify_all()

    def progress(self, name):
        """The events of a reading, until it ended in one way or another."""
        told = -1
        while True:
            with self.lock:
                context = dict(self.all.get(name) or {})
                if not context:
                    yield {"error": Refusal(404, "context_not_found",
                                            "The context was deleted.").error}
                    return
                if context["status"] not in ("queued", "reading"):
                    break
                if context["tokens"] == told:
                    self.lock.wait(0.5)
                    continue
            told = context["tokens"]
            yield {"object": "context.progress", "id": name, "tokens": told,
                   "total_tokens": context["total_tokens"]}
        yield {"error": context["error"]} if context["error"] else context

    def list(self, limit, after):
        with self.lock:
            names = sorted(n for n in self.all if after is None or n > after)
            page = [dict(self.all[n]) for n in names[:limit]]
        return {"object": "list", "data": page, "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None, "has_more": len(names) > limit}

    def patch(self, name, body):
        self.get(name)
        for field in body:
            if field not in ("ttl", "pinned", "metadata"):
                raise Refusal(400, "unsupported_field", f"`{field}` is not supported.", field)
        with self.lock:
            context = self.all[name]
            if "pinned" in body:
                context["pinned"] = body["pinned"]
                context["expires_at"] = None if body["pinned"] else int(time.time()) + 7 * 86400
            if "metadata" in body:
                context["metadata"] = body["metadata"]
        return self.get(name)

    def fork(self, name, body):
        parent = self.get(name)
        new = body.get("name") or "ctx_" + secrets.token_hex(8)
        with self.lock:
            if new in self.all:
                raise Refusal(409, "context_exists", f"There is a context {new!r} already.", "name")
            self.all[new] = {**parent, "id": new, "forked_from": name, "own_bytes": 0,
                             "created": int(time.time()), "pinned": False}
            self.texts[new] = self.texts[name]
        return self.get(new)

    def delete(self, name):
        self.get(name)
        with self.lock:
            del self.all[name], self.texts[name]
            self.lock.notify_all()
        return {"id": name, "object": "context.deleted", "deleted": True}

    def text(self, name, start, end):
        self.get(name)
        text = self.texts[name]
        if not 0 <= start <= end <= len(text):
            raise Refusal(400, message=f"`end` has to be within 0..{len(text)}.", param="end")
        if end - start > MAX_TEXT_BYTES:
            raise Refusal(400, message="At most 1 MiB of text at once.", param="end")
        start, end = whole_characters(text, start, end)
        return {"id": name, "start": start, "end": end, "text_bytes": len(text),
                "text": text[start:end].decode()}


def refuse_on_demand(text):
    wish = re.search(r"#mock: (\d+)", text)
    if wish:
        raise Refusal(int(wish.group(1)))


def whole_characters(text, start, end):
    while start > 0 and start < len(text) and text[start] & 0xC0 == 0x80:
        start -= 1
    while end < len(text) and text[end] & 0xC0 == 0x80:
        end += 1
    return start, end


def sentences(text):
    """Where the sentences of a text are: `(start, end)` in bytes."""
    ends = [m.end() for m in re.finditer(rb"[.!?][\"')]*\s+|\n\n+", text)] + [len(text)]
    start = 0
    for end in ends:
        if end - start > 20:
            yield start, end
            start = end


def evidence_for(question, text, count=6):
    """Passages that share rare words with the question, the weightiest first."""
    words = set(re.findall(rb"[a-z0-9]{4,}", question.lower().encode()))
    lower = text.lower()
    worth = {w: 1 / (1 + lower.count(w)) for w in words}
    scored = []
    for start, end in sentences(text):
        found = words & set(re.findall(rb"[a-z0-9]{4,}", lower[start:end]))
        scored.append((sum(worth[w] for w in found) + 1e-9 * (end - start), start, end))
    best = sorted(scored, reverse=True)[:count]
    shares = [0.62 ** i for i in range(len(best))]
    return [{"start": s, "end": e, "text": text[s:e].decode(errors="replace"),
             "weight": round(share / sum(shares) * 0.9, 4)}
            for (_, s, e), share in zip(best, shares)]


def answer_for(question, evidence):
    if not evidence:
        return "The text does not say."
    if "long" in question.lower():
        return " ".join(e["text"].strip() for e in evidence) * 4
    best = evidence[0]["text"].strip().replace("\n", " ").replace("\r", "")
    return f"The text says it in so many words: “{best}”"


class Handler(BaseHTTPRequestHandler):
    """One connection: routes, keys, errors, and streams."""

    protocol_version = "HTTP/1.1"
    contexts = key = None

    def handle_any(self):
        try:
            self.route()
        except Refusal as refusal:
            self.answer(refusal.status, {"error": refusal.error})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any

    def route(self):
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        path = [unquote(part) for part in url.path.split("/")[1:]]
        body = self.body()
        if path[0] in ("", "page"):
            return self.serve_page(path)
        if self.key and self.headers.get("Authorization") != f"Bearer {self.key}":
            raise Refusal(401, "invalid_api_key", "The API key is not known here.")
        match self.command, path:
            case "GET", ["v1", "models"]:
                self.answer(200, {"object": "list", "data": [{"id": MODEL, "object": "model",
                                                              "created": 0, "owned_by": "mneme"}]})
            case "POST", ["v1", "chat", "completions"]:
                self.chat(body)
            case "GET", ["v1", "contexts"]:
                self.answer(200, self.contexts.list(int(query.get("limit", 20)),
                                                    query.get("after")))
            case "POST", ["v1", "contexts"]:
                self.create(body)
            case "GET", ["v1", "contexts", name]:
                self.answer(200, self.contexts.get(name))
            case "PATCH", ["v1", "contexts", name]:
                self.answer(200, self.contexts.patch(name, body))
            case "DELETE", ["v1", "contexts", name]:
                self.answer(200, self.contexts.delete(name))
            case "POST", ["v1", "contexts", name, "fork"]:
                self.answer(201, self.contexts.fork(name, body))
            case "GET", ["v1", "contexts", name, "text"]:
                self.answer(200, self.contexts.text(name, int(query["start"]), int(query["end"])))
            case _:
                raise Refusal(404, message=f"There is no {url.path}.")

    def body(self):
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        try:
            return json.loads(raw) if raw else {}
        except ValueError:
            raise Refusal(400, message="The body is not JSON.")

    def create(self, body):
        context = self.contexts.create(body)
        if not body.get("stream"):
            return self.answer(202, context)
        self.stream(self.contexts.progress(context["id"]))

    def chat(self, body):
        context = self.contexts.get(body.get("context"))
        if context["status"] != "ready":
            raise Refusal(409, "context_busy", "The context is still being read.")
        question = body["messages"][-1]["content"]
        refuse_on_demand(question)
        evidence = evidence_for(question, self.contexts.texts[context["id"]])
        self.stream(self.chunks(body, context, evidence, answer_for(question, evidence)))

    def chunks(self, body, context, evidence, answer):
        head = {"id": "chatcmpl-" + secrets.token_hex(8), "object": "chat.completion.chunk",
                "created": int(time.time()), "model": MODEL}

        def chunk(delta, finish_reason=None, **more):
            return {**head, "choices": [{"index": 0, "delta": delta,
                                         "finish_reason": finish_reason, **more}]}

        for done in (128, 256, 384):
            yield f"reading {done}/384"
            time.sleep(0.1)
        yield chunk({"role": "assistant", "content": ""})
        pieces = re.findall(r"\s*\S+", answer)
        for piece in pieces:
            time.sleep(0.03)
            yield chunk({"content": piece})
        more = {"evidence": evidence} if body.get("include_evidence") else {}
        yield chunk({}, "stop", **more)
        if (body.get("stream_options") or {}).get("include_usage"):
            prompt = context["tokens"] + 24
            yield {**head, "choices": [], "usage": {
                "prompt_tokens": prompt, "completion_tokens": len(pieces),
                "total_tokens": prompt + len(pieces),
                "prompt_tokens_details": {"cached_tokens": context["tokens"]}}}

    def stream(self, items):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for item in items:
            line = f": {item}" if isinstance(item, str) else f"data: {json.dumps(item)}"
            self.wfile.write(f"{line}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def serve_page(self, path):
        name = "index.html" if path[0] == "" else path[-1]
        file = PAGE / name
        if len(path) > 2 or not file.is_file() or file.parent != PAGE:
            raise Refusal(404)
        self.reply(200, file.read_bytes(), TYPES[file.suffix])

    def answer(self, status, body):
        self.reply(status, json.dumps(body).encode(), "application/json",
                   {"Retry-After": "2"} if status == 429 else {})

    def reply(self, status, content, kind, more=None):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(content),
                            "Content-Security-Policy": "default-src 'self'",
                            "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache",
                            "x-request-id": self.headers.get("x-request-id")
                            or "req_" + secrets.token_hex(6), **(more or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def add_demo(contexts, file):
    """A list to look at: one context of every kind and status."""
    text = Path(file).read_text()
    contexts.create({"text": text, "name": "novel", "metadata": {"file": Path(file).name}})
    contexts.create({"text": text[:60000], "name": "notes",
                     "metadata": {"file": "meeting-notes-2024.md"}})
    contexts.create({"text": text[:9000], "name": "talk", "metadata": {}}, kind="conversation")
    contexts.create({"text": "#mock: fail" + text[:30000], "name": "broken",
                     "metadata": {"file": "access.log"}})
    contexts.create({"text": text[:400000], "name": "half", "metadata": {"file": "manual.txt"}})
    with contexts.lock:
        for context in contexts.all.values():
            context["status"] = "ready"
            context["tokens"] = context["total_tokens"]
            context["disk_bytes"] = context["own_bytes"] = context["tokens"] * 13500
        contexts.all["notes"]["pinned"] = True
        contexts.all["half"].update(status="stopped", tokens=41000)
        contexts.all["broken"].update(status="failed", error=Refusal(507).error, tokens=3000)
        contexts.all["talk"]["turns"] = 7


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--key", help="the only key that is let in")
    parser.add_argument("--rate", type=int, default=4000, help="tokens read a second")
    parser.add_argument("--demo", metavar="FILE", help="start with contexts made of this text")
    args = parser.parse_args()
    Handler.contexts, Handler.key = Contexts(args.rate), args.key
    if args.demo:
        add_demo(Handler.contexts, args.demo)
    server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    print(f"mock at http://127.0.0.1:{server.server_port}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
