"""What page_test.py does on the page and what it looks for: one function a part of a visit."""

import tempfile
import time
import urllib.request
from pathlib import Path

from page_facts import CONTRAST, DROP, FOCUS_WATCH, OUTSIDE, PROGRESS_WATCH, SIDEWAYS

LINE = "On day {n} the keeper of the lighthouse noted wind {n} and a sea of {m} feet.\n"
DOCUMENT = "".join(LINE.format(n=n, m=n % 17) for n in range(1, 80)) \
    + "\nThe password of the lighthouse is heron.\n\n" \
    + "".join(LINE.format(n=n, m=n % 17) for n in range(80, 160))
QUESTION = "What is the password of the lighthouse?"
LONG_QUESTION = "Tell me a long story about the lighthouse and its keeper."
ODD_NAME = "<img src=x onerror=alert(1)> & co.txt"


def page_loads(t):
    t.browser.open(t.base + "/")
    t.check("the page opens", t.browser.js("return document.title").startswith("mneme"))
    with urllib.request.urlopen(t.base + "/", timeout=20) as reply:
        policy = reply.headers.get("Content-Security-Policy", "")
        html = reply.read().decode()
    t.check("a strict Content-Security-Policy is sent", "default-src 'self'" in policy
            and "unsafe" not in policy, policy)
    t.check("the page holds no inline script and no inline style",
            "<style" not in html and " style=" not in html and "onclick" not in html)


def key_is_asked(t):
    if not t.arguments.key:
        return
    t.check("without a key one is asked for", t.shows("#ask-dialog[open]"))
    t.check("the dialog has the focus", t.browser.js("return document.activeElement.type")
            == "password")
    t.browser.write("wrong")
    t.browser.press("Enter")
    time.sleep(0.5)
    t.check("a wrong key is asked for again", t.shows("#ask-dialog[open]"))
    t.browser.write(t.arguments.key)
    t.browser.press("Enter")
    t.check("the right key lets in",
            t.wait("return !document.querySelector('#ask-dialog').open"
                   " && document.querySelector('#model').textContent", timeout=10))
    t.check("the key is kept in this tab alone", t.browser.js(
        "return sessionStorage.length > 0 && localStorage.length === 0 && !document.cookie"))


def file_is_read(t):
    document = t.arguments.document
    if not document:
        document = Path(tempfile.mkdtemp()) / "lighthouse.txt"
        document.write_text(DOCUMENT)
    t.browser.js(PROGRESS_WATCH)
    t.browser.type(".file", str(Path(document).resolve()))
    t.check("a chosen file is opened as a context",
            t.wait("return location.hash.length > 2", timeout=60))
    t.check("it is read to its end", t.wait_ready(), t.text("main"))
    progress = t.browser.js("return window.progressSeen")
    t.check("progress was shown, and only grew", progress and progress == sorted(progress),
            progress)
    t.check("the name of the file is shown", t.text("h1") == Path(document).name, t.text("h1"))
    t.check("it is in the list, marked as the one shown",
            t.wait("return document.querySelector('.item a[aria-current]')?.dataset.id"
                   " === decodeURIComponent(location.hash.slice(2))", timeout=10))
    t.check("the start of the text can be read", t.wait(
        "return document.querySelector('.passage').innerText.length > 20", timeout=10))
    return t.shown_id()


def question_is_answered(t):
    t.browser.js("window.answerLengths = []; new MutationObserver(() => {"
                 "const a = document.querySelector('.turn:last-child .answer');"
                 "a && window.answerLengths.push(a.innerText.length) })"
                 ".observe(document.querySelector('.turns'), {childList: true, subtree: true})")
    t.browser.type("#question", QUESTION)
    t.browser.press("Enter")
    t.check("a question is answered", t.wait_answered() and t.text(".answer"),
            t.text(".turn"))
    lengths = {n for n in t.browser.js("return window.answerLengths") if n}
    t.check("the answer is seen as it comes", len(lengths) > 1 or len(t.text(".answer")) < 8,
            lengths)
    t.check("usage is shown", "token" in t.text(".usage"), t.text(".usage"))
    t.check("evidence is lit on the map", t.wait("return document.querySelector('button.lamp')",
                                                 timeout=5))
    t.check("each passage of the list has its light",
            t.count("button.lamp") == t.count(".evidence li") > 0)
    t.check("the weightiest passage shines most", t.browser.js(
        "const b = [...document.querySelectorAll('button.lamp')].sort((x, y) =>"
        " x.dataset.index - y.dataset.index).map((l) => +l.style.getPropertyValue('--brightness'));"
        "return b[0] === 1 && b.every((x, i) => i === 0 || x <= b[i - 1])"))


def passage_is_read(t):
    index = t.browser.js("return document.querySelector('button.lamp').dataset.index")
    # Lamps may lie upon each other; the one that is looked at is hit where it can be.
    t.browser.js("document.querySelector('button.lamp').click()")
    t.check("a click on a span opens its text", t.wait(
        "return document.querySelector('.reader h2').innerText.startsWith(arguments[0])"
        " && document.querySelector('mark.chosen')", f"Passage {int(index) + 1} of", timeout=10))
    t.check("what is marked is the passage", t.wait(
        "const flat = (s) => s.replace(/\\s+/g, ' ').trim();"
        "const marked = flat([...document.querySelectorAll('mark.chosen')]"
        ".map((m) => m.textContent).join(''));"
        "const said = flat(document.querySelector(`.evidence [data-index='${arguments[0]}']"
        " .snippet`).textContent);"
        "return marked.length > 0 && (marked.startsWith(said) || said.startsWith(marked))",
        index, timeout=5))
    t.check("the reader has the focus", t.browser.js(
        "return document.activeElement.matches('.pages')"))
    t.check("surroundings are shown", t.browser.js(
        "return document.querySelector('.passage').textContent.length >"
        " document.querySelector('mark.chosen').textContent.length"))
    place_is_read(t)


def place_is_read(t):
    before = t.text(".reader-facts")
    t.browser.js("const s = document.querySelector('.sheet').getBoundingClientRect();"
                 "const at = {clientX: s.left + s.width / 3, clientY: s.bottom - 3, bubbles: true};"
                 "document.querySelector('.place').dispatchEvent(new MouseEvent('click', at))")
    t.check("a click between spans reads there", t.wait(
        "return document.querySelector('.reader h2').innerText === 'The text'"
        " && document.querySelector('.reader-facts').innerText !== arguments[0]", before,
        timeout=5))
    length = len(t.text(".passage"))
    t.browser.js("document.querySelector('.earlier').click()")
    t.check("earlier text can be added", t.wait(
        "return document.querySelector('.passage').innerText.length > arguments[0]", length,
        timeout=5))


def answer_is_stopped(t):
    t.browser.type("#question", LONG_QUESTION)
    t.browser.press("Enter")
    t.check("while it answers there is a stop button",
            t.wait("return document.querySelector('.send').ariaLabel === 'Stop'", timeout=5))
    t.wait("return document.querySelector('.turn:last-child .answer').innerText.length > 0")
    t.browser.press("Escape")
    t.check("Escape stops the answer", t.wait(
        "return document.querySelector('.send').ariaLabel === 'Ask'", timeout=5))
    t.check("both questions are kept in sight", t.count(".turn") == 2)
    t.browser.click(".turn:first-child .evidence li button")
    t.check("an earlier answer's evidence can be lit again", t.wait(
        "return document.querySelector('.turn:first-child.lit')"
        " && document.querySelector('.lamp.chosen')", timeout=5))


def view_survives_reload(t):
    address = t.browser.js("return location.hash")
    t.browser.reload()
    t.check("a reload shows the same context", t.wait_ready()
            and t.browser.js("return location.hash") == address)
    t.check("a reload keeps the questions", t.count(".turn") == 2, t.count(".turn"))


def context_is_pinned(t):
    t.browser.click(".actions .pin")
    t.check("it can be pinned", t.wait(
        "return document.querySelector('.pin').ariaPressed === 'true'", timeout=10))
    t.check("the server knows of it", t.server.call(
        "GET", f"/v1/contexts/{t.shown_id()}")[0]["pinned"])


def context_is_forked_and_deleted(t):
    parent = t.shown_id()
    t.browser.click(".actions .fork")
    t.check("a fork asks for its name", t.shows("#ask-dialog[open] input"))
    t.browser.click("#dialog-yes")
    t.check("the fork is opened", t.wait(
        "return location.hash.length > 2 && decodeURIComponent(location.hash.slice(2))"
        " !== arguments[0]", parent, timeout=20) and t.wait_ready())
    forked = t.shown_id()
    t.check("the server knows the fork", forked in t.server.ids())
    t.browser.click(".actions .delete")
    t.check("a deletion is asked about, with the way out in focus",
            t.shows("#ask-dialog[open]")
            and t.browser.js("return document.activeElement.id") == "dialog-no")
    t.browser.press("Escape")
    t.check("Escape deletes nothing", t.wait(
        "return !document.querySelector('#ask-dialog').open", timeout=5)
        and forked in t.server.ids())
    t.browser.click(".actions .delete")
    t.browser.click("#dialog-yes")
    t.check("a deleted context is left", t.wait("return location.hash === '#/'", timeout=20))
    t.check("the server has deleted it, and not its parent",
            forked not in t.server.ids() and parent in t.server.ids())
    t.check("the list has forgotten it", t.wait(
        "return ![...document.querySelectorAll('.item a')].some((a) =>"
        " a.dataset.id === arguments[0])", forked, timeout=5))


def drop_is_read(t):
    t.browser.js(DROP, ODD_NAME, DOCUMENT)
    t.check("a dropped file is read", t.wait("return location.hash.length > 2", timeout=60)
            and t.wait_ready())
    t.check("a name is shown as it is, never as markup", t.text("h1") == ODD_NAME, t.text("h1"))
    t.go("#/")
    t.shows(".drop")
    t.browser.js(DROP, "picture.bin", "\0\1\2\3")
    t.check("what is no text is refused, in words", t.shows(".notice[role=alert]"))


def errors_are_told(t):
    t.go("#/ctx_that_is_not_there")
    t.check("an unknown context is told of", t.shows("main .notice[role=alert]"))
    t.check("with what to do about it", t.text("main .notice-advice") != "")
    made, _ = t.server.call("POST", "/v1/contexts", {"text": DOCUMENT})
    t.go(f"#/{made['id']}")
    t.check("a reading that someone else began is followed", t.wait_ready())
    t.server.call("DELETE", f"/v1/contexts/{made['id']}")
    t.browser.type("#question", QUESTION)
    t.browser.press("Enter")
    t.check("an error while asking is told with its question",
            t.shows(".turn[data-state=failed] .notice[role=alert]"))


def network_may_fail(t, context):
    t.go(f"#/{context}")
    t.wait_ready()
    t.browser.online(False)
    t.browser.type("#question", QUESTION)
    t.browser.press("Enter")
    last = ".turn:last-child"
    t.check("a server that does not answer is told of",
            t.shows(f"{last}[data-state=failed] .notice[role=alert]"))
    t.browser.online(True)
    t.browser.click(f"{last} .notice .plain")
    t.check("and can be asked again", t.wait_answered()
            and t.wait(f"return document.querySelector('{last}[data-state=done]')", timeout=5))


def keyboard_is_enough(t, context):
    t.browser.open(t.base + "/#/")
    t.browser.reload()
    t.shows(".drop")
    t.browser.js(FOCUS_WATCH)
    t.check("Tab reaches the field for text", t.tab_to(".paste"))
    t.browser.press("Enter")
    t.browser.write("The cat of the mill is called Otto.\uE007It sleeps on the flour.")
    t.browser.press("Tab", "Enter")
    t.check("a text can be given with keys alone", t.wait(
        "return location.hash.length > 2", timeout=60) and t.wait_ready())
    t.check("the field for the question has the focus then", t.wait(
        "return document.activeElement.id === 'question'", timeout=5))
    t.browser.write("What is the cat called?")
    t.browser.press("Enter")
    t.check("a question can be asked with keys alone", t.wait_answered())
    keyboard_deletes(t)
    keyboard_reads(t, context)
    unseen = t.browser.js("return window.unseen")
    t.check("whatever has the focus shows it", unseen == [], unseen)


def keyboard_deletes(t):
    t.check("the delete button can be reached", t.tab_to(".actions .delete", "Shift+Tab"))
    t.browser.press("Enter")
    t.shows("#ask-dialog[open]")
    t.tab_to("#dialog-yes", limit=5)
    t.browser.press("Enter")
    t.check("a context can be deleted with keys alone",
            t.wait("return location.hash === '#/'", timeout=20))


def keyboard_reads(t, context):
    t.check("a context of the list can be reached",
            t.tab_to(f".item a[data-id='{context}']"))
    t.browser.press("Enter")
    t.check("and opened", t.wait_ready() and t.shown_id() == context)
    t.check("a span can be reached", t.shows("button.lamp") and t.tab_to("button.lamp"))
    t.browser.press("Enter")
    t.check("and read", t.wait("return document.activeElement.matches('.pages')", timeout=5))
    t.browser.press("Escape")
    t.check("Escape goes back to the span", t.browser.js(
        "return document.activeElement.matches('button.lamp')"))
    t.check("the map's place can be reached", t.tab_to(".place", "Shift+Tab"))
    t.browser.press("End")
    t.check("and moved with keys", t.wait(
        "return +document.querySelector('.place').ariaValueNow > 90", timeout=5))


def phone_fits(t, context):
    t.browser.size(360, 740, mobile=True)
    t.go("#/")
    t.shows(".drop")
    t.check("a new document fits a phone", not t.browser.js(SIDEWAYS), t.browser.js(SIDEWAYS))
    t.check("the list lies behind a button", not t.shows("#items", timeout=0.1))
    t.browser.click("#menu")
    t.check("which opens it", t.shows("#items"))
    t.check("the list fits a phone", not t.browser.js(SIDEWAYS), t.browser.js(SIDEWAYS))
    t.shot("phone-list")
    t.go(f"#/{context}")
    t.check("choosing closes it", t.wait_ready() and not t.shows("#items", timeout=0.1))
    t.shows(".evidence li button")
    t.check("a context fits a phone", not t.browser.js(SIDEWAYS), t.browser.js(SIDEWAYS))
    t.shot("phone")
    t.check("the text does not cover a phone unasked", not t.shows(".reader", timeout=0.1))
    t.browser.js("document.querySelector('.evidence li button').click()")
    t.check("a passage comes over the page", t.shows(".reader") and t.shows("mark.chosen"))
    t.check("the text fits a phone", not t.browser.js(SIDEWAYS), t.browser.js(SIDEWAYS))
    t.shot("phone-text")
    t.browser.click(".reader .close")
    t.check("and goes again", not t.shows(".reader", timeout=0.1))
    t.browser.size(1280, 800)


def schemes_are_legible(t, context):
    grounds = {}
    for scheme in ("light", "dark"):
        t.browser.scheme(scheme)
        t.go("#/")
        t.shows(".drop")
        pale = t.browser.js(CONTRAST)
        t.check(f"{scheme}: all words of a new document stand out", pale == [], pale)
        t.shot(f"{scheme}-new")
        t.go(f"#/{context}")
        t.wait_ready()
        t.shows("mark.chosen")
        pale = t.browser.js(CONTRAST)
        t.check(f"{scheme}: all words of a context stand out", pale == [], pale)
        grounds[scheme] = t.browser.js("return getComputedStyle(document.body).backgroundColor")
        image = t.shot(scheme)
        if scheme == "light" and t.arguments.screenshot:
            Path(t.arguments.screenshot).write_bytes(image)
    t.check("dark and light differ", grounds["dark"] != grounds["light"], grounds)
    t.check("who wants no motion gets none", t.browser.js(
        "return getComputedStyle(document.querySelector('.lamp')).animationName") == "none")
    t.browser.scheme("light")


def nothing_leaks(t):
    outside = t.browser.js(OUTSIDE)
    t.check("nothing was asked of any other host", outside == [], outside)
    # The browser itself notes each reply of 400 and above; those were asked for here.
    complaints = [line for line in t.browser.console() if "Failed to load resource" not in line
                  and "favicon" not in line]
    t.check("the console has nothing to complain of", complaints == [], complaints)
