"""Modules in forks return what they return under ansible-playbook: compared as JSON, with all that Ansible adds."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from support.conformance import Bench

CASES = {
    # ansible-core's own modules and their arguments
    "ping": "ping:",
    "ping, data": "ping: {data: 你好}",
    "ping crashes": "ping: {data: crash}",
    "command": "command: echo one",
    "command, argv": "command: {argv: [printf, '%s|', a b, c]}",
    "command, stdin": "command: {cmd: cat, stdin: 'in put'}",
    "command fails": "command: /bin/false",
    "command is not there": "command: /no/such/program",
    "command, chdir and creates": "command: {cmd: pwd, chdir: /, creates: /no/such}",
    "command is skipped": "command: {cmd: echo no, creates: /etc/passwd}",
    "shell, both streams": "shell: 'echo out; echo err >&2; exit 3'",
    "shell, bytes": r"shell: printf 'a\377b'",
    "shell, killed": "shell: 'kill -9 $$'",
    "directory": "file: {path: '{{ out }}/d/e', state: directory, mode: '0750'}",
    "touch": "file: {path: '{{ out }}/touched', state: touch, mode: u=rw}",
    "link": "file: {src: /etc/passwd, dest: '{{ out }}/link', state: link}",
    "absent": "file: {path: '{{ out }}/touched', state: absent}",
    "file fails": "file: {path: '{{ out }}/none', state: file}",
    "copy": "copy: {content: 'text\\n', dest: '{{ out }}/copied', mode: '0600'}",
    "copy again": "copy: {content: 'text\\n', dest: '{{ out }}/copied', mode: '0600'}",
    "copy, diff": "copy: {content: 'other\\n', dest: '{{ out }}/copied', backup: false}\n      diff: true",
    "copy, check mode": "copy: {content: x, dest: '{{ out }}/unmade'}\n      check_mode: true\n      diff: true",
    "copy, validated": "copy: {content: x, dest: '{{ out }}/v', validate: 'grep -q y %s'}",
    "copy, remote_src": "copy: {src: '{{ out }}/copied', dest: '{{ out }}/copied2', remote_src: true}",
    "template": "template: {src: page.j2, dest: '{{ out }}/page'}",
    "lineinfile": "lineinfile: {path: '{{ out }}/page', regexp: ^a, line: b}\n      diff: true",
    "lineinfile fails": "lineinfile: {path: '{{ out }}/none', line: b}",
    "blockinfile": "blockinfile: {path: '{{ out }}/page', block: \"x\\ny\"}",
    "replace": "replace: {path: '{{ out }}/page', regexp: x, replace: z}",
    "stat": "stat: {path: /etc/passwd}",
    "stat, nothing": "stat: {path: '{{ out }}/none'}",
    "find": "find: {paths: '{{ out }}', patterns: 'cop*', recurse: true}",
    "slurp": "slurp: {src: '{{ out }}/copied'}",
    "fetch": "fetch: {src: '{{ out }}/copied', dest: '{{ out }}/fetched'}",
    "fetch again": "fetch: {src: '{{ out }}/copied', dest: '{{ out }}/fetched'}",
    "fetch, flat": "fetch: {src: '{{ out }}/copied', dest: '{{ out }}/flat/', flat: true}",
    "fetch, missing": "fetch: {src: '{{ out }}/none', dest: '{{ out }}/fetched'}",
    "fetch, may be missing": "fetch: {src: '{{ out }}/none', dest: '{{ out }}/f', fail_on_missing: false}",
    "fetch, directory": "fetch: {src: /etc, dest: '{{ out }}/fetched'}",
    "fetch, check mode": "fetch: {src: /etc/passwd, dest: '{{ out }}/f'}\n      check_mode: true",
    "fetch without dest": "fetch: {src: /etc/passwd}",
    "fetch as the same user": "fetch: {src: /etc/passwd, dest: '{{ out }}/become'}\n      become: true",
    "tempfile": "tempfile: {state: directory}",
    "getent": "getent: {database: passwd, key: root}",
    "user, check mode": "user: {name: nobody-like-this}\n      check_mode: true",
    "group, check mode": "group: {name: nobody-like-this}\n      check_mode: true",
    "service fails": "service: {name: no-such-service, state: started}",
    "uri fails": "uri: {url: 'http://127.0.0.1:1/'}",
    "apt, respawned": "apt: {name: bash, state: present}\n      check_mode: true",
    "package_facts": "package_facts: {manager: no-such}",
    "set_fact": "set_fact: {a: 1}",
    "assert fails": "assert: {that: 1 == 2}",
    "debug": "debug: {msg: '{{ 1 + 1 }}'}",
    "fail": "fail: {msg: as told}",
    "undefined": "debug: {msg: '{{ nothing_of_the_kind }}'}",
    # arguments and keywords
    "unknown option": "stat: {path: /, colour: red}",
    "missing option": "stat: {}",
    "wrong type": "find: {paths: /, depth: many}",
    "no_log": "command: echo secret\n      no_log: true",
    "environment": "shell: 'echo $SAID $HOME $PWD'\n      environment: {SAID: \"it's\", HOME: /nowhere}",
    "environment, all of it": "shell: env | grep -v ^ANSIBLE_ | sort\n      environment: {ADDED: yes}",
    "environment, of Python's start": "command: echo one\n      environment: {PYTHONHASHSEED: 0, LC_ALL: C}",
    "environment, no name": "command: echo one\n      environment: {'not a name': x}",
    "become the same user": "command: id -un\n      become: true",
    "become nobody": "command: id -un\n      become: true\n      become_user: nobody\n      become_method: su",
    "asynchronous": "command: echo late\n      async: 20\n      poll: 1",
    "time is up": "command: sleep 3\n      timeout: 1",
    "retries": "command: /bin/false\n      retries: 1\n      delay: 0\n      until: false",
    "changed and failed when": "command: echo x\n      changed_when: false\n      failed_when: true",
    "not forked": "command: echo x\n      vars: {llmagentos_fork_modules: false}",
    # modules beside the playbook
    "garbage": "garbage:",
    "no JSON": "silent:",
    "JSON and 3": "three:",
    "raises": "raises:",
    "killed": "killed:",
    "closes its streams": "closes:",
    "process": "process:",
    "leaves something": "leaves:",
    "leaves nothing": "leaves:",
    "own module_utils": "uses_own:",
    "warns": "warns:",
    "shell module": "in_shell: {a: 1}",
    "old style": "old: {a: 1}",
    "exit handlers": "at_exit:",
}

NEW = "#!/usr/bin/python\nfrom ansible.module_utils.basic import AnsibleModule\n"
FILES = {
    "page.j2": "a = {{ 1 }}\n",
    "library/garbage.py": f"{NEW}print('before')\nprint('{{\"changed\": false, \"a\": 1}}')\nprint('after')\n",
    "library/silent.py": f"{NEW}import sys\nsys.stderr.write('nothing')\nsys.exit(4)\n",
    "library/three.py": f"{NEW}import sys\nprint('{{\"changed\": true}}')\nsys.exit(3)\n",
    "library/raises.py": f"{NEW}AnsibleModule(argument_spec={{}})\nraise ValueError('as told')\n",
    "library/killed.py": f"{NEW}import os, sys\n"
    "sys.stdout.write('half')\nsys.stdout.flush()\nos.kill(os.getpid(), 9)\n",
    "library/closes.py": f"{NEW}import os\nos.close(2)\nAnsibleModule(argument_spec={{}}).exit_json(a=1)\n",
    "library/process.py": f"""{NEW}
import locale, os, resource, signal, sys, tempfile, threading, time
from ansible.module_utils import _internal
before = [os.getcwd(), list(locale.getlocale(locale.LC_TIME))]
module = AnsibleModule(argument_spec={{}})
umask = os.umask(0)
os.umask(umask)
module.exit_json(
    before=before, umask=umask, stdin=sys.stdin.read(), name=__name__, threads=threading.active_count(),
    files=sorted(os.listdir('/proc/self/fd'))[:3], executable=sys.executable, temporary=tempfile.gettempdir(),
    encodings=[sys.stdout.encoding, sys.stdout.errors, sys.stderr.errors, sys.getfilesystemencoding()],
    signals=[str(signal.getsignal(number)) for number in (2, 13, 15, 17)], argc=len(sys.argv),
    limit=resource.getrlimit(resource.RLIMIT_NOFILE), controller=_internal.is_controller,
    environ=sorted(set(os.environ) - {"_"}), tmpdir=os.path.isdir(module.tmpdir), zone=time.tzname,
)
""",
    "library/leaves.py": f"""{NEW}
import os, sys
from ansible.module_utils import basic
found = [hasattr(basic, 'left_behind'), 'left_behind' in os.environ, hasattr(sys, 'left_behind')]
basic.left_behind = sys.left_behind = os.environ['left_behind'] = 'x'
os.chdir('/')
AnsibleModule(argument_spec={{}}).exit_json(found=found)
""",
    "library/uses_own.py": f"""{NEW}
from ansible.module_utils.mine import said
AnsibleModule(argument_spec={{}}).exit_json(said=said)
""",
    "module_utils/mine.py": "from ansible.module_utils.mine_too import said\n",
    "module_utils/mine_too.py": "said = 'mine'\n",
    "library/warns.py": f"""{NEW}
module = AnsibleModule(argument_spec=dict(secret=dict(no_log=True, default='hidden')))
module.warn('a warning')
module.deprecate('a deprecation', version='9.9')
module.exit_json(changed=True, told='hidden', diff=dict(before='a', after='b'), results={{}}, _ansible_own=1)
""",
    "library/in_shell": '#!/bin/sh\n# WANT_JSON\necho "{\\"changed\\": false, \\"size\\": $(grep -c a $1)}"\n',
    "library/old": "#!/bin/sh\n. $1\necho changed=true a=$a\n",
    "library/at_exit.py": f"""{NEW}
import atexit, sys
atexit.register(lambda: sys.stderr.write('bye'))
print('no')
sys.exit('told')
""",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("conformance"), CASES, FILES)


@pytest.fixture(scope="module")
def expected(bench: Bench) -> dict[str, Any]:
    return bench.by_ansible()


@pytest.fixture(scope="module")
def found(bench: Bench, expected: dict[str, Any]) -> dict[str, Any]:
    return bench.by_us()


@pytest.mark.timeout(400)  # the first one waits for both to run all cases
@pytest.mark.parametrize("case", CASES)
def test_a_module_returns_the_same(case: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert shown(found[case]).splitlines() == shown(expected[case]).splitlines()


def shown(result: Any) -> str:
    return json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False)


def test_why_something_goes_another_way_is_said(tmp_path: Path) -> None:
    cases = {name: CASES[name] for name in ("ping", "become nobody", "environment, of Python's start", "shell module")}
    bench = Bench(tmp_path, cases, {name: text for name, text in FILES.items() if name == "library/in_shell"})
    bench.by_us(verbosity=3)
    reasons = [line.partition("> ")[2] for line in bench.output.splitlines() if "not run in a fork" in line]
    assert reasons == [
        "ansible.legacy.command does not run in a fork: it becomes the user nobody",
        "ansible.legacy.command does not run in a fork: the environment sets what is read at Python's start: "
        "LC_ALL, PYTHONHASHSEED",
        "in_shell does not run in a fork: it is no new-style Python module",
    ]
    assert f"FORK {ansible_library()}/modules/ping.py" in bench.output


def ansible_library() -> str:
    spec = find_spec("ansible")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent)
