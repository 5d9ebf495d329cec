"""The fork server itself: many modules at once, much data, and each of its processes killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

HEAD = """
import json, os, signal, socket, sys, threading, time
from llmagentos_ansible import modulefork, modulerun

def module(file, tell):
    with open(file, "rb") as opened:
        opened.seek(0)
        request = json.load(opened)
    modulerun._streams()
    modulerun._ended(lambda: exec(request["script"], {"request": request}), tell)

modulerun.preload = lambda: None
modulerun.ready = lambda: module
server = modulefork.start(())

def run(script, **more):
    given = dict(environ={}, umask=0, cwd="/", argv0="x", script=script) | more
    return modulefork.run(server, modulefork.Request(**given))

def children():
    return [int(pid) for pid in open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()]

def told(*values):
    print(json.dumps(values))
"""


def harness(script: str, timeout: float = 90) -> Any:
    """What `script` told, run with a fork server whose modules are plain scripts."""
    done = subprocess.run([sys.executable, "-c", HEAD + script], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ended(pid: int) -> bool:
    """Gone within a while, or a zombie that nobody collects."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_output_errors_and_status() -> None:
    code, out, err = harness(
        "c, o, e = run('import sys; print(1); sys.stderr.write(\"2\"); sys.exit(3)'); told(c, o.decode(), e.decode())"
    )
    assert (code, out, err) == (3, "1\n", "2")


def test_each_is_a_fork_of_its_own() -> None:
    script = "import os, sys; print(os.getpid(), hasattr(sys, 'left'), len(os.listdir('/proc/self/fd'))); sys.left = 1"
    lines = harness(f"told(*(run({script!r})[1].decode().split() for _ in range(5)))")
    assert len({pid for pid, _, _ in lines}) == 5
    assert {left for _, left, _ in lines} == {"False"}
    assert {int(count) for _, _, count in lines} == {5}, "0 to 2, where the end is told, and the directory itself"


def test_killed_as_a_shell_says_it() -> None:
    found = harness(
        "told(*((c, e.decode()) for c, _, e in (run(f'import os; os.kill(os.getpid(), {n})') for n in (9, 15, 11))))"
    )
    assert found == [[137, "Killed\n"], [143, "Terminated\n"], [139, "Segmentation fault\n"]]


def test_much_data_both_ways() -> None:
    script = "import sys; sys.stdout.write(request['params'][::-1]); sys.stderr.write('e' * 3_000_000)"
    code, out, err = harness(
        f"given = 'a' * 5_000_000 + 'b'; c, o, e = run({script!r}, params=given)\n"
        "told(c, o.decode() == given[::-1], len(e))"
    )
    assert (code, out, err) == (0, True, 3_000_000)


def test_many_at_once(tmp_path: Path) -> None:
    """None of them ends before all have begun."""
    script = (
        "import os, time; open(request['params'], 'w').close(); deadline = time.monotonic() + 60\n"
        f"while len(os.listdir({str(tmp_path)!r})) < 20 and time.monotonic() < deadline: time.sleep(0.01)\n"
        f"print(request['params'], len(os.listdir({str(tmp_path)!r})))"
    )
    (found,) = harness(
        "found = []\n"
        f"def one(n): found.append(run({script!r}, params=f'{tmp_path}/{{n}}')[1].decode().split())\n"
        "threads = [threading.Thread(target=one, args=(n,)) for n in range(20)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "told(found)"
    )
    assert sorted(found) == sorted([f"{tmp_path}/{n}", "20"] for n in range(20))


def test_a_spare_fork_that_is_killed_is_replaced() -> None:
    found = harness(
        "run('pass'); (server_pid,) = children(); deadline = time.monotonic() + 60\n"
        "def spares(): return open(f'/proc/{server_pid}/task/{server_pid}/children').read().split()\n"
        "while not spares(): assert time.monotonic() < deadline\n"
        "killed = spares(); [os.kill(int(pid), 9) for pid in killed]\n"
        "def state(pid):\n"
        "    try: return open(f'/proc/{pid}/stat').read().rpartition(') ')[2][0]\n"
        "    except (FileNotFoundError, ProcessLookupError): return 'Z'\n"  # of the module before
        "while any(state(pid) != 'Z' for pid in killed): assert time.monotonic() < deadline\n"
        "told(run('print(1)')[1].decode())"
    )
    assert found == ["1\n"]


def test_a_fork_server_that_is_killed() -> None:
    """Before a module: it did not begin. While one runs: that tells its end itself, or nobody does."""
    before, during, with_it = harness(
        "kill = 'import os, signal; os.kill(os.getppid(), signal.SIGKILL); '\n"
        "during = run(kill + 'raise SystemExit(3)')[0]; os.wait()\n"
        "before, deadline = 137, time.monotonic() + 60\n"
        "while before == 137 and time.monotonic() < deadline:\n"  # while its spare fork has the socket as well
        "    try: before = run('pass')[0]\n"
        "    except modulefork.NotBegun: before = 'not begun'\n"
        "server = modulefork.start(())\n"
        "with_it = run(kill + 'os.kill(os.getpid(), signal.SIGKILL)')[0]\n"
        "told(before, during, with_it)"
    )
    assert (before, during, with_it) == ("not begun", 3, 137)


def test_whoever_waits_dies_and_the_module_with_it(tmp_path: Path) -> None:
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(200)"
    (pid,) = harness(
        f"waiter = os.fork()\nif waiter == 0: run({script!r})\n"
        f"path = {str(tmp_path / 'pid')!r}; deadline = time.monotonic() + 60\n"
        "while not (os.path.exists(path) and os.path.getsize(path)): assert time.monotonic() < deadline\n"
        "os.kill(waiter, 9); os.waitpid(waiter, 0); told(int(open(path).read()))"
    )
    assert ended(pid)


def test_a_task_that_is_given_up_leaves_its_module_running(tmp_path: Path) -> None:
    """As ansible-core's local connection does when a task's `timeout` is over."""
    begun, over, made = (str(tmp_path / name) for name in ("begun", "over", "made"))
    wait = "import os, time\ndef wait(path):\n    while not os.path.exists(path): time.sleep(0.01)\n"
    script = f"{wait}open({begun!r}, 'w').close(); wait({over!r}); open({made!r}, 'w').close()"
    (given_up,) = harness(
        f"{wait}"
        "def alarm(*_): raise TimeoutError\n"
        "signal.signal(signal.SIGALRM, alarm); main = threading.get_ident()\n"
        f"def time_is_over(): wait({begun!r}); signal.pthread_kill(main, signal.SIGALRM)\n"
        "threading.Thread(target=time_is_over).start()\n"
        f"try: run({script!r}); told(False)\n"
        f"except TimeoutError: open({over!r}, 'w').close(); wait({made!r}); told(True)\n"
    )
    assert given_up is True


def test_it_ends_with_the_run() -> None:
    (pid,) = harness("run('pass'); told(children()[0])")
    assert ended(pid)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only Linux shows titles")
def test_a_title() -> None:
    script = "import time; from llmagentos_ansible import title\n"
    script += "title.write('told /a/b'); print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script, "-" * 200], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert psutil.Process(process.pid).cmdline()[-2:] == ["told", "/a/b"]
    finally:
        process.kill()
        process.communicate()


def test_a_rehearsal_leaves_nothing_behind() -> None:
    """What modules share is run before they are forked: no variable of ansible-core's may tell of it."""
    script = """
import copy, json, locale, os, sys
from llmagentos_ansible import modulerun

def shown():
    plain = (dict, list, set, frozenset, tuple, str, bytes, int, float, bool, type(None))
    found = {"locale": locale.setlocale(locale.LC_ALL), "environ": dict(os.environ), "argv": sys.argv,
             "cwd": os.getcwd(), "main": sys.modules["__main__"].__file__, "files": sorted(os.listdir("/proc/self/fd"))}
    for name, module in list(sys.modules.items()):
        if name.startswith("ansible."):
            found |= {f"{name}.{key}": repr(value) for key, value in vars(module).items()
                      if isinstance(value, plain) and not key.startswith("__")}
    return found

rehearse = modulerun._rehearse
told = []
def rehearsed(name, arguments):
    before = shown()
    rehearse(name, arguments)
    after = shown()
    told.append([name, [key for key in after if before.get(key) != after[key]]])
modulerun._rehearse = rehearsed
modulerun.preload()
print(json.dumps(told))
"""
    path = Path(__file__)
    done = subprocess.run(
        [sys.executable, "-c", f"__file__ = {str(path)!r}\n{script}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name for name, _ in found} == {f"ansible.modules.{name}" for name in ("command", "file", "stat")}
    assert all(not left for _, left in found), found
