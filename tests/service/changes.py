"""Contexts changed: patched, appended to, forked, rewound, moved, deleted, and still there after a
restart."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

from texts import FIELDS, QUESTION, document, password

TALK = [{"role": "system", "content": "You are a parrot."},
        {"role": "user", "content": "My boat is the Alma."},
        {"role": "assistant", "content": "The Alma!"}]


def run(test):
    server = test.server("changes")
    server.make("harbour", password("harbour", "heron", 60))
    server.make("letters", "Grüße aus 東京! " * 4)
    server.call("POST", "/v1/contexts", {"name": "talk", "messages": TALK})
    server.read("talk")
    for said in ("What is my boat called?", "And where is it?", "Bye."):
        server.chat(said, context="talk", context_mode="append", max_tokens=8)
    test.each((it_is_changed, it_is_appended_to, it_is_forked, it_is_rewound, it_is_moved,
               it_is_deleted, who_comes_too_early_is_told, a_restart_loses_nothing), server)


def it_is_changed(test, server):
    def patch(**fields):
        return server.call("PATCH", "/v1/contexts/letters", fields)

    now = time.time()
    reply = patch(ttl=1000, pinned=True, metadata={"b": 2})
    context = reply.json
    test.check("patch: ttl, pinned, metadata", reply.status == 200 and context["pinned"]
               and abs(context["expires_at"] - now - 1000) < 5 and context["metadata"] == {"b": 2},
               reply)
    context = patch(ttl=None, pinned=False).json
    test.check("patch: null keeps it for ever, the rest stays", context["expires_at"] is None
               and not context["pinned"] and context["metadata"] == {"b": 2}, context)
    for field, value in (("color", 1), ("ttl", -1), ("pinned", "yes"), ("metadata", [])):
        reply = patch(**{field: value})
        test.check(f"patch: {field} {value!r} is refused by name", reply.status == 400
                   and reply.error["param"] == field, reply)


def it_is_appended_to(test, server):
    server.make("grows", "The first part ends here. ")
    before = server.read("grows")
    reply = server.call("POST", "/v1/contexts/grows/append", {"text": "The second begins."})
    after = server.read("grows")
    test.check("append: 202, and more is read", reply.status == 202 and after["status"] == "ready"
               and after["tokens"] > before["tokens"], (reply, after))
    text = server.call("GET", "/v1/contexts/grows/text").json["text"]
    test.check("append: the text goes on", text == "The first part ends here. The second begins."
               and after["text_bytes"] == len(text), text)
    events = list(server.stream("/v1/contexts/grows/append", {"text": " The third.",
                                                              "stream": True}))
    test.check("append: as a stream", events[-1] == "[DONE]" and events[-2]["status"] == "ready"
               and events[-2]["text_bytes"] == len(text) + 11, events[-2])


def it_is_forked(test, server):
    def fork(of, **fields):
        return server.call("POST", f"/v1/contexts/{of}/fork", fields)

    source = server.read("harbour")
    reply = fork("harbour", name="twin")
    twin = reply.json
    test.check("fork: 201, the same tokens, none copied", reply.status == 201
               and twin["tokens"] == source["tokens"] and twin["forked_from"] == "harbour"
               and twin["own_bytes"] < source["own_bytes"] / 4, reply)
    asked = {"max_tokens": 16}
    test.check("fork: answers as its source", server.said(QUESTION, context="twin", **asked)
               == server.said(QUESTION, context="harbour", **asked))
    part = fork("harbour", at=200).json
    text = server.call("GET", f"/v1/contexts/{part['id']}/text").json["text"]
    test.check("fork at: so many tokens and their text", part["tokens"] == 200
               and password("harbour", "heron", 60).startswith(text) and len(text) > 200, part)
    turn = fork("talk", turn=1).json
    test.check("fork turn: so many turns", turn["turns"] == 1 and turn["kind"] == "conversation"
               and server.read("talk")["turns"] == 4, turn)
    reply = fork("harbour", at=10 ** 6)
    test.check("fork: beyond its end is refused, as `at`", reply.status == 400
               and reply.error["param"] == "at", reply)
    reply = fork("harbour", turn=3)
    test.check("fork: its errors speak of what was named", reply.status == 400
               and "ctx_" not in reply.error["message"], reply)
    test.check("fork: onto a name that is taken", fork("harbour", name="twin").status == 409)
    n = len(server.call("GET", "/v1/contexts?limit=100").json["data"])
    fork("harbour", at=10 ** 6)
    test.check("fork: what is refused leaves nothing", n == len(server.call(
        "GET", "/v1/contexts?limit=100").json["data"]))


def it_is_rewound(test, server):
    def rewind(of, **fields):
        return server.call("POST", f"/v1/contexts/{of}/rewind", fields)

    before = server.said(QUESTION, context="grows", max_tokens=16)
    n_tokens = server.read("grows")["tokens"]
    server.call("POST", "/v1/contexts/grows/append", {"text": " Something else altogether."})
    server.read("grows")
    reply = rewind("grows", tokens=n_tokens)
    test.check("rewind: so many tokens are left", reply.status == 200
               and reply.json["tokens"] == n_tokens, reply)
    test.check("rewind: it answers as before", server.said(
        QUESTION, context="grows", max_tokens=16) == before)
    reply = rewind("talk", turn=2)
    test.check("rewind: so many turns are left", reply.status == 200 and reply.json["turns"] == 2
               and server.chat("Go on.", context="talk", context_mode="append",
                               max_tokens=4).status == 200, reply)
    for wish in ({}, {"tokens": 1, "turn": 1}, {"tokens": 10 ** 9}, {"turn": 99}):
        reply = rewind("talk", **wish)
        test.check(f"rewind: {wish} is refused", reply.status == 400
                   and reply.error["param"] in ("tokens", "turn"), reply)


def it_is_moved(test, server):
    other = test.server("elsewhere")
    exported = server.call("GET", "/v1/contexts/harbour/export")
    test.check("export: a file", exported.status == 200
               and exported.headers["content-type"] == "application/octet-stream"
               and len(exported.body) > 10000)
    reply = other.call("POST", "/v1/contexts/import?name=moved", exported.body)
    test.check("import: 201 and the context", reply.status == 201
               and reply.json["tokens"] == server.read("harbour")["tokens"], reply)
    test.check("import: it answers as where it came from", other.said(
        QUESTION, context="moved", max_tokens=16)
        == server.said(QUESTION, context="harbour", max_tokens=16))
    test.check("import: under its own name where none is given", other.call(
        "POST", "/v1/contexts/import", exported.body).json["id"] == "harbour")
    for what, path, status in (("a taken name", "?name=moved", 409), ("no name", "?name=a/b", 400)):
        reply = other.call("POST", f"/v1/contexts/import{path}", exported.body)
        test.check(f"import: {what} is told, however long the file", reply.status == status, reply)
    flipped = bytearray(exported.body)
    flipped[len(flipped) // 2] ^= 1
    half = exported.body[:len(flipped) // 2]
    for what, content in (("a flipped bit", bytes(flipped)), ("half", half), ("nothing", b""),
                          ("something else", b"PK" * 5000),
                          ("more", exported.body + b"!")):
        reply = other.call("POST", "/v1/contexts/import?name=bad", content)
        test.check(f"import: {what} is refused", reply.status == 400
                   and reply.error.get("code") == "invalid_file", reply)
    test.check("import: what is refused leaves nothing", other.call(
        "GET", "/v1/contexts/bad").status == 404)
    other.stop()


def it_is_deleted(test, server):
    reply = server.call("DELETE", "/v1/contexts/twin")
    test.check("delete: said", reply.json == {"id": "twin", "object": "context.deleted",
                                              "deleted": True}, reply)
    test.check("delete: gone", server.call("GET", "/v1/contexts/twin").status == 404
               and server.call("DELETE", "/v1/contexts/twin").status == 404)
    server.call("POST", "/v1/contexts/harbour/fork", {"name": "child"})
    server.make("parent", document("parent", 30))
    server.call("POST", "/v1/contexts/parent/fork", {"name": "orphan"})
    server.call("DELETE", "/v1/contexts/parent")
    test.check("delete: its forks live on", server.chat(
        "What was noted?", context="orphan", max_tokens=4).status == 200)
    server.call("POST", "/v1/contexts", {"name": "long", "text": document("long", 2000)})
    time.sleep(1)
    reply = server.call("DELETE", "/v1/contexts/long")
    idle, running = server.wait_idle(5)
    test.check("delete: stops a reading within a chunk", reply.status == 200
               and reply.seconds < 5 and idle, (reply, reply.seconds, running))
    what_is_deleted_stays_so(test, server)
    events = server.stream("/v1/contexts", {"name": "long", "text": document("long", 2000),
                                            "stream": True})
    next(events)
    server.call("DELETE", "/v1/contexts/long")
    *_, last, done = list(events)
    test.check("delete: whoever follows the reading is told", done == "[DONE]" and (
        "error" in last or last["status"] == "stopped"), last)


def what_is_deleted_stays_so(test, server):
    """A reading that was stopped by DELETE once saved its context after that: 200, 404, and 200."""
    def made_and_deleted(number):
        name = f"fleeting-{number}"
        body = {"name": name, "text": document(name, 150)}
        made = server.call("POST", "/v1/contexts", body)
        time.sleep(number % 6 / 200)
        return name, made.status, server.call("DELETE", f"/v1/contexts/{name}").status

    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(made_and_deleted, range(36)))
    time.sleep(0.5)
    back = [name for name, *_ in done if server.call("GET", f"/v1/contexts/{name}").status != 404]
    test.check("delete: what was deleted while it was read does not come back", not back and all(
        statuses == [202, 200] for _, *statuses in done), (back, done))
    for name in back:
        server.call("DELETE", f"/v1/contexts/{name}")


def who_comes_too_early_is_told(test, server):
    server.call("POST", "/v1/contexts", {"name": "busy", "text": document("busy", 400)})
    for what, method, path, body in (
            ("a question", "POST", "/v1/chat/completions", {
                "messages": [{"role": "user", "content": "x"}], "context": "busy"}),
            ("a fork", "POST", "/v1/contexts/busy/fork", {}),
            ("an export", "GET", "/v1/contexts/busy/export", None),
            ("a look at the text", "GET", "/v1/contexts/busy/text", None),
            ("more text", "POST", "/v1/contexts/busy/append", {"text": "more"}),
            ("a change", "PATCH", "/v1/contexts/busy", {"pinned": True}),
            ("a rewinding", "POST", "/v1/contexts/busy/rewind", {"tokens": 1}),
            ("the same again", "POST", "/v1/contexts", {"name": "busy", "text": "x"})):
        reply = server.call(method, path, body)
        test.check(f"while it is read, {what} is told so", reply.status == 409
                   and reply.error["code"] == "context_busy", reply)
    server.call("DELETE", "/v1/contexts/busy")


def a_restart_loses_nothing(test, server):
    def all_there_is():
        contexts = server.call("GET", "/v1/contexts?limit=100").json["data"]
        answers = {name: server.chat(QUESTION, context=name, max_tokens=12, include_evidence=True)
                   for name in ("harbour", "letters", "orphan")}
        return ([{it: context[it] for it in FIELDS - {"last_used"}} for context in contexts],
                {name: json.dumps(reply.json["choices"]) for name, reply in answers.items()})

    before = all_there_is()
    status = server.stop()
    test.check("restart: it ends well", status == 0, status)
    server.start()
    after = all_there_is()
    test.check("restart: the same contexts", before[0] == after[0], after[0][:2])
    test.check("restart: the same answers, from the same evidence", before[1] == after[1],
               (before[1], after[1]))
    test.check("restart: a conversation goes on", server.chat(
        "Go on.", context="talk", context_mode="append", max_tokens=4).status == 200)
