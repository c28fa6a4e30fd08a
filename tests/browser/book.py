#!/usr/bin/env python3
"""Looks at the built book: every link and anchor leads somewhere, nothing is asked of another machine; and in a real browser, light and
dark, wide and narrow, nothing overflows.

usage: book.py BOOK [SHOTS]

BOOK is the folder that mdBook wrote. With SHOTS, a folder for screenshots, headless Chromium opens every page of it. Exit code 1 where
something is wrong, 2 where SHOTS is asked for and there is no Chromium. Python's standard library alone.
"""

import base64
import html.parser
import json
import os
import shutil
import sys
import tempfile
import urllib.parse

import reports

# Pages of which screenshots are kept.
SHOWN = ("introduction", "tutorial", "how-to/training", "reference/train", "reference/files", "explanation/how-fast", "beside")

CHECK = """(() => {
  const wide = document.documentElement.clientWidth, wrong = [];
  if (document.documentElement.scrollWidth > wide + 1)
    wrong.push("the page is " + document.documentElement.scrollWidth + " wide in a window of " + wide);
  const inside = e => e.closest("pre, .table-wrapper");
  for (const e of document.querySelectorAll("main *")) {
    const box = e.getBoundingClientRect();
    if (box.width && !inside(e) && (box.right > wide + 1 || box.left < -1))
      wrong.push(e.tagName + " reaches from " + box.left + " to " + box.right + ": " + e.textContent.slice(0, 60));
  }
  for (const e of document.querySelectorAll("main img")) {
    if (!e.complete || !e.naturalWidth) wrong.push("an image is not loaded: " + e.alt);
    if (!e.alt) wrong.push("an image has no alt text");
  }
  const colour = getComputedStyle(document.documentElement).backgroundColor;
  return JSON.stringify({ wrong, colour, height: document.documentElement.scrollHeight });
})()"""


class Page(html.parser.HTMLParser):
    """The links, the anchors and what is loaded of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.loaded = [], set(), []
        with open(path, encoding="utf-8") as file:
            self.feed(file.read())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if "id" in found:
            self.anchors.add(found["id"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag != "a":
            self.loaded += [found[name] for name in ("src", "href") if found.get(name)]


def links(book):
    """What is wrong with the links of a book."""
    pages = {}
    for folder, _, names in os.walk(book):
        for name in names:
            if name.endswith(".html"):
                path = os.path.join(folder, name)
                pages[os.path.realpath(path)] = Page(path)
    wrong, n = [], 0
    for path, page in pages.items():
        # Both hold the other pages' content, or are shown at any address.
        if os.path.basename(path) in ("print.html", "404.html", "toc.html"):
            continue
        shown = os.path.relpath(path, book)
        for address in page.loaded:
            if urllib.parse.urlparse(address).scheme not in ("", "data"):
                wrong.append(f"{shown} loads {address}")
        for address in page.links + page.loaded:
            parts = urllib.parse.urlparse(address)
            if parts.scheme in ("https", "data"):
                continue
            n += 1
            target = os.path.realpath(os.path.join(os.path.dirname(path), urllib.parse.unquote(parts.path))) if parts.path else path
            if parts.scheme or not os.path.exists(target):
                wrong.append(f"{shown}: {address} leads nowhere")
            elif parts.fragment and target in pages and urllib.parse.unquote(parts.fragment) not in pages[target].anchors:
                wrong.append(f"{shown}: {address}: there is no such anchor")
    print(f"{len(pages)} pages, {n} links, {len(wrong)} wrong")
    return wrong, sorted(pages)


def look(tab, path, shown, width, scheme, shots):
    tab.events.clear()
    tab.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    tab.ask("Emulation.setEmulatedMedia", media="screen", features=[{"name": "prefers-color-scheme", "value": scheme}])
    address = "file://" + urllib.parse.quote(path)
    tab.ask("Page.navigate", url=address)
    tab.wait("Page.loadEventFired")
    found = json.loads(tab.ask("Runtime.evaluate", expression=CHECK)["result"]["value"])
    wrong = list(found["wrong"])
    for event in tab.events:
        if event.get("method") == "Network.requestWillBeSent":
            asked = event["params"]["request"]["url"]
            if not asked.startswith(("file://", "data:")):
                wrong.append(f"a request: {asked}")
    light = sum(int(part) for part in found["colour"].strip("rgba()").split(",")[:3]) > 380
    if light != (scheme == "light"):
        wrong.append(f"{scheme}: the page is {found['colour']}")
    if shown in SHOWN:
        clip = {"x": 0, "y": 0, "width": width, "height": min(found["height"], 3000), "scale": 1}
        shot = tab.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        with open(os.path.join(shots, f"{shown.replace('/', '-')}-{width}-{scheme}.png"), "wb") as file:
            file.write(base64.b64decode(shot["data"]))
    return [f"{shown}, {width} pixels, {scheme}: {what}" for what in wrong]


def main():
    book = os.path.realpath(sys.argv[1])
    wrong, pages = links(book)
    if len(sys.argv) > 2:
        shots = os.path.abspath(sys.argv[2])
        reports.chromium()
        os.makedirs(shots, exist_ok=True)
        profile = tempfile.mkdtemp()
        process, tab = reports.open_browser(profile)
        try:
            for domain in ("Page", "Network", "Runtime", "Log"):
                tab.ask(f"{domain}.enable")
            n = 0
            for path in pages:
                shown = os.path.relpath(path, book).removesuffix(".html")
                if shown in ("print", "404", "toc", "index"):
                    continue
                for width in (1280, 400):
                    for scheme in ("light", "dark"):
                        wrong += look(tab, path, shown, width, scheme, shots)
                        n += 1
            print(f"{n} looks in a browser, {len(wrong)} wrong")
        finally:
            process.terminate()
            process.wait(20)
            shutil.rmtree(profile, ignore_errors=True)
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
