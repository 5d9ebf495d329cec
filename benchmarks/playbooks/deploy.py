"""The operations of site.yml as pyinfra has them; `BENCH_BASE=DIR pyinfra -y @local deploy.py`."""

import os
from io import StringIO

from pyinfra.operations import files, server

BASE = os.environ["BENCH_BASE"]
PEOPLE = ["ada", "bob", "cyd"]

files.directory(path=BASE, mode="755")
for name in ("conf", "data", "logs"):
    files.directory(path=f"{BASE}/{name}")
text = files.put(src=StringIO("hello\n"), dest=f"{BASE}/conf/hello", mode="644")
files.put(src="file.txt", dest=f"{BASE}/conf/file.txt")
template = files.template(src="app.j2", dest=f"{BASE}/conf/app.conf", title="bench", people=PEOPLE)
files.line(path=f"{BASE}/conf/app.conf", line="added = yes", ensure_newline=True)
files.line(path=f"{BASE}/conf/app.conf", line="^name.*", replace="name = new")
files.block(path=f"{BASE}/conf/app.conf", content="[more]\na = 1")
files.replace(path=f"{BASE}/conf/app.conf", text="a = 1", replace="a = 2")
server.shell(commands=["echo one"])
server.shell(commands=["echo two; echo err >&2"])
server.shell(commands=[f"stat {BASE}/conf/app.conf"])
for person in PEOPLE:
    files.put(src=StringIO(f"{person}\n"), dest=f"{BASE}/data/{person}")
files.link(path=f"{BASE}/link", target=f"{BASE}/conf/hello")
files.file(path=f"{BASE}/touched", touch=True, mode="600")
server.shell(commands=[f"find {BASE}/data -type f"])
server.shell(commands=[f"base64 {BASE}/conf/hello"])
server.shell(commands=["/bin/false"], _ignore_errors=True)
server.shell(commands=["echo rescued"])
server.shell(commands=["echo always"])
for number in range(1, 5):
    server.shell(commands=[f"echo {number}"])
files.template(src="app.j2", dest=f"{BASE}/conf/other.conf", mode="640", title="bench", people=PEOPLE)
files.line(path=f"{BASE}/conf/other.conf", line="x = 1", ensure_newline=True)
files.file(path=f"{BASE}/touched", present=False)
server.shell(commands=["echo reloaded"], _if=text.did_change)
files.put(src=StringIO("noted\n"), dest=f"{BASE}/noted", _if=template.did_change)
