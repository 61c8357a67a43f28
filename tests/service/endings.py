"""How does the service end? Told to, it lets requests end and stops readings, which go on the next
time; killed, it has lost nothing that it said was done."""

import random
import signal
import threading
import time

from server import DoesNotStart
from texts import FIELDS, QUESTION, document, password

SAID = [{"role": "user", "content": "Tell me a long story."}]
LEFT_OUT = {"0": -100, "2": -100}  # tokens that would end an answer
N_KILLS = 3


def run(test):
    test.each((a_stream_is_drained, a_long_stream_is_cut, a_reading_is_stopped_and_goes_on,
               nothing_acknowledged_is_lost))


def streamed(server, n_tokens, into):
    """Has a stream go on in the background; its events go to `into`."""
    body = {"messages": SAID, "max_tokens": n_tokens, "temperature": 0, "stream": True,
            "logit_bias": LEFT_OUT}

    def follow():
        try:
            into.extend(server.stream("/v1/chat/completions", body))
        except (OSError, ValueError) as error:
            into.append(repr(error))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    while server.metric("mneme_running") == 0:
        time.sleep(0.02)
    return thread


def a_stream_is_drained(test):
    server = test.server("drained")
    kept = server.connection()  # a connection from before, which is taken care of as well
    kept.request("GET", "/readyz")
    kept.getresponse().read()
    events = []
    thread = streamed(server, 200, events)
    time.sleep(0.3)
    begun = time.monotonic()
    server.tell(signal.SIGTERM)
    time.sleep(0.2)
    replies = {path: server.call("GET", path) for path in ("/readyz", "/healthz", "/metrics")}
    refused = server.chat("x")
    thread.join(60)
    status = server.wait(60)
    test.check("SIGTERM: a stream goes on to its end", events and events[-1] == "[DONE]"
               and events[-2]["choices"][0]["finish_reason"] == "length", events[-2:])
    test.check("SIGTERM: meanwhile it is not ready, but alive", replies["/readyz"].status == 503
               and replies["/healthz"].status == 200
               and b"mneme_draining 1" in replies["/metrics"].body,
               [str(it) for it in replies.values()])
    test.check("SIGTERM: new requests are told so", refused.status == 503
               and refused.error["code"] == "draining" and "retry-after" in refused.headers,
               refused)
    test.check("SIGTERM: then it ends well, and soon", status == 0
               and time.monotonic() - begun < 25, (status, time.monotonic() - begun))
    kept.close()


def a_long_stream_is_cut(test):
    server = test.server("cut", "--drain-seconds", "1")
    events = []
    thread = streamed(server, 4000, events)
    begun = time.monotonic()
    server.tell(signal.SIGTERM)
    status = server.wait(30)
    took = time.monotonic() - begun
    thread.join(10)
    test.check("SIGTERM: what does not end in time is cut", status is not None and took < 15
               and not thread.is_alive(), (status, took))
    told = [it for it in events if isinstance(it, dict) and "error" in it]
    test.check("SIGTERM: nobody takes what was cut for whole", events[-1] != "[DONE]" or told,
               events[-2:])


def a_reading_is_stopped_and_goes_on(test):
    server = test.server("stopped")
    text = password("the rock", "tern", 180)
    body = {"name": "rock", "text": text, "metadata": {"kept": 1}, "stream": True}
    events = []
    thread = threading.Thread(target=lambda: events.extend(server.stream("/v1/contexts", body)),
                              daemon=True)
    thread.start()
    while server.call("GET", "/v1/contexts/rock").json.get("tokens", 0) < 1300:
        time.sleep(0.05)
    begun = time.monotonic()
    server.tell(signal.SIGTERM)
    status, took = server.wait(40), time.monotonic() - begun
    thread.join(10)
    test.check("SIGTERM: a reading is stopped, soon", status == 0 and took < 10, (status, took))
    objects = [it for it in events if isinstance(it, dict)]
    test.check("SIGTERM: whoever follows it is told", events[-1] == "[DONE]"
               and objects[-1].get("status") == "stopped", events[-2:])
    server.start()
    context = server.call("GET", "/v1/contexts/rock").json
    test.check("then it is there in part", context.get("status") == "stopped"
               and context["tokens"] > 1000 and context["total_tokens"] is None, context)
    reply = server.call("POST", "/v1/contexts", {**body, "text": "Another text."})
    context_after = server.read("rock")
    test.check("another text does not go on there", reply.status == 409 or (
        reply.status == 200 and b'"error"' in reply.body) and context_after["tokens"]
        >= context["tokens"], reply)
    begun = time.monotonic()
    events = list(server.stream("/v1/contexts", body))
    progress = [it["tokens"] for it in events if isinstance(it, dict)
                and it.get("object") == "context.progress"]
    test.check("the same POST goes on where it was", progress
               and progress[0] >= context["tokens"] and events[-2].get("status") == "ready",
               (progress[:3], events[-2:]))
    test.check("and all of it is there", server.call(
        "GET", "/v1/contexts/rock/text").json["text"] == text
        and server.read("rock")["metadata"] == {"kept": 1}, server.read("rock"))


class Load:
    """Clients that go on until the server is gone, and what they were told was done."""

    def __init__(self, server, seed, counted, forked):
        self.server, self.random = server, random.Random(seed)
        self.is_over = threading.Event()
        self.counted, self.forked, self.turns = counted, forked, 0
        self.odd = []
        clients = (self.chats, self.asks, self.reads, self.patches, self.forks, self.talks)
        self.threads = [threading.Thread(target=self.go_on, args=(it,), daemon=True)
                        for it in clients]
        for thread in self.threads:
            thread.start()

    def go_on(self, client):
        while not self.is_over.is_set():
            reply = client()
            if reply.status not in (0, 200, 201, 202, 404, 409, 429):
                self.odd.append(str(reply))

    def end(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join(60)

    def chats(self):
        return self.server.chat(document("elsewhere", 60), max_tokens=30)

    def asks(self):
        return self.server.chat(QUESTION, context="kept-1", max_tokens=8)

    def reads(self):
        return self.server.call("POST", "/v1/contexts", {
            "text": document(f"read {self.random.random()}", 100)})

    def patches(self):
        reply = self.server.call("PATCH", "/v1/contexts/kept-0", {
            "metadata": {"count": self.counted + 1}})
        self.counted += reply.status == 200
        return reply

    def forks(self):
        reply = self.server.call("POST", "/v1/contexts/kept-1/fork", {
            "name": f"fork-{self.forked + 1}"})
        # One that was not acknowledged before a kill may be there.
        self.forked += reply.status == 201 or reply.error.get("code") == "context_exists"
        if reply.error.get("code") == "context_busy":
            self.odd.append(str(reply))
        return reply

    def talks(self):
        reply = self.server.chat("Go on.", context="talk", context_mode="append", max_tokens=8)
        self.turns += reply.status == 200
        return reply


def nothing_acknowledged_is_lost(test):
    server = test.server("killed")
    for n in range(3):
        server.make(f"kept-{n}", password(f"island {n}", ("gull", "skua", "auk")[n], 30),
                    metadata={"count": 0})
    server.call("POST", "/v1/contexts", {"name": "talk", "messages": [
        {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}]})
    before = {f"kept-{n}": as_it_is(server, f"kept-{n}") for n in range(3)}
    n_turns, n_forks, counted = 1, 0, 0
    for kill in range(N_KILLS):
        load = Load(server, kill, counted, n_forks)
        time.sleep(random.Random(kill).uniform(3, 6))
        server.kill()
        load.end()
        try:
            server.start()
        except DoesNotStart as error:
            test.check("kill -9: it starts again", False, error)
            return
        test.check(f"kill -9, {kill + 1} of {N_KILLS}: nobody was told of a fault before",
                   not load.odd, load.odd[:2])
        count = server.read("kept-0")["metadata"]["count"]
        test.check("kill -9: a change that was acknowledged is there", count
                   in (load.counted, load.counted + 1), (count, load.counted))
        n_there = sum(server.call("GET", f"/v1/contexts/fork-{n}").status == 200
                      for n in range(1, load.forked + 1))
        test.check(f"kill -9: {load.forked - n_forks} forks that were acknowledged are there",
                   n_there == load.forked, (n_there, load.forked))
        turns = server.read("talk")["turns"]
        test.check(f"kill -9: {load.turns} turns that were acknowledged are there", turns
                   in (n_turns + load.turns, n_turns + load.turns + 1),
                   (turns, n_turns, load.turns))
        after = {name: as_it_is(server, name) for name in before}
        test.check("kill -9: contexts answer as before", before == after, (before, after))
        n_turns, counted, n_forks = turns, count, load.forked
    what_was_being_read_goes_on(test, server)


def as_it_is(server, name):
    """What a context must be, whatever happens, and how it answers."""
    context = server.read(name)
    same = FIELDS - {"last_used", "metadata", "own_bytes", "disk_bytes"}
    return ({it: context.get(it) for it in same},
            server.said(QUESTION, context=name, max_tokens=16),
            server.call("GET", f"/v1/contexts/{name}/text").body)


def what_was_being_read_goes_on(test, server):
    text = password("the last rock", "tern", 700)  # longer to read than we wait
    server.call("POST", "/v1/contexts", {"name": "last", "text": text})
    time.sleep(2)
    server.kill()
    server.start()
    context = server.call("GET", "/v1/contexts/last")
    test.check("kill -9: what was being read is there in part, or not at all",
               context.status == 404 or context.json["status"] == "stopped", context)
    whole = server.make("last", text)
    test.check("kill -9: the same POST goes on to the end", whole.get("status") == "ready"
               and server.call("GET", "/v1/contexts/last/text").json["text"] == text, whole)
    statuses = {it["status"] for it in server.call("GET", "/v1/contexts?limit=100").json["data"]}
    test.check("kill -9: nothing pretends to be read on", statuses <= {"ready", "stopped"},
               statuses)
