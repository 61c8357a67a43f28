"""Headless Chromium over plain WebDriver calls: as much of it as page_test.py needs."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "Shift": "\ue008",
        "ArrowRight": "\ue014", "Home": "\ue011", "End": "\ue010", "Space": " "}
DRIVERS = ("chromedriver", "/usr/lib/chromium/chromedriver")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
         "--hide-scrollbars", "--no-first-run", "--disable-extensions",
         "--disable-background-networking", "--force-color-profile=srgb"]


class NoBrowser(Exception):
    """Chromium or its driver is not installed."""


class Refused(Exception):
    """The driver could not do what it was told."""


def found(names):
    return next((path for path in map(shutil.which, names) if path), None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Browser:
    """One window. Elements are named by CSS selectors, places on the page by JavaScript."""

    def __init__(self):
        driver, browser = found(DRIVERS), found(BROWSERS)
        if not driver or not browser:
            raise NoBrowser("apt-get install chromium chromium-driver")
        port = free_port()
        self.base = f"http://127.0.0.1:{port}"
        self.driver = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
        self.session = None
        self.wait_for_driver()
        made = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"binary": browser, "args": FLAGS},
            "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.session = made["sessionId"]
        self.size(1280, 800)

    def wait_for_driver(self):
        for _ in range(100):
            try:
                if self.call("GET", "/status")["ready"]:
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        raise NoBrowser("chromedriver does not start")

    def close(self):
        try:
            if self.session:
                self.call("DELETE", f"/session/{self.session}")
        finally:
            self.driver.terminate()
            self.driver.wait()

    def call(self, method, path, body=None):
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, content, method=method,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            raise Refused(json.load(error)["value"]["message"].split("\n")[0]) from None

    def command(self, path, body=None, method="POST"):
        return self.call(method, f"/session/{self.session}{path}",
                         {} if body is None and method == "POST" else body)

    def devtools(self, name, **parameters):
        return self.command("/goog/cdp/execute", {"cmd": name, "params": parameters})

    def open(self, url):
        self.command("/url", {"url": url})

    def reload(self):
        self.command("/refresh")

    def js(self, script, *arguments):
        return self.command("/execute/sync", {"script": script, "args": list(arguments)})

    def element(self, selector):
        found = self.command("/element", {"using": "css selector", "value": selector})
        return found[ELEMENT]

    def click(self, selector):
        self.command(f"/element/{self.element(selector)}/click")

    def type(self, selector, text):
        self.command(f"/element/{self.element(selector)}/value", {"text": text})

    def press(self, *names):
        """Presses keys one after the other, as a hand would; "Shift+Tab" holds Shift."""
        actions = []
        for name in names:
            keys = [KEYS.get(key, key) for key in name.split("+")]
            actions += [{"type": "keyDown", "value": key} for key in keys]
            actions += [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self.command("/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def write(self, text):
        """Types into whatever has the focus."""
        self.press(*("Shift+" + c if c.isupper() else "Space" if c == " " else c for c in text))

    def size(self, width, height, mobile=False):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                      deviceScaleFactor=1, mobile=mobile)

    def online(self, online):
        self.devtools("Network.enable")
        self.devtools("Network.emulateNetworkConditions", offline=not online, latency=0,
                      downloadThroughput=-1, uploadThroughput=-1)

    def scheme(self, name):
        self.devtools("Emulation.setEmulatedMedia",
                      features=[{"name": "prefers-color-scheme", "value": name},
                                {"name": "prefers-reduced-motion", "value": "reduce"}])

    def screenshot(self):
        return base64.b64decode(self.command("/screenshot", method="GET"))

    def console(self):
        """What the browser complained of since it was asked last."""
        return [line["message"] for line in self.command("/se/log", {"type": "browser"})
                if line["level"] == "SEVERE"]
