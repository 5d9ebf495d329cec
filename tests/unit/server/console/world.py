"""The pages that have sources of their own, of a system with nothing in it and of one full of hostile texts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from llmagentos.api import jobs
from llmagentos.api.job_control import Batch, JobChange
from llmagentos.api.job_files import JobFile
from llmagentos.api.llm import CallInfo, ModelInfo, ModelQueue, ReplicaInfo, WaitingCall
from llmagentos.api.memory import Fact
from llmagentos.api.runs import Turn
from llmagentos.api.schedules import Fire, Schedule, ScheduleSpec, TemplateUse
from llmagentos.api.sessions import SessionDetail, SessionInfo
from llmagentos.api.templates import Parameter, Template, TemplateSpec
from llmagentos.core.errors import NotFound
from llmagentos.server.console.render import Pages
from llmagentos.server.endpoint import Endpoint
from llmagentos.server.routes import job_pages, memory_pages, model_pages, schedule_pages, session_pages

HOSTILE = "<script>alert(1)</script>\"'&"
SPEC = jobs.JobSpec("0" * 64, HOSTILE)
JOB = jobs.JobSummary(7, HOSTILE, "running", 1.0, HOSTILE, [HOSTILE], ["check"], 2.0)
ASKED = [Parameter("release", label=HOSTILE, help=HOSTILE), Parameter("colour", "choice", choices=[HOSTILE])]
TEMPLATE = Template(HOSTILE, 1, TemplateSpec(SPEC, HOSTILE, ASKED), 1.0, HOSTILE)
FIRES = [Fire(1.0, 1.0, 7), Fire(1.0, 1.0, None, HOSTILE)]
SCHEDULE = Schedule(
    HOSTILE,
    ScheduleSpec("30 2 * * *", zone="Asia/Shanghai", template=TemplateUse(HOSTILE)),
    False, 1.0, HOSTILE, "x", [99.0, 199.0], FIRES,
)  # fmt: skip
EVENTS: list[jobs.JobEvent] = [
    jobs.PlayStarted(seq=1, at=1.0, name=HOSTILE),
    jobs.TaskStarted(seq=2, at=1.0, name=HOSTILE),
    jobs.TaskResult(
        seq=3, at=1.0, host=HOSTILE, task=HOSTILE, status="failed", item=HOSTILE, is_item=True,
        result={"msg": HOSTILE, "stdout": HOSTILE * 50, HOSTILE: HOSTILE}, diff=[jobs.Difference("", HOSTILE)],
        duration_s=1.0, delegated_to=HOSTILE,
    ),
]  # fmt: skip
RECORDS = [jobs.JobRecord(i, HOSTILE, event) for i, event in enumerate(EVENTS, 1)]
CHANGES = [
    JobChange(2, 2.0, HOSTILE, "host", "failed", "running", HOSTILE, None, 2, HOSTILE),
    JobChange(1, 1.0, HOSTILE, "batch", "gating", "running", None, 1),
]
FILES = [JobFile(number, HOSTILE, f"{HOSTILE}/{number}", HOSTILE, "0" * 64, 2048, 1.0) for number in range(101)]


def value(result: Any) -> Callable[..., Awaitable[Any]]:
    """A source that answers `result`, whatever it is asked."""

    async def answer(*_: Any, **__: Any) -> Any:
        return result

    return answer


def missing(*_: Any, **__: Any) -> Any:
    """A source that has nothing."""
    raise NotFound(f"there is no {HOSTILE}", hint=HOSTILE)


def model_sources(*, full: bool, **more: Any) -> model_pages.ModelSources:
    replica = ReplicaInfo(HOSTILE, "unreachable", 1, HOSTILE, HOSTILE, HOSTILE, 1, 2, 0.5, 3.0, 0.1, 4, 5, 6.0, 7)
    model = ModelInfo(
        HOSTILE, "openai", "chat", "loading", [HOSTILE], 1, 1, 1, 10, HOSTILE, 1.5, 2**20, 5, HOSTILE, 1.0, 2.0,
        [replica],
    )  # fmt: skip
    queue = ModelQueue(HOSTILE, 1, 1, 1, [], [WaitingCall("c2", HOSTILE, HOSTILE, -5, 1.0, 1, "held", "r1")])
    call = CallInfo("c1", 1.0, HOSTILE, "openai", "chat", HOSTILE, "failed", 1, 1, 0.1, 0.1, None, "r1", HOSTILE)
    given: dict[str, Any] = {
        "models": value([model] if full else []), "queues": lambda _: [queue] if full else [],
        "calls": value([call] if full else []), "load": value(model), "unload": value(model),
    }  # fmt: skip
    return model_pages.ModelSources(**(given | more))


def job_sources(*, full: bool) -> job_pages.JobSources:
    host, batch = jobs.JobHost(HOSTILE, "running", message=HOSTILE), Batch(1, "gating", [HOSTILE], message=HOSTILE)
    job = jobs.Job(JOB, SPEC, [host], batches=[batch])
    return job_pages.JobSources(
        listing=value([JOB] if full else []), job=value(job) if full else missing, events=value(RECORDS),
        changes=value(CHANGES), files=value(FILES if full else []), decide=missing, cancel=missing,
        templates=value([TEMPLATE] if full else []), template=value(TEMPLATE) if full else missing, launch=missing,
    )  # fmt: skip


def schedule_sources(*, full: bool, **more: Any) -> schedule_pages.ScheduleSources:
    given: dict[str, Any] = {
        "listing": value([SCHEDULE] if full else []), "one": value(SCHEDULE) if full else missing, "add": missing,
        "change": missing, "delete": missing, "pause": missing, "run_now": missing,
        "templates": value([TEMPLATE] if full else []), "template": value(TEMPLATE) if full else missing,
        "spec_of": value(SPEC),
    }  # fmt: skip
    return schedule_pages.ScheduleSources(**(given | more))


def session_sources(*, full: bool) -> session_pages.SessionSources:
    info = SessionInfo(HOSTILE, HOSTILE, HOSTILE, 1.0, 2.0, 3, True)
    detail = SessionDetail(HOSTILE, HOSTILE, HOSTILE, HOSTILE, [Turn(HOSTILE, HOSTILE)])
    return session_pages.SessionSources(
        listing=value([info] if full else []), show=value(detail) if full else missing, delete=missing
    )


def memory_sources(*, full: bool) -> memory_pages.MemorySources:
    facts = [Fact("f1", HOSTILE, HOSTILE, HOSTILE, 1.0, 2.0, [HOSTILE])] if full else []
    return memory_pages.MemorySources(
        listing=value(facts), search=value(facts), forget=value(full), agents=value([HOSTILE] if full else [])
    )


def endpoints(pages: Pages, *, full: bool) -> list[Endpoint]:
    """All of them."""
    return [
        *model_pages.endpoints(model_sources(full=full), pages),
        *job_pages.endpoints(job_sources(full=full), pages),
        *schedule_pages.endpoints(schedule_sources(full=full), pages),
        *session_pages.endpoints(session_sources(full=full), pages),
        *memory_pages.endpoints(memory_sources(full=full), pages),
    ]
