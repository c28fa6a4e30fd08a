#!/usr/bin/env python3
"""What DVC, Snakemake and Convoy do when something goes wrong, side by side.

  faults.py --dvc BIN --snakemake BIN --convoy BIN --work DIR [--n 200] [--only NAME,NAME] > table.md

Six stages over N small images (`dvc.yaml`, `Snakefile`, `toy.toml`); nothing is timed. Prints a table in Markdown of
what was seen; DIR is wiped. Stdlib only.
"""
import argparse
import datetime
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Tool:
    def __init__(self, name, binary, work, n):
        self.name, self.binary, self.n = name, os.path.abspath(binary), n
        self.dir = Path(work).resolve() / name.lower()
        site = f"{self.dir}-site"
        self.env = dict(os.environ, DVC_NO_ANALYTICS="1", DVC_SITE_CACHE_DIR=site, SHELL="/bin/sh", NO_COLOR="1")
        self.env["PATH"] = os.path.dirname(self.binary) + os.pathsep + os.environ["PATH"]

    def call(self, *arguments, **options):
        done = subprocess.run([self.binary, *arguments], cwd=self.dir, env=self.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, **options)
        return done.returncode, done.stdout

    def start(self, *arguments):
        return subprocess.Popen([self.binary, *arguments], cwd=self.dir, env=self.env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)

    def fresh(self):
        for folder in (self.dir, Path(f"{self.dir}-site")):
            if folder.exists():
                subprocess.run(["chmod", "-R", "u+w", folder], check=False)
                shutil.rmtree(folder)
        self.dir.mkdir(parents=True)
        for file in ("stage.sh", "params.yaml", "dvc.yaml", "Snakefile", "toy.toml"):
            shutil.copy(HERE / file, self.dir)
        subprocess.run([sys.executable, HERE / "gen_data.py", "data/raw", str(self.n)], cwd=self.dir, check=True,
                       stdout=subprocess.DEVNULL)
        self.init()

    def init(self):
        pass

    def sub(self, file, pattern, text):
        path = self.dir / file
        new, n = re.subn(pattern, text, path.read_text())
        assert n >= 1, (file, pattern)
        path.write_text(new)

    def raw(self, i=0):
        return self.dir / f"data/raw/{i % 10:02d}/{i:06d}.ppm"

    def outputs(self):
        """A digest of every output that is not about time."""
        digest = hashlib.md5()
        for path in sorted((self.dir / "out").rglob("*")):
            if path.is_file() and path.name not in ("timings.csv", "run.json"):
                digest.update(str(path.relative_to(self.dir)).encode() + path.read_bytes())
        return digest.hexdigest()


class Dvc(Tool):
    run_words = ("repro",)

    def init(self):
        self.call("init", "--no-scm", "-q")
        self.call("config", "core.analytics", "false")
        self.call("config", "core.check_update", "false")

    def status(self):
        return self.call("status")

    def clean(self):
        return "up to date" in self.status()[1]

    def lasting(self):
        """An output, and where the tool keeps it."""
        out = self.dir / "out/reduced.bin"
        md5 = hashlib.md5(out.read_bytes()).hexdigest()
        return out, self.dir / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}"

    def restore(self):
        return self.call("checkout", "-q")


class Snakemake(Tool):
    run_words = ("-c1", "all")

    def status(self):
        return self.call("-c1", "-n", "all")

    def clean(self):
        return "Nothing to be done" in self.status()[1]

    def lasting(self):
        return self.dir / "out/reduced.bin", None

    def restore(self):
        return self.call(*self.run_words)


class Convoy(Tool):
    run_words = ("run", "-q", "toy.toml")

    def init(self):
        (self.dir / ".git").mkdir()

    def status(self):
        return self.call("status", "--exit-code", "toy.toml")

    def clean(self):
        return self.status()[0] == 0

    def lasting(self):
        out = self.dir / "out/toy/predictions.csv"
        content = out.read_bytes()
        same = [p for p in (self.dir / ".convoy").rglob("*")
                if p.is_file() and p.stat().st_size == len(content) and p.read_bytes() == content]
        return out, same[0]

    def restore(self):
        return self.call(*self.run_words)


def yes(flag):
    return "yes" if flag else "**no**"


def poke(path, at=100):
    """Another byte in a file whose size, mode and time of change stay as they are."""
    stat = path.stat()
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(min(at, stat.st_size - 1))
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0x55]))
    os.chmod(path, stat.st_mode)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def ran(tool):
    code, said = tool.call(*tool.run_words)
    assert code == 0, (tool.name, said)
    return said


# Each drill says in a phrase what was seen.

def killed(tool):
    tool.fresh()
    slow_down(tool)
    ran(tool)
    whole = tool.outputs()
    for made in ("out", ".dvc/cache", ".dvc/tmp", "dvc.lock", ".snakemake", ".convoy"):
        path = tool.dir / made
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    process = tool.start(*tool.run_words)
    time.sleep(4.0)
    alive = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert alive, f"{tool.name} had ended before it was killed"
    half = (tool.dir / "out/pre.bin").exists() and (tool.dir / "out/pre.bin").stat().st_size == 1000
    code, said = tool.call(*tool.run_words)
    seen = "a half-written output lies in its place; " if half else ""
    if code:
        seen += f"the next run refuses (exit {code}: {complaint(said)})"
        if tool.name == "Snakemake":
            before = ""
            code, said = tool.call(*tool.run_words, "--rerun-incomplete")
            if code:
                seen += f", with `--rerun-incomplete` too (exit {code}: {complaint(said)})"
                tool.call("--unlock")
                code, _ = tool.call(*tool.run_words, "--rerun-incomplete")
                before = "after `--unlock`, "
            seen += f"; {before}with `--rerun-incomplete` exit {code}"
    else:
        seen += "the next run goes on, exit 0"
    return f"{seen}; then bytes of an undisturbed run: {yes(tool.outputs() == whole)}"


def complaint(said):
    lines = [line.strip() for line in said.splitlines() if re.search("ERROR|Error|Exception|error:|cannot|locked", line)]
    return f"`{lines[0][:70]}`" if lines else "it does not say why"


def slow_down(tool):
    if tool.name == "Convoy":
        tool.sub("toy.toml", r'architecture  = .*', 'architecture  = "INPUT - FC(400) - RELU - FC(400) - RELU - FC"')
        tool.sub("toy.toml", r"epochs        = 1", "epochs        = 400")
        # A checkpoint is kept every few seconds; the bytes do not depend on it.
    else:
        tool.sub("stage.sh", r"preprocess\) ", "preprocess) mkdir -p out; head -c 1000 data/raw/00/000000.ppm > out/pre.bin; sleep 6; ")


def rotten(tool):
    tool.fresh()
    ran(tool)
    out, kept = tool.lasting()
    before = out.read_bytes()
    if kept is None:
        poke(out)
        code, _ = tool.call(*tool.run_words)
        seen = f"keeps no copy; a damaged output is taken for good (exit {code})"
        tool.sub("params.yaml", r"lr: 0.001", "lr: 0.01")
        tool.call(*tool.run_words)
        fold = (tool.dir / "out/models/fold0.bin").read_bytes()
        return f"{seen}, and built on after a key below it changed: {'**yes**' if fold == out.read_bytes()[:200000] else 'no'}"
    poke(kept)
    shutil.rmtree(tool.dir / "out")
    code, said = tool.restore()
    same = out.exists() and out.read_bytes() == before
    told = [line for line in said.splitlines() if "damaged" in line or "corrupt" in line.lower()]
    return (f"restore ends with exit {code}; the right bytes are back: {yes(same)}; afterwards status says "
            f"{'all is well' if tool.clean() else 'something is stale'}" + ("; it is told" if told else ""))


def hidden(tool):
    tool.fresh()
    ran(tool)
    time.sleep(0.5)
    clean = tool.clean()
    poke(tool.raw())
    return f"clean before: {yes(clean)}; the edit is seen: {yes(not tool.clean())}"


def edited(tool):
    tool.fresh()
    ran(tool)
    time.sleep(1.1)
    with open(tool.raw(), "r+b") as file:
        file.seek(100)
        file.write(b"Z")
    return f"the edit is seen: {yes(not tool.clean())}"


def added(tool):
    tool.fresh()
    ran(tool)
    time.sleep(1.1)
    shutil.copy(tool.raw(0), tool.raw(0).with_name("another.ppm"))
    poke(tool.raw(0).with_name("another.ppm"), 300)
    return f"the new image is seen: {yes(not tool.clean())}"


def during(tool):
    """Edits of an input while a run reads it; afterwards `status` must not call results clean that are not of it."""
    wrong = rounds = 0
    for i in range(8):
        tool.fresh()
        if tool.name != "Convoy":
            # The stage has copied the file when it is edited.
            tool.sub("stage.sh", r"(ingest\) .*?) ;;", r"\1; sleep 2 ;;")
        process = tool.start(*tool.run_words)
        time.sleep(1.6 if tool.name == "DVC" else 2.6 if tool.name == "Snakemake" else 0.004 * (i + 1))
        path = tool.raw()
        content = bytearray(path.read_bytes())
        content[150] ^= 0x55
        path.write_bytes(content)
        alive = process.poll() is None
        process.communicate()
        if not alive or process.returncode:
            continue
        rounds += 1
        if not tool.clean():
            continue
        if tool.name == "Convoy":
            said = tool.outputs()
            shutil.rmtree(tool.dir / ".convoy")
            ran(tool)
            wrong += said != tool.outputs()
        else:
            wrong += (tool.dir / "out/images/00/000000.ppm").read_bytes() != bytes(content)
        if tool.name != "Convoy" and rounds == 2:
            break
    return f"results of the old bytes are called clean in {f'**{wrong}**' if wrong else 0} of {rounds} tries"


def twice(tool):
    tool.fresh()
    slow_down(tool)
    a = tool.start(*tool.run_words)
    time.sleep(2.0)
    b = tool.start(*tool.run_words)
    (said_a, _), (said_b, _) = a.communicate(), b.communicate()
    seen = f"exit codes {a.returncode} and {b.returncode}"
    for code, said in ((a.returncode, said_a), (b.returncode, said_b)):
        if code:
            seen += f" ({complaint(said)})"
            break
    return f"{seen}; the second waits or finds its results made: {yes(a.returncode == 0 and b.returncode == 0)}"


def collected(tool):
    tool.fresh()
    ran(tool)
    before = tool.outputs()
    file, key, new = ("toy.toml", r"learning_rate = 0.001", "learning_rate = 0.5") if tool.name == "Convoy" else (
        "params.yaml", r"lr: 0.001", "lr: 0.5")
    tool.sub(file, key, new)
    if tool.name != "Convoy":
        # Their stages do not read the key: it makes other results by the script.
        tool.sub("stage.sh", r"head -c 200000", "head -c 100000")
    ran(tool)
    assert tool.outputs() != before
    if tool.name == "DVC":
        tool.call("gc", "-w", "-f")
    elif tool.name == "Convoy":
        tool.call("cache", "gc", "--keep", "0")
    tool.sub(file, new.replace("0.5", "0\\.5"), new.replace("0.5", "0.001"))
    if tool.name != "Convoy":
        tool.sub("stage.sh", r"head -c 100000", "head -c 200000")
    code, said = tool.call(*tool.run_words)
    return f"exit {code}; the first results again: {yes(tool.outputs() == before)}"


def code(tool):
    if tool.name == "Convoy":
        return "stages are the program's own; the revision of each piece of code is in the key of what it computes"
    tool.fresh()
    ran(tool)
    time.sleep(1.1)
    tool.sub("stage.sh", r"head -c 4000000", "head -c 3000000")
    return f"the script is no declared input; its edit is seen: {yes(not tool.clean())}"


def formatted(tool):
    tool.fresh()
    ran(tool)
    time.sleep(1.1)
    if tool.name == "Convoy":
        tool.sub("toy.toml", r"test  = 0.2", "# a comment\ntest = 0.20")
    else:
        tool.sub("params.yaml", r"clip: 3.0", "clip: 3.00 # a comment")
    same = tool.clean()
    if tool.name == "Convoy":
        tool.sub("toy.toml", r"epochs        = 1", "epochs = 1\nbatch_size = 64")
        return f"stale after a comment and `0.20` for `0.2`: {'no' if same else '**yes**'}; after a default written out: {'no' if tool.clean() else '**yes**'}"
    tool.sub("params.yaml", r"clip: 3.00", "clip: 3")
    return f"stale after a comment and `3.00` for `3.0`: {'no' if same else '**yes**'}; after `3` for `3.0`: {'no' if tool.clean() else '**yes**'}"


def by_hand(tool):
    tool.fresh()
    ran(tool)
    out, _ = tool.lasting()
    before = out.read_bytes()
    time.sleep(1.1)
    with open(out, "ab") as file:
        file.write(b"x")
    seen = not tool.clean()
    code, _ = tool.call(*tool.run_words)
    after = out.read_bytes()
    what = "made anew" if after == before else "left as it was edited"
    return f"status sees it: {'yes' if seen else 'no'}; the next run, exit {code}: {what}"


def codes(tool):
    tool.fresh()
    ran(tool)
    clean = tool.status()[0]
    if tool.name == "Convoy":
        tool.sub("toy.toml", r"top_k = 2", "top_k = 3")
    else:
        tool.sub("params.yaml", r"threshold: 0.5", "threshold: 0.9")
    quiet = f" (with `-q` {tool.call('status', '-q')[0]})" if tool.name == "DVC" else ""
    return f"clean {clean}, stale {tool.status()[0]}{quiet}"


DRILLS = [
    ("kill", "`kill -9` in the middle of a stage, then run again", killed),
    ("rot", "a byte of a stored result turned (size, mode, time kept); outputs deleted and restored", rotten),
    ("edit", "an input image edited in place", edited),
    ("add", "an image added to the folder", added),
    ("hidden", "an image edited in place, its size and time of change put back", hidden),
    ("during", "an input edited while a run reads it", during),
    ("twice", "two runs of one project at once", twice),
    ("gc", "a key changed, `gc`, the key changed back", collected),
    ("code", "the code of a stage edited", code),
    ("format", "a comment, a number written otherwise", formatted),
    ("hand", "an output edited by hand", by_hand),
    ("codes", "exit codes of status", codes),
]


def main():
    parser = argparse.ArgumentParser()
    for tool in ("dvc", "snakemake", "convoy"):
        parser.add_argument(f"--{tool}", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--only")
    a = parser.parse_args()
    tools = [Dvc("DVC", a.dvc, a.work, a.n), Snakemake("Snakemake", a.snakemake, a.work, a.n),
             Convoy("Convoy", a.convoy, a.work, a.n)]
    for tool in tools:
        tool.dir.mkdir(parents=True, exist_ok=True)
    versions = [tool.call("--version")[1].split()[-1] for tool in tools]
    print(f"{datetime.date.today()}, {a.n} images\n")
    print("| fault | " + " | ".join(f"{tool.name} {version}" for tool, version in zip(tools, versions)) + " |")
    print("|---|---|---|---|", flush=True)
    for name, what, drill in DRILLS:
        if a.only and name not in a.only.split(","):
            continue
        cells = []
        for tool in tools:
            try:
                cells.append(drill(tool))
            except Exception as error:  # a drill that did not work is said to be one, in the table
                cells.append(f"THE DRILL FAILED: {type(error).__name__}: {str(error)[:300]}")
        print(f"| {what} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
