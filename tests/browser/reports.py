#!/usr/bin/env python3
"""Opens reports in a real browser: no request, nothing that overflows, every image loads; light and dark, wide and narrow.

usage: reports.py CONVOY FOLDER [--photos TAR]

Runs three pipelines (digits in short, photos from a tar, a search) with the program CONVOY in FOLDER, opens each report.html in
headless Chromium through its DevTools protocol, with Python's standard library alone, and leaves screenshots in FOLDER/shots.
Exit code 1 where something is wrong, 2 where there is no Chromium.
"""

import base64
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

SEARCH = """schema = 1
name = "search"
[stages.ingest]
source = "builtin:digits"
limit = 400
[stages.split]
folds = 2
[stages.preprocess]
steps = ["center", "scale"]
[stages.net]
kind = "train"
architecture = "INPUT - CONV({filters}, 5) - RELU - POOL - FC"
epochs = 4
augment = [{ shift = 0.1 }]
[stages.search]
tune = "net"
keep = 2
rounds = [{ trials = 6, epochs = 1, keep = 3 }, { trials = 3, epochs = 2, keep = 2 }, {}]
[stages.search.space]
stages.net.learning_rate = { log-uniform = [1e-4, 1e-1] }
stages.net.vars.filters = { choice = [4, 8] }
stages.net.l2 = { log-uniform = [1e-6, 1e-2] }
stages.net.last_layer_gain = { uniform = [0.05, 1.0] }
[stages.ensemble]
members = ["search"]
[stages.evaluate]
"""

DIGITS = """schema = 1
name = "digits"
[stages.ingest]
source = "builtin:digits"
limit = 900
[stages.split]
folds = 2
[stages.preprocess]
steps = ["center", "scale"]
[stages.pca]
kind = "reduce"
method = { pca = { components = 20, whiten = true } }
[stages.linear]
kind = "train"
architecture = "INPUT - FC"
epochs = 6
[stages.cnn]
kind = "train"
input = "preprocess"
architecture = "INPUT - CONV(8, 5) - RELU - POOL - FC"
epochs = 8
schedule = "cosine"
[stages.ensemble]
members = ["cnn", "linear"]
[stages.evaluate]
bootstrap = 200
gates = { accuracy = ">= 0.5", macro-f1 = ">= 0.999" }
"""

PHOTOS = """schema = 1
name = "photos"
[stages.ingest]
source = "%s"
resize = { width = 32, height = 32 }
limit = 1200
[stages.split]
folds = 2
[stages.preprocess]
steps = ["center", "scale"]
[stages.cnn]
kind = "train"
architecture = "INPUT - [CONV(8) - RELU - POOL]*2 - FC"
epochs = 3
augment = ["flip", { rotate = 15 }, "brightness"]
[stages.ensemble]
[stages.evaluate]
"""

CHECK = """(() => {
  const wide = document.documentElement.clientWidth, wrong = [];
  if (document.documentElement.scrollWidth > wide + 1)
    wrong.push("the page is " + document.documentElement.scrollWidth + " wide in a window of " + wide);
  const inside = e => e.closest("pre, .table, .drawn");
  for (const e of document.querySelectorAll("main *")) {
    const box = e.getBoundingClientRect();
    if (box.width && !inside(e) && (box.right > wide + 1 || box.left < -1))
      wrong.push(e.tagName + "." + e.getAttribute("class") + " reaches from " + box.left + " to " + box.right);
  }
  const images = [...document.querySelectorAll("img")];
  for (const e of images) {
    if (!e.complete || !e.naturalWidth) wrong.push("an image is not loaded: " + e.alt);
    if (!e.alt) wrong.push("an image has no alt text");
  }
  const drawn = [...document.querySelectorAll("svg.figure")];
  for (const e of drawn) {
    if (!e.getAttribute("aria-label")) wrong.push("a picture has no label");
    const box = e.viewBox.baseVal;
    for (const text of e.querySelectorAll("text")) {
      const at = text.getBBox(), from = text.getCTM(), to = e.getCTM();
      const corner = p => { const q = p.matrixTransform(from).matrixTransform(to.inverse()); return [q.x, q.y]; };
      const [x, y] = corner(new DOMPoint(at.x, at.y)), [u, v] = corner(new DOMPoint(at.x + at.width, at.y + at.height));
      const [l, r, t, b] = [Math.min(x, u), Math.max(x, u), Math.min(y, v), Math.max(y, v)];
      if (l < -2 || r > box.width + 2 || t < -2 || b > box.height + 2)
        wrong.push("a text leaves its picture: " + text.textContent + " in " + e.getAttribute("aria-label"));
    }
  }
  for (const link of document.querySelectorAll("nav a"))
    if (!document.querySelector(link.getAttribute("href"))) wrong.push("a link leads nowhere: " + link.textContent);
  const colour = getComputedStyle(document.body).backgroundColor;
  return JSON.stringify({ wrong, images: images.length, drawn: drawn.length, colour,
    height: document.documentElement.scrollHeight });
})()"""


class Tab:
    """A tab of a browser, over a WebSocket."""

    def __init__(self, address):
        place = urllib.parse.urlparse(address)
        self.socket = socket.create_connection((place.hostname, place.port), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.rest = b""
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(4096)
        head, self.rest = head.split(b"\r\n\r\n", 1)
        guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accepted = base64.b64encode(hashlib.sha1((key + guid).encode()).digest())
        assert accepted in head, head
        self.number = 0
        self.events = []

    def take(self, n):
        while len(self.rest) < n:
            more = self.socket.recv(1 << 20)
            if not more:
                raise EOFError("the browser hung up")
            self.rest += more
        taken, self.rest = self.rest[:n], self.rest[n:]
        return taken

    def receive(self):
        text = b""
        while True:
            first, second = self.take(2)
            n = second & 127
            if n == 126:
                (n,) = struct.unpack(">H", self.take(2))
            elif n == 127:
                (n,) = struct.unpack(">Q", self.take(8))
            text += self.take(n)
            if first & 128:
                return json.loads(text)

    def send(self, text):
        data = text.encode()
        mask = os.urandom(4)
        n = len(data)
        head = bytes([129, 128 | (n if n < 126 else 126 if n < 65536 else 127)])
        head += b"" if n < 126 else struct.pack(">H", n) if n < 65536 else struct.pack(">Q", n)
        self.socket.sendall(head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))

    def ask(self, method, **parameters):
        self.number += 1
        self.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            said = self.receive()
            if said.get("id") == self.number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']}")
                return said["result"]
            self.events.append(said)

    def wait(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.receive())


def chromium():
    for name in ["chromium", "chromium-browser", "google-chrome", "chrome"]:
        path = shutil.which(name)
        if path:
            return path
    sys.exit(2)


def open_browser(folder):
    process = subprocess.Popen(
        [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--hide-scrollbars", "--disable-background-networking", "--remote-debugging-port=0", "--remote-allow-origins=*",
         f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    port_file = os.path.join(folder, "DevToolsActivePort")
    for _ in range(300):
        if os.path.exists(port_file) and os.path.getsize(port_file):
            break
        time.sleep(0.1)
    port = open(port_file).read().split()[0]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
    tab = json.load(opener.open(request, timeout=30))
    return process, Tab(tab["webSocketDebuggerUrl"])


def look(tab, name, path, width, scheme, shots):
    tab.events.clear()
    tab.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    tab.ask("Emulation.setEmulatedMedia", media="screen", features=[{"name": "prefers-color-scheme", "value": scheme}])
    address = "file://" + urllib.parse.quote(path)
    tab.ask("Page.navigate", url=address)
    tab.wait("Page.loadEventFired")
    # What is folded away is looked at, too.
    tab.ask("Runtime.evaluate", expression="document.querySelectorAll('details').forEach(e => e.open = true)")
    found = json.loads(tab.ask("Runtime.evaluate", expression=CHECK)["result"]["value"])
    wrong = list(found["wrong"])
    for event in tab.events:
        if event.get("method") == "Network.requestWillBeSent":
            asked = event["params"]["request"]["url"]
            if asked != address and not asked.startswith("data:"):
                wrong.append(f"a request: {asked}")
        if event.get("method") in ("Network.loadingFailed", "Runtime.exceptionThrown", "Log.entryAdded"):
            wrong.append(json.dumps(event["params"])[:300])
    light = sum(int(part) for part in found["colour"].strip("rgb()").split(",")) > 380
    if light != (scheme == "light"):
        wrong.append(f"{scheme}: the page is {found['colour']}")
    clip = {"x": 0, "y": 0, "width": width, "height": min(found["height"], 16000), "scale": 1}
    shot = tab.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    with open(os.path.join(shots, f"{name}-{width}-{scheme}.png"), "wb") as file:
        file.write(base64.b64decode(shot["data"]))
    print(f"{name}, {width} pixels, {scheme}: {found['images']} images, {found['drawn']} pictures, {len(wrong)} wrong")
    return [f"{name}, {width} pixels, {scheme}: {what}" for what in wrong]


def main():
    convoy, folder = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    photos = sys.argv[sys.argv.index("--photos") + 1] if "--photos" in sys.argv else None
    chromium()
    shots = os.path.join(folder, "shots")
    os.makedirs(shots, exist_ok=True)
    os.makedirs(os.path.join(folder, ".git"), exist_ok=True)
    manifests = {"digits": DIGITS, "search": SEARCH}
    if photos:
        manifests["photos"] = PHOTOS % os.path.abspath(photos)
    else:
        print("!! no photos: their report is SKIPPED")
    for name, manifest in manifests.items():
        with open(os.path.join(folder, f"{name}.toml"), "w") as file:
            file.write(manifest)
        ran = subprocess.run([convoy, "run", "-q", f"{name}.toml"], cwd=folder, stdout=subprocess.DEVNULL)
        # 6: a gate that is there to fail.
        if ran.returncode not in (0, 6):
            sys.exit(f"{name}: convoy run ended with {ran.returncode}")
    wrong = []
    profile = tempfile.mkdtemp()
    process, tab = open_browser(profile)
    try:
        for domain in ("Page", "Network", "Runtime", "Log"):
            tab.ask(f"{domain}.enable")
        for name in manifests:
            path = os.path.join(folder, "out", name, "report.html")
            size = os.path.getsize(path)
            print(f"{name}: {size:,} bytes")
            if size > 5_000_000:
                wrong.append(f"{name}: {size} bytes")
            for width in (1280, 400):
                for scheme in ("light", "dark"):
                    wrong += look(tab, name, path, width, scheme, shots)
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(profile, ignore_errors=True)
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
