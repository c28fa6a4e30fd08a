#!/usr/bin/env python3
"""Times DVC and Convoy on six stages over N small images, in turns.

  bench.py --dvc BIN --convoy BIN --work DIR [--n 10000] [--pairs 7] [--only cold,no-op] [--lock FILE] [--out FILE.json]

Rows: cold (no cache, no outputs), no-op, one image edited, a key of the last stage changed, restore after `out/` was
deleted. In each pair both tools do the same, one after the other, each first in every other pair; a row has the medians,
the least and the ratio of the medians. DVC's stages copy (`stage.sh`), so that its time is the runner's own; Convoy's
compute (`toy.toml`), and that is in its time. The page cache is warm for both. DIR is wiped; stdlib only.
"""
import argparse
import fcntl
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from faults import Convoy, Dvc


class Bench:
    def __init__(self, a):
        self.a = a
        self.tools = [Dvc("DVC", a.dvc, a.work, a.n), Convoy("Convoy", a.convoy, a.work, a.n)]
        self.words = {
            "DVC": {"run": ("repro", "-q"), "restore": ("checkout", "-q")},
            "Convoy": {"run": ("run", "-q", "toy.toml"), "restore": ("run", "-q", "toy.toml")},
        }
        self.rows = {}

    def once(self, tool, verb):
        lock = open(self.a.lock, "a") if self.a.lock else None
        if lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # held for one timed process only
        start = time.perf_counter()
        done = subprocess.run([tool.binary, *self.words[tool.name][verb]], cwd=tool.dir, env=tool.env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        seconds = time.perf_counter() - start
        if lock:
            lock.close()
        if done.returncode:
            sys.exit(f"{tool.name} {verb} ended with {done.returncode}:\n{done.stdout[-3000:]}")
        return seconds

    def row(self, name, verb, before, pairs=None):
        if self.a.only and name not in self.a.only.split(","):
            return
        times = {tool.name: [] for tool in self.tools}
        for i in range(pairs or self.a.pairs):
            for tool in self.tools if i % 2 == 0 else reversed(self.tools):
                before(tool, i)
                time.sleep(0.05)
                times[tool.name].append(self.once(tool, verb))
        dvc, convoy = (statistics.median(times[tool.name]) for tool in self.tools)
        self.rows[name] = {"times": times, "ratio": dvc / convoy, "load1": os.getloadavg()[0]}
        least = [min(times[tool.name]) for tool in self.tools]
        print(f"| {name} | {dvc:.3f} s (least {least[0]:.3f}) | {convoy:.4f} s (least {least[1]:.4f}) | {dvc / convoy:.1f} "
              f"| {len(times['DVC'])} |", flush=True)

    def run(self):
        for tool in self.tools:
            tool.fresh()
        versions = [tool.call("--version")[1].split()[-1] for tool in self.tools]
        print(f"{self.a.n} images, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}\n")
        print(f"| | DVC {versions[0]}, median | Convoy {versions[1]}, median | DVC / Convoy | pairs |\n|---|---|---|---|---|")

        def forget(tool, _):
            for made in ("out", ".dvc/cache", ".dvc/tmp", "dvc.lock", ".convoy", "toy.lock"):
                path = tool.dir / made
                subprocess.run(["rm", "-rf", path], check=True)
            subprocess.run(["rm", "-rf", f"{tool.dir}-site"], check=True)

        def edit(tool, i):
            with open(tool.raw(13), "r+b") as file:
                file.seek(100 + i)
                byte = file.read(1)
                file.seek(100 + i)
                file.write(bytes([byte[0] ^ 255]))

        def last_key(tool, i):
            if tool.name == "DVC":
                tool.sub("params.yaml", r"threshold: [\d.]+", f"threshold: 0.{60 + i}")
            else:
                tool.sub("toy.toml", r"top_k = \d+", f"top_k = {3 + i}")

        self.row("cold", "run", forget, min(3, self.a.pairs))
        for tool in self.tools:
            # Stamps settle, and what is remembered of files is written.
            for _ in range(2):
                self.once(tool, "run")
                time.sleep(1.0)
        self.row("no-op", "run", lambda tool, i: None)
        self.row("one image edited", "run", edit)
        self.row("key of the last stage", "run", last_key, min(7, self.a.pairs))
        self.row("restore of out/", "restore", lambda tool, i: shutil.rmtree(tool.dir / "out"))
        if self.a.out:
            whole = {"n": self.a.n, "versions": versions, "cpus": os.cpu_count(), "python": platform.python_version()}
            Path(self.a.out).write_text(json.dumps({**whole, "rows": self.rows}, indent=1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dvc", required=True)
    parser.add_argument("--convoy", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only")
    parser.add_argument("--lock")
    parser.add_argument("--out")
    Bench(parser.parse_args()).run()


if __name__ == "__main__":
    main()
