#!/usr/bin/env python3
"""The page from end to end, in headless Chromium, against any server that fulfils docs/api.md.

    tests/page/page_test.py BASE_URL|BINARY [--key KEY] [--document FILE] [--screenshot FILE]
                            [--shots FOLDER] [--timeout SECONDS]

A BINARY is a built `mneme` whose default model is at hand: it serves with a store of its own. One
line a check, then `N passed, M failed`; the exit status is 0 where all passed, 2 where there is no
Chromium. What it makes on the server it deletes again. It knows nothing of what the model says:
an answer is any answer, and where a model attends is where it attends.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
import urllib.request
from pathlib import Path

import visit
from browser import Browser, NoBrowser

sys.path.append(str(Path(__file__).parent.parent / "service"))
import server  # of the service's own tests

class Server:
    """The API, for what a test needs beside the page."""

    def __init__(self, base, key):
        self.base, self.key = base.rstrip("/"), key

    def call(self, method, path, body=None):
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, content, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply), reply.headers

    def ids(self):
        found, after = set(), ""
        while True:
            page, _ = self.call("GET", f"/v1/contexts?limit=100{after}")
            found |= {context["id"] for context in page["data"]}
            if not page["has_more"]:
                return found
            after = f"&after={page['last_id']}"


class Test:
    """One run: the browser, the server, and what was found."""

    def __init__(self, arguments, browser):
        self.arguments, self.browser = arguments, browser
        self.base = arguments.base.rstrip("/")
        self.server = Server(self.base, arguments.key)
        self.passed = self.failed = 0

    def check(self, what, holds, seen=""):
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        print(f"ok     {what}" if holds else f"FAILED {what}  [{seen}]", flush=True)

    def wait(self, script, *arguments, timeout=None):
        """The first truthy value of a script, or its last value when time is up."""
        end = time.monotonic() + (timeout or self.arguments.timeout)
        while True:
            value = self.browser.js(script, *arguments)
            if value or time.monotonic() > end:
                return value
            time.sleep(0.05)

    def shows(self, selector, timeout=10):
        script = "const e = document.querySelector(arguments[0]);" \
                 "return !!e && e.checkVisibility({visibilityProperty: true})"
        return self.wait(script, selector, timeout=timeout)

    def text(self, selector):
        return self.browser.js("return document.querySelector(arguments[0])?.innerText ?? ''",
                               selector)

    def count(self, selector):
        return self.browser.js("return document.querySelectorAll(arguments[0]).length", selector)

    def shown_id(self):
        return self.browser.js("return decodeURIComponent(location.hash.slice(2))")

    def go(self, address):
        self.browser.js("location.hash = arguments[0]", address)

    def wait_ready(self):
        return self.wait("const shown = document.querySelector('.context')?.dataset;"
                         "return shown?.id === decodeURIComponent(location.hash.slice(2))"
                         " && shown.status === 'ready'"
                         " && !document.querySelector('#question').disabled")

    def wait_answered(self):
        return self.wait("const t = [...document.querySelectorAll('.turn')].at(-1);"
                         "return t && !['waiting', 'answering'].includes(t.dataset.state)"
                         " && document.querySelector('.send').ariaLabel === 'Ask'")

    def tab_to(self, selector, keys="Tab", limit=80):
        """Presses Tab until `selector` has the focus; false where it never gets there."""
        for _ in range(limit):
            if self.browser.js("return document.activeElement.matches(arguments[0])", selector):
                return True
            self.browser.press(keys)
        return False

    def shot(self, name):
        image = self.browser.screenshot()
        if self.arguments.shots:
            folder = Path(self.arguments.shots)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.png").write_bytes(image)
        return image


def run(t):
    """All checks in the order of a visit. What breaks ends one part, not the others."""
    context = None
    before = set()

    def part(function, *arguments):
        try:
            return function(t, *arguments)
        except Exception as error:
            traceback.print_exc()
            t.check(f"{function.__name__} runs to its end", False, error)
            return None

    try:
        before = t.server.ids()
        t.browser.scheme("light")
        part(visit.page_loads)
        part(visit.key_is_asked)
        context = part(visit.file_is_read)
        for function in (visit.question_is_answered, visit.passage_is_read,
                         visit.answer_is_stopped, visit.view_survives_reload,
                         visit.context_is_pinned, visit.context_is_forked_and_deleted,
                         visit.drop_is_read, visit.errors_are_told):
            part(function)
        for function in (visit.network_may_fail, visit.phone_fits, visit.schemes_are_legible,
                         visit.keyboard_is_enough):
            part(function, context)
        part(visit.nothing_leaks)
    finally:
        for made in t.server.ids() - before:
            t.server.call("DELETE", f"/v1/contexts/{made}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("base", metavar="BASE_URL|BINARY")
    parser.add_argument("--key", help="a key that the server takes, where it wants one")
    parser.add_argument("--document", metavar="FILE", help="what to read instead of a small text")
    parser.add_argument("--screenshot", metavar="FILE", help="a picture of the page, light")
    parser.add_argument("--shots", metavar="FOLDER", help="pictures of all views")
    parser.add_argument("--timeout", type=float, default=300, help="for a reading or an answer")
    arguments = parser.parse_args()
    try:
        browser = Browser()
    except NoBrowser as missing:
        print(f"no browser: {missing}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        served = None
        try:
            if not arguments.base.startswith("http"):
                served = server.Server(arguments.base, Path(folder))
                arguments.base = served.start().base
            test = Test(arguments, browser)
            run(test)
        finally:
            browser.close()
            if served:
                served.kill()
    print(f"{test.passed} passed, {test.failed} failed")
    return 1 if test.failed or not test.passed else 0


if __name__ == "__main__":
    sys.exit(main())
