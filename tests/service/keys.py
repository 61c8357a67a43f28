"""Who may see what: keys, tenants, strangers' pages, addresses that others reach."""

import json
import re
import statistics
import subprocess

from server import made_keys, query
from texts import document

SAID = [{"role": "user", "content": "x"}]
OPEN = ("/healthz", "/readyz", "/")


def run(test):
    server, keys = test.server_with_keys("tenants", ["a", "b"], "--cors-origins",
                                         "https://friend.example")
    server.make("shared-name", document("the place of a", 30))
    server.call("POST", "/v1/contexts", {"name": "secret", "text": document("secret", 30)})
    server.read("secret")
    test.each((nothing_without_a_key, a_stranger_finds_nothing, names_are_each_tenants_own,
               what_one_read_is_no_help_to_another, measures_are_each_tenants_own,
               friends_pages_may_call, keys_are_not_told), server, keys)
    server.kill()
    test.each((a_tenant_has_its_quota, pages_of_strangers_are_refused, others_are_not_served))


def routes(server):
    """Every route that the API describes, its path filled in."""
    paths = server.call("GET", "/openapi.json").json["paths"]
    for path, methods in paths.items():
        for method in methods:
            yield method.upper(), path.replace("{id}", "secret")


def is_error(reply, status, code):
    """Whether it is one of the API's own, with all four keys."""
    return reply.status == status and reply.error.get("code") == code \
        and set(reply.error) == {"message", "type", "param", "code"}


def nothing_without_a_key(test, server, keys):
    asked = [*routes(server), ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/nowhere"),
             ("PUT", "/v1/models")]
    wrong = []
    for method, path in asked:
        if path in OPEN:
            continue
        body = None if method == "GET" else {}
        for what, key, headers in (
                ("no key", None, {}), ("a wrong key", "mn-" + "0" * 64, {}),
                ("another scheme", None, {"Authorization": f"Basic {keys[0]}"}),
                ("a key cut short", keys[0][:-1], {}), ("an empty key", None, {
                    "Authorization": "Bearer "})):
            reply = server.call(method, path, body, key=key, headers=headers)
            if not is_error(reply, 401, "invalid_api_key"):
                wrong.append((method, path, what, str(reply)))
    test.check(f"{len(asked)} routes answer 401 to no key and to wrong ones", not wrong, wrong[:3])
    for path in OPEN:
        test.check(f"{path} needs no key", server.call("GET", path, key=None).status == 200)
    page = server.call("GET", "/", key=None).body.decode()
    files = re.findall(r'"/?(page/[^"]+)"', page)
    test.check("the page needs no key, nor do its files", files and all(
        server.call("GET", f"/{file}", key=None).status == 200 for file in files), files)


def foreign_calls(name):
    """Everything that can be asked of a context."""
    at = f"/v1/contexts/{name}"
    yield "GET", at, None
    yield "PATCH", at, {"pinned": True}
    yield "POST", f"{at}/append", {"text": "more"}
    yield "POST", f"{at}/fork", {}
    yield "POST", f"{at}/rewind", {"tokens": 5}
    yield "GET", f"{at}/text", None
    yield "GET", f"{at}/export", None
    yield "POST", "/v1/chat/completions", {"messages": SAID, "context": name}
    yield "POST", "/v1/chat/completions", {"messages": SAID, "context": name,
                                           "context_mode": "append"}
    yield "DELETE", at, None


def a_stranger_finds_nothing(test, server, keys):
    for foreign, unknown in zip(foreign_calls("secret"), foreign_calls("secrex")):
        replies = [server.call(*call, key=keys[1]) for call in (foreign, unknown)]
        bodies = [it.body.replace(b"secrex", b"secret") for it in replies]
        test.check(f"{foreign[0]} {foreign[1]}: another's is as none", is_error(
            replies[0], 404, "context_not_found") and replies[1].status == 404
            and bodies[0] == bodies[1], [str(it) for it in replies])
    for call in ("GET", "/v1/contexts/{}"), ("GET", "/v1/contexts/{}/text"):
        seconds = {"secret": [], "secrex": []}
        for _ in range(150):
            for name, taken in seconds.items():
                taken.append(server.call(call[0], call[1].format(name), key=keys[1]).seconds)
        foreign, unknown = (statistics.median(taken) for taken in seconds.values())
        test.check(f"{call[1]}: another's takes as long as none",
                   abs(foreign - unknown) < 0.25 * unknown + 1e-4, (foreign, unknown))
    test.check("it is still there for its owner", server.read("secret")["status"] == "ready"
               and not server.read("secret")["pinned"])


def names_are_each_tenants_own(test, server, keys):
    a, b = keys
    reply = server.call("POST", "/v1/contexts", {"name": "shared-name", "text": "That of b."},
                        key=b)
    while server.call("GET", "/v1/contexts/shared-name", key=b).json["status"] != "ready":
        pass
    test.check("two tenants may use one name", reply.status == 202 and server.call(
        "GET", "/v1/contexts/shared-name/text", key=b).json["text"] == "That of b.")
    ids = [[it["id"] for it in server.call("GET", "/v1/contexts", key=key).json["data"]]
           for key in keys]
    test.check("each lists its own", ids == [["secret", "shared-name"], ["shared-name"]], ids)
    page = server.call("GET", "/v1/contexts" + query(after="a"), key=b).json
    test.check("a cursor leads to nobody else's", [it["id"] for it in page["data"]]
               == ["shared-name"])
    headers = {"Idempotency-Key": "same"}
    forks = [server.call("POST", "/v1/contexts/shared-name/fork", {}, key=key, headers=headers)
             for key in keys]
    test.check("each has its own Idempotency-Keys", forks[0].status == forks[1].status == 201
               and forks[0].json["id"] != forks[1].json["id"])
    server.call("DELETE", "/v1/contexts/shared-name", key=b)
    test.check("one's deletion is not another's", server.call(
        "GET", "/v1/contexts/shared-name", key=a).status == 200)


def what_one_read_is_no_help_to_another(test, server, keys):
    long = document("common ground", 40) + "What was noted?"
    cached = [server.chat(long, max_tokens=2, key=key)
              .json["usage"]["prompt_tokens_details"]["cached_tokens"]
              for key in (keys[0], keys[0], keys[1])]
    test.check("what one tenant read is reused for it alone", cached[0] == 0 and cached[1] > 500
               and cached[2] == 0, cached)


def measures_are_each_tenants_own(test, server, keys):
    for key, own, other in ((keys[0], "a", "b"), (keys[1], "b", "a")):
        text = server.call("GET", "/metrics", key=key).body.decode()
        test.check(f"the measures of {own} tell nothing of {other}",
                   f'tenant="{own}"' in text and f'tenant="{other}"' not in text,
                   [line for line in text.splitlines() if f'tenant="{other}"' in line][:2])


def friends_pages_may_call(test, server, keys):
    def asked(origin):
        return server.call("OPTIONS", "/v1/contexts", key=None, headers={
            "Origin": origin, "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type"})

    friend, stranger = asked("https://friend.example"), asked("https://evil.example")
    test.check("CORS: a friend's page is let in", friend.status == 200
               and friend.headers.get("access-control-allow-origin") == "https://friend.example",
               friend.headers)
    test.check("CORS: a stranger's is not", "access-control-allow-origin" not in stranger.headers)
    reply = server.call("GET", "/v1/models", headers={"Origin": "https://evil.example"})
    test.check("with a key, too", is_error(reply, 403, "forbidden_origin"), reply)


def keys_are_not_told(test, server, keys):
    file = (test.stores / "tenants.keys.toml").read_text()
    test.check("no key in the file of keys, nor in the log", not any(
        key in file or key in server.log() for key in keys))


def a_tenant_has_its_quota(test):
    server, keys = test.server_with_keys("quota", ["a", "b"], "--tenant-max-bytes", "1000000")
    first = server.make("first", "A little text.")
    test.check("a tenant's quota: what fits is read", first.get("status") == "ready", first)
    # How much it takes is known once its tokens are counted.
    more = server.make("more", document("much more", 30))
    error = more.get("error") or {}
    test.check("a tenant's quota: store_full, a server_error",
               (more.get("status"), error.get("code"), error.get("type"))
               == ("failed", "store_full", "server_error"), more)
    reply = server.call("POST", "/v1/contexts", {"text": "More."}, key=keys[1])
    test.check("it is that tenant's alone", reply.status == 202, reply)
    server.kill()
    # A page is kept whole, so that the shortest text takes more than its tokens let expect.
    server, keys = test.server_with_keys("full", ["a"], "--tenant-max-bytes", "400000")
    server.make("first", "A little text.")
    reply = server.call("POST", "/v1/contexts", {"text": "Another."})
    test.check("a tenant that is over its quota is told at once",
               is_error(reply, 507, "store_full"), reply)
    server.kill()


def pages_of_strangers_are_refused(test):
    server = test.server("no-keys", "--max-requests", "1")
    for headers in ({"Host": "evil.example"}, {"Host": "localhost.evil.example:80"},
                    {"Origin": "http://evil.example"}, {"Origin": "null"},
                    {"Origin": "http://localhost:1"}):
        for method, path in (("GET", "/v1/contexts"), ("POST", "/v1/contexts"),
                             ("GET", "/nowhere"), ("GET", "/")):
            reply = server.call(method, path, None if method == "GET" else {"text": "x"},
                                headers=headers)
            if not is_error(reply, 403, "forbidden_origin"):
                test.check(f"{method} {path} with {headers} is 403", False, reply)
    test.check("foreign hosts and origins are refused: nothing was made", server.call(
        "GET", "/v1/contexts").json["data"] == [])
    host = server.base.removeprefix("http://")
    for headers in ({"Host": host, "Origin": server.base}, {"Host": "localhost"},
                    {"Host": "[::1]:80"}):
        test.check(f"one's own is served: {json.dumps(headers)}", server.call(
            "GET", "/v1/contexts", headers=headers).status == 200)
    server.kill()


def others_are_not_served(test):
    def run_with(*options, **environment):
        return subprocess.run([test.binary, "serve", "--store", str(test.stores / "none"),
                               *options], capture_output=True, text=True, timeout=60,
                              env={"PATH": "", "HOME": "/dev/null", **environment})

    for address in ("0.0.0.0:0", "[::]:0"):
        done = run_with("--listen", address, "--check-config")
        refused = run_with("--listen", address) if done.returncode == 0 else done
        said = refused.stdout + refused.stderr
        test.check(f"without keys {address} is refused at the start", refused.returncode
                   and "keys" in said, said)
    _, text = made_keys(test.binary, "a")
    broken = test.stores / "broken.toml"
    broken.write_text(text.replace("sha256", "key"))
    done = run_with("--keys", str(broken))
    test.check("a file of keys with a mistake is refused, and said where", done.returncode
               and "line" in done.stderr, done.stderr)
