"""Contexts with nothing but urllib: made, read, streamed, asked, listed. What changes them is in
`changes`, what Idempotency-Key promises in `retries`."""

import time

from server import query
from texts import FIELDS, QUESTION, document, password

BOUNDARY = "form-of-the-test"


def run(test):
    server = test.server("contexts")
    test.each((a_document_is_read, a_reading_is_streamed, whoever_hangs_up_stops_nothing,
               a_file_is_read, its_text_is_given, it_is_asked, evidence_is_told,
               a_conversation_is_kept, they_are_listed, it_expires), server)


def a_document_is_read(test, server):
    text = password("harbour", "heron", 60)
    reply = server.call("POST", "/v1/contexts", {"name": "harbour", "text": text,
                                                 "metadata": {"kept": [1, "é"]}})
    context = reply.json
    test.check("create: 202 and the context", reply.status == 202 and set(context) == FIELDS
               and context["status"] in ("queued", "reading") and context["id"] == "harbour", reply)
    seen = []
    context = server.read("harbour", seen=seen)
    test.check("create: it is read to its end", context["status"] == "ready"
               and context["tokens"] == context["total_tokens"] > 500, context)
    test.check("poll: what is read grows, of a total that stays", [it["tokens"] for it in seen]
               == sorted(it["tokens"] for it in seen) and len({it["total_tokens"] for it in seen}
                                                              - {None}) == 1)
    test.check("it knows what it was made with", context["text_bytes"] == len(text.encode())
               and context["metadata"] == {"kept": [1, "é"]} and context["kind"] == "document"
               and context["error"] is None and context["disk_bytes"] > 0, context)
    unnamed = server.call("POST", "/v1/contexts", {"text": "Another one."})
    test.check("without a name it gets one", unnamed.json["id"].startswith("ctx_"), unnamed)
    again = server.call("POST", "/v1/contexts", {"name": "harbour", "text": text})
    test.check("a name that is taken is a conflict", again.status == 409
               and again.error.get("code") == "context_exists", again)


def a_reading_is_streamed(test, server):
    events = list(server.stream("/v1/contexts", {
        "name": "streamed", "text": document("streamed", 60), "stream": True}))
    *events, context, done = events
    progress = [it for it in events if isinstance(it, dict) and it["object"] == "context.progress"]
    test.check("stream: progress, the context, [DONE]", done == "[DONE]" and len(progress) > 1
               and context["object"] == "context" and context["status"] == "ready", events[:3])
    test.check("stream: progress only grows", [it["tokens"] for it in progress]
               == sorted(it["tokens"] for it in progress)
               and {it["total_tokens"] for it in progress} == {context["tokens"]}, progress)
    test.check("stream: nothing else comes", all(
        set(it) == {"object", "id", "tokens", "total_tokens"} for it in progress))


def whoever_hangs_up_stops_nothing(test, server):
    events = server.stream("/v1/contexts", {"name": "left", "text": document("left", 60),
                                            "stream": True})
    next(events)
    events.close()
    test.check("whoever hangs up on a reading does not stop it",
               server.read("left").get("status") == "ready")


def form(fields, file):
    """A body of multipart/form-data, and its header."""
    name, content = file
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
             for key, value in fields.items()]
    parts.append(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"'
                 f"\r\nContent-Type: text/plain\r\n\r\n{content}\r\n--{BOUNDARY}--\r\n")
    return "".join(parts).encode(), {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def a_file_is_read(test, server):
    text = "Ein Brief über das Meer. 海は広い。\n"
    body, headers = form({"name": "file", "ttl": "500", "pinned": "true"}, ("letter.txt", text))
    reply = server.call("POST", "/v1/contexts", body, headers=headers)
    context = server.read("file")
    test.check("a file is read", reply.status == 202 and context["text_bytes"]
               == len(text.encode()) and context["metadata"] == {"file": "letter.txt"}, reply)
    test.check("with the form's other fields", context["pinned"]
               and context["expires_at"] >= context["created"] + 499, context)
    body, headers = form({"metadata": '{"a": {"b": 1}}', "stream": "true"}, ("x.txt", "Short."))
    reply = server.call("POST", "/v1/contexts", body, headers=headers)
    test.check("as a stream, too, with metadata of its own", reply.status == 200
               and b'"metadata":{"a":{"b":1}}' in reply.body and b"[DONE]" in reply.body, reply)


def its_text_is_given(test, server):
    text = "Grüße aus 東京! 🐦 is a bird. " * 4
    server.make("letters", text)
    content = text.encode()
    test.check("text: all of it", server.call(
        "GET", "/v1/contexts/letters/text").json["text"] == text)

    def is_character(at):
        return at >= len(content) or content[at] & 0xC0 != 0x80

    wrong = []
    for start in range(0, 40, 3):
        for end in range(start, 44, 5):
            part = server.call("GET", "/v1/contexts/letters/text" + query(start=start, end=end))
            part = part.json
            told = content[part["start"]:part["end"]].decode(errors="replace")
            sound = part["start"] <= start and part["end"] >= end and told == part["text"] \
                and is_character(part["start"]) and is_character(part["end"]) \
                and start - part["start"] < 4 and part["end"] - end < 4
            wrong += [] if sound else [(start, end, part)]
    test.check("text: parts grow to whole characters", not wrong, wrong[:3])
    beyond = server.call("GET", "/v1/contexts/letters/text" + query(start=len(content) + 50))
    test.check("text: beyond its end there is nothing", beyond.status == 400 or (
        beyond.json["start"] == beyond.json["end"] == len(content)), beyond)
    for wish in ({"start": 9, "end": 3}, {"start": 0, "end": (1 << 20) + 1}):
        reply = server.call("GET", "/v1/contexts/letters/text" + query(**wish))
        test.check(f"text: {wish} is refused", reply.status == 400
                   and reply.error["param"] == "end", reply)


def it_is_asked(test, server):
    before = server.read("harbour")
    asked = {"context": "harbour", "max_tokens": 16}
    first, second = server.chat(QUESTION, **asked), server.chat(QUESTION, **asked)
    test.check("ask: an answer", first.status == 200
               and first.json["choices"][0]["message"]["content"], first)
    test.check("ask: the same question, the same answer", first.json["choices"]
               == second.json["choices"])
    usage = first.json["usage"]
    test.check("ask: usage counts the context, as read before", usage["prompt_tokens"]
               > usage["prompt_tokens_details"]["cached_tokens"] == before["tokens"], usage)
    after = server.read("harbour")
    test.check("ask: the context stays as it is", all(
        before[it] == after[it] for it in FIELDS - {"last_used"}), after)
    several = server.chat(QUESTION, n=2, temperature=1, seed=1, **asked)
    test.check("ask: several answers", len(several.json["choices"]) == 2, several)
    for said in ([{"role": "system", "content": "x"}, {"role": "user", "content": "y"}],
                 [{"role": "assistant", "content": "x"}]):
        reply = server.chat(said, **asked)
        test.check("ask: anything but one user message is refused", reply.status == 400
                   and reply.error["param"] == "messages", reply)


def evidence_is_told(test, server):
    asked = {"context": "harbour", "max_tokens": 16, "include_evidence": True}
    whole = server.chat(QUESTION, **asked).json["choices"][0]
    evidence = whole["evidence"]
    text = password("harbour", "heron", 60).encode()
    test.check("evidence: some, the weightiest first", evidence and [
        it["weight"] for it in evidence] == sorted((it["weight"] for it in evidence), reverse=True)
        and 0 < sum(it["weight"] for it in evidence) < 1.001, evidence)
    test.check("evidence: its text is the text there", all(
        text[it["start"]:it["end"]].decode() == it["text"] for it in evidence), evidence)
    test.check("without being asked for, none", "evidence" not in server.chat(
        QUESTION, context="harbour", max_tokens=4).json["choices"][0])
    body = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "stream": True,
            **asked}
    *chunks, _ = server.stream("/v1/chat/completions", body)
    told = [it["choices"][0] for it in chunks if isinstance(it, dict)
            and "evidence" in it["choices"][0]]
    test.check("evidence: streamed, it comes with the reason to end, and the same",
               len(told) == 1 and told[0]["finish_reason"] and told[0]["evidence"] == evidence,
               told)


def a_conversation_is_kept(test, server):
    said = [{"role": "system", "content": "You are a parrot."},
            {"role": "user", "content": "My boat is the Alma."},
            {"role": "assistant", "content": "The Alma!"}]
    reply = server.call("POST", "/v1/contexts", {"name": "talk", "messages": said})
    context = server.read("talk")
    test.check("messages: a conversation", reply.status == 202 and context["status"] == "ready"
               and context["kind"] == "conversation" and context["turns"] == 1, context)
    talk = {"context": "talk", "context_mode": "append", "max_tokens": 12}
    first = server.chat("What is my boat called?", **talk)
    after = server.read("talk")
    test.check("append: what is said is kept", first.status == 200 and after["turns"] == 2
               and after["tokens"] > context["tokens"], after)
    second = server.chat("And where is it?", **talk)
    usage = second.json["usage"]
    test.check("append: what was said before is not read again",
               usage["prompt_tokens_details"]["cached_tokens"] >= after["tokens"], usage)
    streamed = list(server.stream("/v1/chat/completions", {
        "messages": [{"role": "user", "content": "Bye."}], "stream": True, **talk}))
    test.check("append: streamed as well", streamed[-1] == "[DONE]"
               and server.read("talk")["turns"] == 4, server.read("talk"))
    reply = server.chat("x", n=2, **talk)
    test.check("append: one answer alone", reply.status == 400 and reply.error["param"] == "n",
               reply)
    for said in ([{"role": "user", "content": "a question without its answer"}],
                 [{"role": "assistant", "content": "an answer without its question"}]):
        reply = server.call("POST", "/v1/contexts", {"messages": said})
        test.check("messages that are no conversation's beginning are refused at once",
                   reply.status == 400 and reply.error["param"] == "messages", reply)
    reply = server.call("POST", "/v1/contexts/talk/append", {"text": "no document"})
    test.check("a conversation takes no text", reply.status == 409
               and reply.error["code"] == "is_conversation", reply)


def they_are_listed(test, server):
    whole = server.call("GET", "/v1/contexts?limit=100").json
    ids = [it["id"] for it in whole["data"]]
    test.check("list: by id, all fields", ids == sorted(ids) and len(ids) > 5
               and all(set(it) == FIELDS for it in whole["data"]) and not whole["has_more"]
               and (whole["first_id"], whole["last_id"]) == (ids[0], ids[-1]))
    found, after = [], {}
    while len(found) <= len(ids):
        page = server.call("GET", "/v1/contexts" + query(limit=3, **after)).json
        found += [it["id"] for it in page["data"]]
        after = {"after": page["last_id"]}
        if not page["has_more"]:
            break
    test.check("list: page by page, each once", found == ids, (found, ids))
    for wish in ("limit=0", "limit=101", "limit=x", "order=asc"):
        test.check(f"list: {wish} is refused", server.call(
            "GET", f"/v1/contexts?{wish}").status == 400)


def it_expires(test, server):
    server.make("brief", "A note for a second.", ttl=1)
    time.sleep(2.5)
    test.check("ttl: then it is gone", server.call("GET", "/v1/contexts/brief").status == 404)
    for method, path, body in (("POST", "/v1/contexts", {"text": "x", "ttl": 0}),
                               ("PATCH", "/v1/contexts/letters", {"ttl": 0})):
        reply = server.call(method, path, body)
        test.check(f"ttl: 0 is refused by name ({method})", reply.status == 400
                   and reply.error["param"] == "ttl", reply)
