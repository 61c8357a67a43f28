#!/usr/bin/env python3
"""The service from outside, by the clients that people have. run.sh starts it; its parts are the
modules below, each with a function `run(test)`.

What the model says is not judged, only that the same question has the same answer where it must,
and that replies have the shape of docs/api.md. Servers listen on loopback, each with a store of
its own.
"""

import argparse
import importlib
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from server import Server, made_keys

PARTS = ("openai_package", "contexts", "changes", "retries", "keys", "malformed", "described",
         "abuse", "endings")


class Test:
    """One run: servers that were started, and what was found."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.binary = arguments.binary
        self.stores = Path(arguments.work) / "stores"
        self.servers = []
        self.passed = self.failed = 0

    def check(self, what, holds, seen=""):
        """Says whether something holds, and what was seen where it does not."""
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        print(f"ok     {what}" if holds else f"FAILED {what}  [{str(seen)[:500]}]", flush=True)
        return bool(holds)

    def server(self, name, *options, key=None):
        """A server with a fresh store."""
        server = Server(self.binary, self.stores / name, *options, key=key)
        self.servers.append(server)
        return server.start()

    def server_with_keys(self, name, tenants, *options):
        """A server that knows a key of each tenant, and the keys; calls have the first."""
        keys, text = made_keys(self.binary, *tenants)
        file = self.stores / f"{name}.keys.toml"
        file.write_text(text)
        return self.server(name, "--keys", str(file), *options, key=keys[0]), keys

    def each(self, functions, *arguments):
        """Checks of several kinds; what breaks ends one of them, not the others."""
        for function in functions:
            try:
                function(self, *arguments)
            except Exception as error:
                traceback.print_exc()
                self.check(f"{function.__name__} runs to its end", False, repr(error))

    def run(self, parts):
        for name in parts:
            begun = time.monotonic()
            print(f"-- {name}", flush=True)
            self.each([importlib.import_module(name).run])
            self.end_servers()
            print(f"   {name}: {time.monotonic() - begun:.0f} s", flush=True)

    def end_servers(self):
        for server in self.servers:
            server.kill()
        self.servers.clear()
        if not self.arguments.keep:
            for store in self.stores.glob("*/store"):
                shutil.rmtree(store, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary")
    parser.add_argument("work", help="where stores and logs lie")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, by commas")
    parser.add_argument("--disconnect-seconds", type=float, default=60,
                        help="how long clients hang up at random moments")
    parser.add_argument("--keep", action="store_true", help="leaves the stores, for a look")
    arguments = parser.parse_args()
    test = Test(arguments)
    shutil.rmtree(test.stores, ignore_errors=True)
    test.stores.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("the tests took too long"))
    try:
        test.run(arguments.parts.split(","))
    finally:
        test.end_servers()
    print(f"{test.passed} passed, {test.failed} failed")
    return 1 if test.failed or not test.passed else 0


if __name__ == "__main__":
    sys.exit(main())
