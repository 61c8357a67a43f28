"""`mneme serve` as a process: started, asked over plain HTTP, measured, ended."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field

START_SECONDS = 60
CALL_SECONDS = 120
LOOK_SECONDS = 0.05


class DoesNotStart(Exception):
    """The server ended, or does not say its address."""


@dataclass
class Reply:
    """What came back. `status` is 0 where the connection broke before a reply."""

    status: int
    body: bytes
    headers: dict = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def error(self):
        """The error that it tells; an empty one where it tells none."""
        error = self.json.get("error") if isinstance(self.json, dict) else None
        return error if isinstance(error, dict) else {}

    def __str__(self):
        return f"{self.status} {self.body[:300]!r}"


class Server:
    """One process, its store, and calls to it. `key` is sent with each call, if there is one."""

    def __init__(self, binary, folder, *options, key=None):
        self.binary, self.folder, self.options, self.key = binary, folder, options, key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = None
        self.address = None
        self.starts = 0

    def start(self):
        self.starts += 1
        self.log_path = self.folder / f"log{self.starts}.txt"
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("MNEME_") or name == "MNEME_CACHE"}
        command = [self.binary, "serve", "--store", str(self.folder / "store"),
                   "--listen", "127.0.0.1:0", *self.options]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment,
                                            stdin=subprocess.DEVNULL)
        end = time.monotonic() + START_SECONDS
        while not (said := re.search(r"http://(127\.0\.0\.1):(\d+)", self.log())):
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise DoesNotStart(self.log()[-500:])
            time.sleep(LOOK_SECONDS)
        self.address = (said[1], int(said[2]))
        return self

    def log(self):
        return self.log_path.read_text(errors="replace")

    @property
    def base(self):
        return "http://{}:{}".format(*self.address)

    def tell(self, what=signal.SIGTERM):
        self.process.send_signal(what)

    def wait(self, seconds=60):
        """Its exit status; None where it has not ended by then."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self):
        self.tell()
        status = self.wait()
        self.kill()
        return status

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def headers(self, given, key=...):
        key = self.key if key is ... else key
        headers = {"Content-Type": "application/json", **(given or {})}
        if key:
            headers.setdefault("Authorization", f"Bearer {key}")
        return headers

    def call(self, method, path, body=None, *, headers=None, key=..., timeout=CALL_SECONDS):
        """One call with urllib. `body` is sent as JSON unless it is bytes."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, content, self.headers(headers, key),
                                         method=method)
        begun = time.monotonic()

        def made(status, reply):
            seen = {name.lower(): value for name, value in reply.headers.items()}
            return Reply(status, reply.read(), seen, time.monotonic() - begun)

        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return made(reply.status, reply)
        except urllib.error.HTTPError as error:
            with error:
                return made(error.code, error)
        except (OSError, http.client.HTTPException) as error:
            return Reply(0, repr(error).encode(), {}, time.monotonic() - begun)

    def connection(self, timeout=CALL_SECONDS):
        return http.client.HTTPConnection(*self.address, timeout=timeout)

    def socket(self, timeout=CALL_SECONDS):
        return socket.create_connection(self.address, timeout=timeout)

    def raw(self, method, path, body, headers=None):
        """The bytes of a request, for those who write them themselves."""
        content = json.dumps(body).encode() if body is not None else b""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in self.headers(headers).items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + content

    def stream(self, path, body, *, headers=None, key=...):
        """The events of a stream as they come: JSON, comments as `str`, the end as "[DONE]"."""
        connection = self.connection()
        try:
            connection.request("POST", path, json.dumps(body), self.headers(headers, key))
            reply = connection.getresponse()
            if reply.status != 200:
                yield Reply(reply.status, reply.read(), dict(reply.headers))
                return
            for line in reply:
                line = line.decode().rstrip("\r\n")
                if line.startswith("data: "):
                    data = line.removeprefix("data: ")
                    yield data if data == "[DONE]" else json.loads(data)
                elif line.startswith(":"):
                    yield line
        finally:
            connection.close()

    def chat(self, said, *, key=..., timeout=CALL_SECONDS, **fields):
        """A chat completion, greedy unless said otherwise."""
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        body = {"messages": messages, "temperature": 0, "max_tokens": 24, **fields}
        return self.call("POST", "/v1/chat/completions", body, key=key, timeout=timeout)

    def said(self, *arguments, **fields):
        """The text of an answer, or what came instead."""
        reply = self.chat(*arguments, **fields)
        return reply.json["choices"][0]["message"]["content"] if reply.status == 200 else str(reply)

    def make(self, name, text, **fields):
        """A context that is read to its end."""
        reply = self.call("POST", "/v1/contexts", {"name": name, "text": text, **fields})
        return self.read(name) if reply.status == 202 else reply.json

    def read(self, name, seconds=CALL_SECONDS, seen=None):
        """The context once nothing more is read of it; what was seen on the way goes to `seen`."""
        end = time.monotonic() + seconds
        while True:
            reply = self.call("GET", f"/v1/contexts/{name}")
            context = reply.json or {}
            if seen is not None:
                seen.append(context)
            if context.get("status") not in ("queued", "reading") or time.monotonic() > end:
                return context
            time.sleep(LOOK_SECONDS)

    def metric(self, name):
        """A number of /metrics; the sum where it has labels."""
        text = self.call("GET", "/metrics").body.decode()
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)", text, re.MULTILINE)
        return sum(map(float, found)) if found else None

    def wait_idle(self, seconds=15):
        """Whether all places are free again in time."""
        end = time.monotonic() + seconds
        while (running := self.metric("mneme_running")) != 0:
            if time.monotonic() > end:
                return False, running
            time.sleep(LOOK_SECONDS)
        return True, running

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) << 10

    def n_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def made_keys(binary, *tenants):
    """Keys of tenants, and the text of a file of keys that knows them."""
    keys, text = [], ""
    for tenant in tenants:
        said = subprocess.run([binary, "key", "--tenant", tenant], capture_output=True, text=True,
                              check=True, timeout=60)
        keys.append(re.search(r"mn-[0-9a-f]+", said.stdout)[0])
        text += re.search(r"\[\[key\]\].*", said.stdout, re.DOTALL)[0] + "\n"
    return keys, text


def query(**fields):
    return "?" + urllib.parse.urlencode(fields)
