"""Too many, too slow, gone too soon: what bad luck and bad manners do to the service. Afterwards
all places are free, no file is left open, and memory is as it was."""

import json
import random
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from texts import document

N_CONNECTIONS = 500
N_BURST = 150
N_PLACES = 8
LEFT_OUT = {"0": -100, "2": -100}  # tokens that would end an answer


def run(test):
    server = test.server("abuse", "--max-requests", str(N_PLACES), "--recent-bytes", "67108864")
    server.make("there", document("there", 20))
    slow = SlowReader(server)
    test.each((many_connect, a_burst_is_refused_in_order, others_are_answered), server)
    test.each((people_leave,), server)
    test.each((a_slow_reader_is_given_up,), server, slow)


def many_connect(test, server):
    """500 connections, all open at once, each asked something and left open."""
    request = server.raw("GET", "/v1/contexts/there", None)
    connections = []
    try:
        for _ in range(N_CONNECTIONS):
            connections.append(server.socket(timeout=30))
        for connection in connections:
            connection.sendall(request)
        replies = [connection.recv(4096) for connection in connections]
        test.check(f"{N_CONNECTIONS} connections at once are all answered", all(
            it.startswith(b"HTTP/1.1 200 ") for it in replies),
            [it[:60] for it in replies if not it.startswith(b"HTTP/1.1 200 ")][:3])
        half = [server.socket(timeout=30) for _ in range(50)]
        for connection in half:
            connection.sendall(request[:30])
        reply = server.call("GET", "/v1/contexts", timeout=5)
        test.check("one more is answered soon, beside them and 50 that never say all",
                   reply.status == 200 and reply.seconds < 1, (reply, reply.seconds))
        connections += half
    finally:
        for connection in connections:
            connection.close()


def a_burst_is_refused_in_order(test, server):
    """More questions at once than there are places: each is answered, with words or with 429."""
    begin = threading.Barrier(N_BURST)

    def ask(number):
        begin.wait()
        return server.chat(f"Say {number}.", max_tokens=8, timeout=60)

    with ThreadPoolExecutor(N_BURST) as pool:
        replies = list(pool.map(ask, range(N_BURST)))
    answered = [it for it in replies if it.status == 200]
    refused = [it for it in replies if it.status == 429]
    test.check(f"a burst of {N_BURST}: none is lost, none hangs", len(answered) + len(refused)
               == N_BURST, sorted({it.status for it in replies}))
    test.check("a burst: what finds a place is answered", len(answered) >= N_PLACES - 1
               and all(it.json["choices"][0]["message"]["content"] for it in answered),
               len(answered))
    test.check("a burst: the others are told when to come again", refused and all(
        it.headers.get("retry-after", "").isdigit() and it.error["code"] == "queue_full"
        for it in refused))
    test.check("a burst: refusing is quick", max(it.seconds for it in refused) < 10,
               max(it.seconds for it in refused))


class SlowReader:
    """Asks for more than any buffer holds, and reads none of it."""

    def __init__(self, server):
        self.connection = socket.socket()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.connection.connect(server.address)
        self.connection.sendall(server.raw("POST", "/v1/chat/completions", {
            "messages": [{"role": "user", "content": "Tell me everything."}], "n": 8,
            "max_tokens": 4096, "logprobs": True, "top_logprobs": 20, "temperature": 1,
            "stream": True, "logit_bias": LEFT_OUT}))
        self.begun = time.monotonic()


def others_are_answered(test, server):
    reply = server.chat("x", max_tokens=4, timeout=30)
    free, running = wait_for_places(server, 1, 2)
    test.check("beside a reader who does not read others are answered", reply.status == 200
               and free, (reply, running))


def a_slow_reader_is_given_up(test, server, slow):
    idle, running = server.wait_idle(max(5, 150 - (time.monotonic() - slow.begun)))
    test.check("a reader who does not read is given up, and its place is free", idle,
               (running, time.monotonic() - slow.begun))
    slow.connection.close()
    test.check("the server has failed nowhere", server.metric("mneme_faults_total") == 0
               and "panicked" not in server.log())


class Leaver(threading.Thread):
    """Asks and hangs up at a random moment, again and again."""

    def __init__(self, server, seed, end):
        super().__init__(daemon=True)
        self.server, self.end, self.n = server, end, 0
        self.random = random.Random(seed)
        self.odd, self.deleted = [], set()

    def run(self):
        while time.monotonic() < self.end:
            try:
                self.random.choice((self.in_prefill, self.in_decode, self.in_an_answer,
                                    self.in_a_reading, self.in_a_body, self.in_an_export))()
            except OSError as error:
                self.odd.append(repr(error))
            self.n += 1

    def leave(self, content, seconds):
        """Sends `content`, reads for so long at most, and hangs up: politely, or not."""
        with self.server.socket(timeout=10) as connection:
            connection.sendall(content)
            end = time.monotonic() + self.random.uniform(0, seconds)
            reply = b""
            try:
                while (left := end - time.monotonic()) > 0:
                    connection.settimeout(left)
                    if not (piece := connection.recv(4096)):
                        break
                    reply += piece
            except TimeoutError:
                pass
            except ConnectionError as error:
                self.odd.append(repr(error))
            if reply.startswith(b"HTTP/1.1 5"):
                self.odd.append(reply[:300])
            if self.random.random() < 0.5:  # a reset instead of a goodbye
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def ask(self, said, seconds, **fields):
        body = {"messages": [{"role": "user", "content": said}], "max_tokens": 400,
                "temperature": 1, "logit_bias": LEFT_OUT, **fields}
        self.leave(self.server.raw("POST", "/v1/chat/completions", body), seconds)

    def in_prefill(self):
        place = f"place {self.random.random()}"
        self.ask(document(place, 150), 1.5, stream=self.random.random() < 0.5)

    def in_decode(self):
        self.ask("Tell me a story.", 3, stream=True, n=self.random.choice((1, 3)))

    def in_an_answer(self):
        self.ask("What was noted?", 3, context="there", include_evidence=True)

    def in_a_reading(self):
        name = f"left-{self.random.getrandbits(64)}"
        body = {"name": name, "text": document(name, 150), "stream": True}
        self.leave(self.server.raw("POST", "/v1/contexts", body), 1.5)
        # Where nothing is there yet the server has not come to it: it is deleted in the end.
        reply = self.server.call("DELETE", f"/v1/contexts/{name}")
        if reply.status == 200:
            self.deleted.add(name)
        elif reply.status != 404:
            self.odd.append(str(reply))

    def in_a_body(self):
        content = self.server.raw("POST", "/v1/contexts", {"text": document("nowhere", 200)})
        self.leave(content[:self.random.randrange(200, len(content) - 1)], 0.2)

    def in_an_export(self):
        self.leave(self.server.raw("GET", "/v1/contexts/there/export", None), 0.05)


def leave_for(server, seconds, seed):
    end = time.monotonic() + seconds
    leavers = [Leaver(server, 100 * seed + n, end) for n in range(6)]
    for leaver in leavers:
        leaver.start()
    for leaver in leavers:
        leaver.join(seconds + 60)
    return leavers


def wait_for_places(server, n_taken, seconds=10):
    """Whether no more than so many places are taken, in time."""
    end = time.monotonic() + seconds
    while (running := server.metric("mneme_running")) > n_taken and time.monotonic() < end:
        time.sleep(0.05)
    return running <= n_taken, running


def people_leave(test, server):
    """The first half fills what is filled once: buffers, sessions kept, the allocator's pools."""
    seconds = test.arguments.disconnect_seconds
    leave_for(server, seconds / 2, 1)
    wait_for_places(server, 1)
    time.sleep(1)
    before = (server.resident_bytes(), server.n_files())
    leavers = leave_for(server, seconds / 2, 2)
    free, running = wait_for_places(server, 1)  # the slow reader may have one yet
    n = sum(leaver.n for leaver in leavers)
    test.check(f"{n} people left: their places are free", n > seconds / 2 and free, (n, running))
    odd = [it for leaver in leavers for it in leaver.odd]
    test.check("people left: nobody was told of an error of the server's", not odd, odd[:3])
    time.sleep(1)
    after = (server.resident_bytes(), server.n_files())
    grown = f"{before[0] >> 20} MiB, after {n} that left {after[0] >> 20} MiB"
    test.check(f"people left: memory is as it was, {grown}", after[0] < before[0] * 1.25
               + (96 << 20))
    test.check("people left: files are closed", after[1] <= before[1] + 3, (before[1], after[1]))
    deleted = {name for leaver in leavers for name in leaver.deleted}
    what_is_left_can_be_deleted(test, server, deleted)
    reply = server.chat("x", context="there", max_tokens=4)
    test.check("people left: others are answered as ever", reply.status == 200
               and reply.seconds < 5, (reply, reply.seconds))


def what_is_left_can_be_deleted(test, server, deleted):
    left = server.call("GET", "/v1/contexts?limit=100").json["data"]
    names = {it["id"] for it in left} - {"there"}
    test.check(f"people left: {len(deleted)} contexts that were deleted are gone",
               not names & deleted, json.dumps(left)[:300])
    replies = [server.call("DELETE", f"/v1/contexts/{name}") for name in names]
    left = server.call("GET", "/v1/contexts?limit=100").json["data"]
    test.check("people left: so are the others, once they are deleted", all(
        it.status == 200 for it in replies) and [it["id"] for it in left] == ["there"],
        json.dumps(left)[:300])
