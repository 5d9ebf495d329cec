# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""A playbook that spans hosts, without a controller: the runner of every node runs all of it, for all hosts.

Each runner executes only the tasks of its own host and shares their results; for the others it waits for what
their nodes share. Everybody processes all results in the one order that the server gave them, so ansible-core
comes to the same state on every node: batches, failures, hostvars, groups, handlers, the host that does what is
to be done once. No node has another do anything: where a task is delegated, the node that it is delegated to
executes it from its own copy of the playbook (see `delegation`).

A task is known by its host and its number among the host's tasks, the same on every node. Should nodes not agree
on what that task is, the run ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.executor import task_queue_manager
from ansible.executor.process import worker
from ansible.plugins import strategy
from ansible.utils.display import Display

from llmagentos_ansible import dynamic, wire
from llmagentos_ansible.exchange import Heard, Peers, Shares

LOCALHOST = frozenset({"localhost", "127.0.0.1", "::1"})
# The variables that this reads are templates of the playbook, which may not travel: everybody reads them himself.
_EVERYBODY = frozenset({"include_vars"})
_BUNDLE = "//bundle.llmagentos//"  # stands for the playbook's directory, wherever a node has it
_display = Display()

Key = tuple[str, int]
"""A host, and the number of one of its tasks."""


@dataclass(frozen=True, slots=True)
class Members:
    """Who takes part. `lead` stands in for the machine where ansible-playbook would be run."""

    me: str
    lead: str
    hosts: frozenset[str]

    def owner(self, host: str, variables: Mapping[str, Any]) -> str | None:
        """The node that executes what is to be executed on `host`."""
        if host in self.hosts:
            return host
        if host in LOCALHOST or variables.get("ansible_connection") == "local":
            return self.lead
        return None

    def mine(self, host: str) -> bool:
        """Whether this node tells what happens on `host`: its own, and on the lead those that no node is."""
        return host == self.me or (self.me == self.lead and host not in self.hosts)


class Lockstep:
    """One run, in the runner's main process; forks of it have a copy."""

    def __init__(self, directory: Path, members: Members) -> None:
        self.members = members
        self.shares = Shares(directory / "shares.jsonl")
        self.peers_path = directory / "peers.jsonl"
        self.gone: dict[str, str] = {}
        self.place: Callable[[Mapping[str, Any], Any], None] | None = None
        """Takes a file that another node fetched for a task."""
        self._peers = Peers(self.peers_path)
        self._root = f"{directory / 'bundle'}/"
        self._heard: deque[Heard] = deque()
        self._counts: dict[str, int] = {}
        self._waiting: dict[Key, Any] = {}
        self._fork: Callable[[Any], None] = worker.WorkerProcess.start
        self._execute_here: Callable[[Any], None] = worker.WorkerProcess.start

    def install(self, fork: Callable[[Any], None], inline: Callable[[Any], None]) -> None:
        """From now on. `fork` starts a worker in a process of its own, `inline` executes one here and now."""
        self._fork, self._execute_here = fork, inline
        process, queue, base = worker.WorkerProcess, task_queue_manager.FinalQueue, strategy.StrategyBase
        start, alive = process.start, process.is_alive
        send_result, send_callback, pending = queue.send_task_result, queue.send_callback, base._process_pending_results
        lockstep = self

        def is_alive(found: Any) -> bool:
            return lockstep._open(found) or alive(found)

        def send_task_result(found: Any, *sent: Any, **named: Any) -> None:
            if not lockstep._tell((*sent, *named.values())):
                send_result(found, *sent, **named)

        def send_item(found: Any, *sent: Any, **named: Any) -> None:
            if _current("lockstep_speaks", True):
                send_callback(found, *sent, **named)

        def process_pending_results(found: Any, *args: Any, **named: Any) -> Any:
            lockstep.pump()
            return pending(found, *args, **named)

        process.start = lambda found: lockstep.begin(found, start)
        process.is_alive = is_alive
        queue.send_task_result = send_task_result
        queue.send_callback = send_item
        base._process_pending_results = process_pending_results
        dynamic.install(self._tell_of_inventory)

    @property
    def offset(self) -> int:
        """How far of `peers.jsonl` this process has read."""
        return self._peers.offset

    # --- a task begins ------------------------------------------------------------------------------

    def begin(self, process: Any, start: Callable[[Any], None]) -> None:
        """`WorkerProcess.start`: execute it, or wait for the node that does."""
        host = process._host.name
        self._counts[host] = number = self._counts.get(host, 0) + 1
        process.lockstep_key = key = (host, number)
        process.lockstep_task = self._identity(process._task)
        owner = self.members.owner(host, process._task_vars)
        self._waiting[key] = process
        if owner is None:
            self._deliver(process, wire.unreachable(process, f"{host!r} is no node of this job"))
        elif owner in self.gone:
            self._deliver(process, wire.unreachable(process, f"node {owner!r} is gone: {self.gone[owner]}"))
        elif _action(process._task) in _EVERYBODY:
            process.lockstep_speaks = self.members.mine(host)
            process.lockstep_kept = []
            self._execute_here(process)
        elif owner == self.members.me:
            start(process)
        else:
            process.lockstep_owner = owner

    def _identity(self, task: Any) -> str:
        """The task, as every node knows it: where it stands and what it does."""
        return f"{str(task.get_path() or '').replace(self._root, '')} {task.action}"

    def _tell(self, sent: tuple[Any, ...]) -> bool:
        """A result is to be sent: share it instead. False when it is none of ours."""
        process = worker.current_worker
        key: Key | None = getattr(process, "lockstep_key", None)
        if process is None or key is None:
            return False
        kept = getattr(process, "lockstep_kept", None)
        if kept is not None:
            kept.append(wire_of(sent))
        if not _current("lockstep_speaks", True):
            return True
        text = wire.encode_result(sent)
        if _action(process._task) == "fetch":  # its `dest` is there on every node, in the directory of each
            text = text.replace(self._root, _BUNDLE)
        share = {"kind": "result", "host": key[0], "n": key[1], "task": process.lockstep_task, "result": text}
        try:
            self.shares.tell(share)
        except ValueError as error:
            self.shares.tell(share | {"result": wire.encode_result(_shortened(sent, str(error)))})
        return True

    def tell_of_file(self, told: Mapping[str, Any]) -> None:
        """Tell the others of a file that the task at hand fetched."""
        host, number = worker.current_worker.lockstep_key
        self.shares.tell({"kind": "file", "host": host, "n": number, **told})

    def _tell_of_inventory(self, told: Mapping[str, Any]) -> None:
        host, number = worker.current_worker.lockstep_key
        self.shares.tell({"kind": "inventory", "host": host, "n": number, **told})

    # --- what the others tell -------------------------------------------------------------------------

    def pump(self) -> None:
        """Process what came, in order, as far as this node is. Raises `AnsibleError` when nodes do not agree."""
        self._heard.extend(self._peers.new())
        while self._heard and self._take(self._heard[0]):
            self._heard.popleft()

    def _open(self, process: object) -> bool:
        """Whether the process still stands for a task whose result is awaited."""
        key = getattr(process, "lockstep_key", ("", 0))
        if self._waiting.get(key) is not process:
            return False
        self.pump()
        return self._waiting.get(key) is process

    def _take(self, heard: Heard) -> bool:
        """False when this node is not so far yet."""
        if not heard.share:
            self._lose(heard)
            return True
        kind, key = heard.share["kind"], (str(heard.share["host"]), int(heard.share["n"]))
        if kind == "answer":
            return True  # the process that asked reads it itself
        process = self._waiting.get(key)
        if process is None:
            return self._counts.get(key[0], 0) >= key[1]  # over already, or yet to begin
        owner = self.members.owner(key[0], process._task_vars)
        if kind == "file":
            self._take_file(process, heard, owner)
        elif heard.node != owner:
            return True  # not its business
        elif kind == "ask":
            self._assist(process, heard)
        elif kind == "inventory":
            dynamic.heed(heard.share)
        else:
            self._finish(process, heard.share)
        return True

    def _take_file(self, process: Any, heard: Heard, owner: str | None) -> None:
        allowed = heard.node == owner or (process._task.delegate_to and heard.node in self.members.hosts)
        if self.place is not None and allowed and heard.node != self.members.me and _action(process._task) == "fetch":
            self.place(heard.share, process)

    def _finish(self, process: Any, share: Mapping[str, Any]) -> None:
        if share["task"] != process.lockstep_task:
            raise AnsibleError(
                f"The nodes of this job do not agree: task {share['n']} of {share['host']} is here "
                f"{process.lockstep_task!r}, there {share['task']!r}. Something that the playbook looks up, or a "
                "role or collection that is installed, differs between the nodes."
            )
        kept = getattr(process, "lockstep_kept", None)
        text = str(share["result"])
        if _action(process._task) == "fetch":
            text = text.replace(_BUNDLE, self._root)
        self._deliver(process, kept[-1] if kept else wire.wired(process, text))

    def _deliver(self, process: Any, result: Any) -> None:
        del self._waiting[process.lockstep_key]
        process._final_q.put(result)

    def _lose(self, heard: Heard) -> None:
        self.gone[heard.node] = heard.why
        for process in [each for each in self._waiting.values() if getattr(each, "lockstep_owner", "") == heard.node]:
            self._deliver(process, wire.unreachable(process, f"node {heard.node!r} is gone: {heard.why}"))

    def _assist(self, process: Any, heard: Heard) -> None:
        """Another node's task is delegated to this one: a fork executes it, whatever it is asked for."""
        if heard.share["to"] != self.members.me or hasattr(process, "lockstep_asked"):
            return
        process.lockstep_asked = heard
        process.lockstep_speaks = False
        self._fork(process)


def _current(name: str, otherwise: bool) -> bool:
    return bool(getattr(worker.current_worker, name, otherwise))


def _action(task: Any) -> str:
    return str(task.resolved_action or task.action).rpartition(".")[2]


def wire_of(sent: tuple[Any, ...]) -> Any:
    """What `FinalQueue.send_task_result` would put into its queue."""
    if wire.UNIFIED:
        from ansible._internal import _task

        host, task, result = sent
        return _task.WireTaskResult.create(host=host, task=task, utr=result)
    return sent[0].as_wire_task_result()


def _shortened(sent: tuple[Any, ...], why: str) -> tuple[Any, ...]:
    """The same end with nothing but its status: what is missing cannot be taken for something else."""
    if wire.UNIFIED:
        from ansible._internal import _task

        host, task, result = sent
        short = _task.UnifiedTaskResult(is_module=False)
        for name in ("changed", "failed", "skipped", "unreachable", "notify"):
            setattr(short, name, getattr(result, name))
        short.msg = why
        return host, task, short
    found = sent[0]
    status = ("changed", "failed", "skipped", "unreachable", "_ansible_notify", "_ansible_no_log")
    data = {name: found._return_data[name] for name in status if name in found._return_data}
    from ansible.executor import task_result

    return (task_result._RawTaskResult(found.host, found.task, data | {"msg": why}, found.task_fields),)
