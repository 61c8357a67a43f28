"""What no client should send: each is told what is wrong, in JSON with all four keys, and none of
it is the server's fault."""

import json

from texts import document

CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
BODIES = {  # a good body of each route that takes one
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "x", "max_tokens": 1},
    "/v1/contexts": {"text": "x"},
    "/v1/contexts/there": {"pinned": False},
    "/v1/contexts/there/append": {"text": "x"},
    "/v1/contexts/there/fork": {"at": 20},
    "/v1/contexts/there/rewind": {"tokens": 10 ** 6},
    "/tokenize": {"text": "x"},
}
VALUES = ("x", "", [], {}, 1e300, -1, -1e300, 10 ** 40, 1.5, True, [[]], ["x"] * 100, {"": None},
          "\0", "x" * 2000)


def run(test):
    server = test.server("malformed")
    server.make("there", document("there", 10))
    told = Told(test, server)
    test.each((what_is_no_json, what_has_the_wrong_type, what_is_not_known, what_is_too_much,
               forms_that_are_none, odd_addresses, odd_requests), told)
    test.check("the server has failed nowhere", server.metric("mneme_faults_total") == 0
               and "panicked" not in server.log(), server.log()[-500:])
    test.check("and still answers", server.chat("x").status == 200 and server.wait_idle()[0])


class Told:
    """Sends what is wrong, and gathers what was not told rightly."""

    def __init__(self, test, server):
        self.test, self.server = test, server
        self.wrong, self.n = [], 0

    def send(self, what, method, path, body, *, status=None, param=..., headers=None):
        """One request; a good reply is right unless a status is expected."""
        reply = self.server.call(method, path, body, headers=headers)
        self.n += 1
        right = reply.status < 300 and status is None or 400 <= reply.status < 500 and set(
            reply.error) == {"message", "type", "param", "code"} and reply.error["message"]
        right = right and reply.status != 0 and status in (None, reply.status)
        if param is not ... and reply.status >= 400:
            right = right and reply.error.get("param") == param
        if not right:
            self.wrong.append(f"{what}, {method} {path}: {reply}")
        return reply

    def summary(self, what):
        self.test.check(f"{what}: {self.n} requests", not self.wrong,
                        f"{len(self.wrong)} wrong: " + "\n  ".join(self.wrong[:6]))
        self.wrong, self.n = [], 0


def method_of(path):
    return "PATCH" if path == "/v1/contexts/there" else "POST"


def what_is_no_json(test, told):
    wrong = {
        "broken": b'{"messages": [', "no JSON": b"hello", "an array": b"[]", "a string": b'"x"',
        "null": b"null", "a number": b"1", "no UTF-8": b'{"text": "\xff\xfe"}',
        "half a character": b'{"text": "\xe6\x97"}', "half a surrogate": b'{"text": "\\ud800"}',
        "a comma too many": b'{"text": "x",}', "NaN": b'{"temperature": NaN}',
        "two objects": b"{}{}", "zeros": b"\0" * 100, "deep arrays": b"[" * 100_000,
        "a deep field": b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        "deep objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
        "a huge number": b'{"max_tokens": 1e99999}',
    }
    for path in BODIES:
        for what, body in wrong.items():
            told.send(what, method_of(path), path, body, status=400)
        told.send("nothing", method_of(path), path, b"",
                  status=None if path.endswith("fork") else 400)
        twice = json.dumps(BODIES[path])[:-1] + "," + json.dumps(BODIES[path])[1:]
        told.send("each field twice", method_of(path), path, twice.encode())
    told.summary("what is no JSON")


def fields_of(server, path):
    """The fields that the API describes for a route's body."""
    described = server.call("GET", "/openapi.json").json
    route = described["paths"][path.replace("/there", "/{id}")][method_of(path).lower()]
    schema = route["requestBody"]["content"]["application/json"]["schema"]
    return described["components"]["schemas"][schema["$ref"].split("/")[-1]]["properties"]


def what_has_the_wrong_type(test, told):
    for path, good in BODIES.items():
        for field in fields_of(told.server, path):
            for value in VALUES:
                body = {**good, field: value}
                if field == "prompt" and value == ["x"] * 100 or field == "metadata":
                    continue
                reply = told.send(f"{field} = {str(value)[:40]}", method_of(path), path, body)
                said = reply.error.get("param") or field
                if not said.startswith((field, "context", "max_tokens", "text", "stream_options",
                                        "top_logprobs", "tokens", "turn", "model", "name")):
                    told.wrong.append(f"{path} {field} = {value!r}: param is {said}")
    for name in [it["id"] for it in told.server.call("GET", "/v1/contexts?limit=100").json["data"]]:
        if name != "there":
            told.server.call("DELETE", f"/v1/contexts/{name}")
    told.summary("fields of the wrong type")


def what_is_not_known(test, told):
    for path, good in BODIES.items():
        told.send("an unknown field", method_of(path), path, {**good, "colour": 1}, status=400,
                  param="colour")
    for field in ("tools", "tool_choice", "functions", "audio", "modalities", "store", "prediction",
                  "parallel_tool_calls", "service_tier", "reasoning_effort", "web_search_options"):
        told.send(field, "POST", "/v1/chat/completions", {**CHAT, field: {"a": 1}}, status=400,
                  param=field)
    for field in ("echo", "suffix", "best_of"):
        told.send(field, "POST", "/v1/completions", {"prompt": "x", field: 1}, status=400,
                  param=field)
    part = {"type": "image_url", "image_url": {"url": "data:,"}}
    for message, param in (({"role": "tool", "content": "x"}, "messages[0].role"),
                           ({"role": "user", "content": "x", "name": "Ada"}, "messages[0].name"),
                           ({"role": "user", "content": [part]}, "messages[0].content"),
                           ({"role": "user"}, "messages[0].content"),
                           ({"content": "x"}, "messages[0].role")):
        told.send("a message", "POST", "/v1/chat/completions", {"messages": [message]}, status=400,
                  param=param)
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/contexts", "/tokenize"):
        told.send("an unknown model", "POST", path, {**BODIES[path], "model": "gpt-4o"},
                  status=404, param="model")
    told.summary("what is not known")


def what_is_too_much(test, told):
    big = "x" * 10_000_000
    for path, field in (("/v1/chat/completions", "model"), ("/v1/chat/completions", "user"),
                        ("/v1/chat/completions", "stop"), ("/v1/chat/completions", "context"),
                        ("/v1/completions", "model"), ("/v1/contexts", "name"),
                        ("/v1/contexts/there/fork", "name")):
        body = {**BODIES[path], field: big}
        told.send(f"10 MB of {field}", "POST", path, body)
    told.send("10 MB of metadata", "POST", "/v1/contexts", {"text": "x", "metadata": {"a": big}},
              status=400, param="metadata")
    told.send("10 MB as a field's name", "POST", "/v1/chat/completions", {**CHAT, big: 1},
              status=400)
    told.send("10 MB as a role", "POST", "/v1/chat/completions", {"messages": [
        {"role": big, "content": "x"}]}, status=400)
    told.send("a million biases", "POST", "/v1/chat/completions", {
        **CHAT, "logit_bias": {str(n): 1 for n in range(1_000_000)}}, status=400,
        param="logit_bias")
    told.send("a large schema", "POST", "/v1/chat/completions", {
        **CHAT, "response_format": {"type": "json_schema", "json_schema": {
            "schema": {"enum": [f"{n:060}" for n in range(100_000)]}}}})
    over = b" " * 20_000_000  # more than serve.max-body-bytes
    for path in ("/v1/chat/completions", "/v1/contexts", "/tokenize"):
        told.send("20 MB", "POST", path, over, status=413)
    told.send("20 MB that may be sent again", "POST", "/v1/contexts", over,
              headers={"Idempotency-Key": "much"}, status=413)
    told.summary("what is too much")
    before = told.server.resident_bytes()
    for letter in ("7", "x", "😀"):
        text = letter * (10_000_000 // len(letter.encode()))
        told.send("10 MB to tokenize", "POST", "/tokenize", f'{{"text": "{text}"}}'.encode())
    told.summary("10 MB to tokenize")
    grown = (told.server.resident_bytes() - before) / 1e9
    test.check("what was tokenized leaves no gigabyte behind", grown < 1, f"{grown:.1f} GB")


def forms_that_are_none(test, told):
    start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    form = "multipart/form-data; boundary=x"
    for what, kind, body in (
            ("no boundary", "multipart/form-data", start + b"a\r\n--x--\r\n"),
            ("no end", form, start + b"abc"), ("no parts", form, b"--x--\r\n"),
            ("nothing", form, b""), ("another boundary", form, b"--y\r\n\r\n--y--\r\n"),
            ("no UTF-8", form, start + b"\xff\r\n--x--\r\n"),
            ("an empty file", form, start + b"\r\n--x--\r\n"),
            ("an unknown field", form, start.replace(b"file\"", b"colour\"", 1)
             + b"a\r\n--x--\r\n"),
            ("a ttl that is none", form, start.replace(b"file\"", b"ttl\"", 1)
             + b"soon\r\n--x--\r\n"),
            ("XML", "application/xml", b"<a/>"),
            ("a form of old", "application/x-www-form-urlencoded", b"text=abc")):
        told.send(what, "POST", "/v1/contexts", body, headers={"Content-Type": kind})
        if told.server.call("GET", "/v1/contexts?limit=100").json["data"][-1]["id"] != "there":
            told.wrong.append(f"{what} made a context")
    told.summary("forms that are none")


def odd_addresses(test, told):
    long = "a" * 5000
    for method, path, status in (
            ("GET", "/nowhere", 404), ("GET", "//", 404), ("GET", "/v1", 404),
            ("GET", "/v1/contexts/", 404), ("GET", "/page/../serve.rs", 404),
            ("GET", "/page/%2e%2e%2fserve.rs", 404), ("GET", "/v1/models/gpt", 404),
            ("GET", "/v1/contexts/%ff", 400), ("GET", "/v1/contexts/%00", 404),
            ("GET", "/v1/contexts/..%2f..%2fetc", 404), ("GET", f"/v1/contexts/{long}", 404),
            ("DELETE", f"/v1/contexts/{long}", 404), ("POST", f"/v1/contexts/{long}/fork", 404),
            ("GET", "/v1/contexts?after=%ff", None), ("GET", "/v1/contexts?limit=", 400),
            ("GET", "/v1/contexts?limit=99999999999999999999", 400),
            ("GET", "/v1/contexts/there/text?start=-1", 400),
            ("GET", "/v1/contexts/there/text?start=18446744073709551615", None),
            ("GET", "/v1/contexts/there/text?start=1&start=2", 400),
            ("GET", f"/v1/contexts?{long}=1", 400), ("POST", "/v1/contexts/import?name=", 400),
            ("POST", "/v1/contexts/import?name=..", 400)):
        told.send("an odd address", method, path, b"{}" if method == "POST" else None,
                  status=status)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
        for path in ("/v1/models", "/v1/chat/completions", "/healthz", "/"):
            told.send("a method", method, path, None, status=405)
    told.summary("odd addresses and methods")


def odd_requests(test, told):
    good = json.dumps(CHAT).encode()
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "application/xml"},
                    {"Content-Type": "application/json; charset=latin-1"},
                    {"Content-Encoding": "gzip"}, {"Accept": "text/html"},
                    {"X-Request-Id": "a b\tc"}, {"X-Request-Id": "x" * 5000},
                    {"Idempotency-Key": "x" * 5000}, {"Authorization": "Bearer \xff"}):
        told.send(str(headers)[:40], "POST", "/v1/chat/completions", good, headers=headers)
    told.summary("odd headers")
    for what, content in (
            ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200),
            ("no length", b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n\r\n" + good),
            ("two lengths", b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
                            b"Content-Length: 3\r\n\r\n{}"),
            ("a chunk that is none", b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\n"
                                     b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
            ("too many headers", b"GET / HTTP/1.1\r\nHost: localhost\r\n"
             + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + b"\r\n"),
            ("a long header", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 900_000
             + b"\r\n\r\n")):
        with told.server.socket(timeout=10) as connection:
            try:
                connection.sendall(content)
                reply = connection.recv(100)
            except (ConnectionError, TimeoutError) as error:
                reply = repr(error).encode()
        test.check(f"{what} is no fault of the server's", not reply.startswith(b"HTTP/1.1 5")
                   and b"Timeout" not in reply, reply)
