"""What if a client sends a request again? Idempotency-Key over plain HTTP, and the retries that
OpenAI's package does by itself when all places are taken."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai

from texts import document

CHAT = [{"role": "user", "content": "Count to ten."}]


def run(test):
    server = test.server("retries")
    server.make("source", document("source", 20))
    test.each((it_is_carried_out_once, another_request_is_refused, many_at_once_make_one,
               a_stream_is_begun_once, who_hangs_up_may_ask_again, changes_are_replayed), server)
    server.kill()
    small = test.server("small", "--max-requests", "1")
    test.each((who_asks_one_by_one_has_a_place, a_full_service_says_when,
               the_package_tries_again), small)


def post(server, path, body, key):
    return server.call("POST", path, body, headers={"Idempotency-Key": key})


def n_contexts(server):
    return len(server.call("GET", "/v1/contexts?limit=100").json["data"])


def it_is_carried_out_once(test, server):
    body = {"text": "A text that is sent twice."}
    n = n_contexts(server)
    first = post(server, "/v1/contexts", body, "once")
    server.read(first.json["id"])
    second = post(server, "/v1/contexts", body, "once")
    test.check("the same request with the same key has the same reply", first.status == 202
               and (second.status, second.body) == (first.status, first.body), (first, second))
    test.check("and is carried out once", n_contexts(server) == n + 1)
    test.check("an error is replayed as well", [
        post(server, "/v1/contexts/nowhere/fork", {}, "wrong").status for _ in range(2)]
        == [404, 404])


def another_request_is_refused(test, server):
    post(server, "/v1/contexts/source/fork", {"name": "reused"}, "reused")
    for what, path, body in (
            ("another body", "/v1/contexts/source/fork", {"name": "other"}),
            ("another path", "/v1/contexts/reused/fork", {"name": "reused"})):
        reply = post(server, path, body, "reused")
        test.check(f"the same key with {what} is a conflict", reply.status == 409
                   and reply.error["code"] == "idempotency_key_reused", reply)
    for key in ("", "x" * 256):
        test.check(f"a key of {len(key)} letters is refused",
                   post(server, "/v1/contexts/source/fork", {}, key).status == 400)


def many_at_once_make_one(test, server):
    n = n_contexts(server)
    body = {"text": document("at once", 20)}
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: post(server, "/v1/contexts", body, "many"), range(8)))
    made = {it.json["id"] for it in replies if it.status == 202}
    test.check("eight at once: one is carried out, the others hear of it", len(made) == 1
               and all(it.status == 202 or it.error.get("code") == "request_in_progress"
                       for it in replies), [str(it)[:80] for it in replies])
    test.check("eight at once: one context is made", n_contexts(server) == n + 1)


def a_stream_is_begun_once(test, server):
    body = {"text": document("begun once", 40), "stream": True}
    headers = {"Idempotency-Key": "stream"}
    n = n_contexts(server)
    events = server.stream("/v1/contexts", body, headers=headers)
    first = next(events)
    events.close()
    ids = {first["id"]}
    for moment in ("while it is read", "when it is read"):
        told = list(server.stream("/v1/contexts", body, headers=headers))
        objects = [it for it in told if isinstance(it, dict)]
        ids |= {it["id"] for it in objects if "id" in it}
        test.check(f"a stream sent again {moment} follows the same context", bool(objects)
                   and objects[-1].get("status") == "ready", told[-2:])
    test.check("a stream that is sent again makes one context", len(ids) == 1
               and n_contexts(server) == n + 1, (ids, n_contexts(server) - n))


def who_hangs_up_may_ask_again(test, server):
    n = n_contexts(server)
    for attempt in range(8):
        with server.socket() as connection:
            connection.sendall(server.raw("POST", "/v1/contexts/source/fork", {},
                                          {"Idempotency-Key": f"hung-up-{attempt}"}))
            time.sleep(attempt % 3 / 2000)
        replies = []
        while not replies or replies[-1].error.get("code") == "request_in_progress":
            time.sleep(0.1)
            replies.append(post(server, "/v1/contexts/source/fork", {}, f"hung-up-{attempt}"))
        if replies[-1].status != 201:
            test.check("who hung up and asks again is answered", False, replies[-1])
    test.check("who hangs up and asks again has it carried out once", n_contexts(server) == n + 8,
               n_contexts(server) - n)


def changes_are_replayed(test, server):
    headers = {"Idempotency-Key": "patch"}
    one, two = (server.call("PATCH", "/v1/contexts/source", {"metadata": {"a": 1}},
                            headers=headers) for _ in range(2))
    test.check("PATCH: replayed", one.status == 200 and one.body == two.body)
    server.call("POST", "/v1/contexts/source/fork", {"name": "doomed"})
    one, two = (server.call("DELETE", "/v1/contexts/doomed", headers={"Idempotency-Key": "gone"})
                for _ in range(2))
    test.check("DELETE: replayed, where a second one would find nothing",
               one.status == two.status == 200, two)


def who_asks_one_by_one_has_a_place(test, server):
    """A place was once free a little after the reply: 90 of 100 were refused at this limit."""
    statuses = [server.chat("x", max_tokens=1).status for _ in range(50)]
    test.check("who waits for each reply finds a place each time", statuses == [200] * 50,
               f"{statuses.count(429)} of 50 refused")
    server.wait_idle()


def a_full_service_says_when(test, server):
    events = server.stream("/v1/chat/completions", {"messages": CHAT, "max_tokens": 2000,
                                                    "temperature": 1, "stream": True,
                                                    "logit_bias": {"2": -100, "0": -100}})
    next(events)
    reply = server.chat("x")
    test.check("a full service: 429, Retry-After and all four keys", reply.status == 429
               and reply.headers.get("retry-after", "").isdigit() and set(reply.error)
               == {"message", "type", "param", "code"} and reply.error["code"] == "queue_full",
               reply)
    client = openai.OpenAI(base_url=f"{server.base}/v1", api_key="none", max_retries=0)
    try:
        client.chat.completions.create(model="smollm2-135m", messages=CHAT, max_tokens=2)
        raised = None
    except openai.APIStatusError as error:
        raised = error
    test.check("the package's RateLimitError", isinstance(raised, openai.RateLimitError)
               and raised.code == "queue_full", raised)
    test.check("a context finds no place either", server.call(
        "POST", "/v1/contexts", {"text": "x"}).status == 429)
    test.check("what needs no model is answered", server.call("GET", "/readyz").status == 200
               and server.call("GET", "/v1/contexts").status == 200)
    events.close()
    test.check("then it has room again", server.wait_idle(5)[0] and server.chat("x").status == 200)


def the_package_tries_again(test, server):
    refused = server.metric("mneme_refused_total")
    events = server.stream("/v1/chat/completions", {"messages": CHAT, "max_tokens": 2000,
                                                    "temperature": 1, "stream": True,
                                                    "logit_bias": {"2": -100, "0": -100}})
    next(events)
    threading.Timer(1.5, lambda: [None for _ in zip(range(3), events)] and events.close()).start()
    client = openai.OpenAI(base_url=f"{server.base}/v1", api_key="none", max_retries=6)
    reply = client.chat.completions.create(model="smollm2-135m", messages=CHAT, max_tokens=2)
    test.check("the package tries again until there is room", reply.choices[0].message.content
               and server.metric("mneme_refused_total") > refused, reply)
