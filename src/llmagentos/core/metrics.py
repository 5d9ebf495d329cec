"""Every metric of the system, by name, in one place.

Rooms import the object they feed; `/metrics` renders `REGISTRY`. Names follow the Prometheus
conventions (unit suffix, `_total` for counters) with the prefix `llmagentos_`. Label values must be
bounded: never an id, a path with ids, or user text.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

REGISTRY = CollectorRegistry()
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _FAST) -> Histogram:
    return Histogram(name, text, labels, registry=REGISTRY, buckets=buckets)


def render() -> bytes:
    """All metrics in the Prometheus text format 0.0.4."""
    return generate_latest(REGISTRY)


# --- server -----------------------------------------------------------------------------------
HTTP_REQUESTS = _histogram(
    "llmagentos_http_request_duration_seconds",
    "API requests of the server by route template, method and status.",
    "route",
    "method",
    "status",
)
# --- services ---------------------------------------------------------------------------------
REGISTRY_INSTANCES = _gauge("llmagentos_registry_instances", "Registered instances of modules.")
SERVICE_REQUESTS = _histogram(
    "llmagentos_service_request_duration_seconds",
    "Calls that this module answered, by service, method and outcome (ok or the error's code).",
    "service",
    "method",
    "outcome",
)
SERVICE_REFUSALS = _counter(
    "llmagentos_service_refused_total", "Requests that this module refused before any method ran, by reason.", "reason"
)
SERVICE_CONNECTIONS = _gauge("llmagentos_service_connections", "Open connections to this module.")
SERVICE_CALLS = _histogram(
    "llmagentos_service_call_duration_seconds",
    "Calls that this process made, retries included, by service, method and outcome (ok or the error's code).",
    "service",
    "method",
    "outcome",
)
SERVICE_RETRIES = _counter(
    "llmagentos_service_call_retries_total",
    "Calls sent again to another instance, by service and reason.",
    "service",
    "reason",
)
# --- llm --------------------------------------------------------------------------------------
# OpenTelemetry's conventions for generative AI, with dots as underscores and the unit as suffix.
_GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
GEN_AI_DURATION = _histogram(
    "gen_ai_server_request_duration_seconds",
    "Calls to models from arrival to end; error_type is empty for those that succeeded.",
    *_GEN_AI,
    "error_type",
    buckets=_SLOW,
)
GEN_AI_FIRST_TOKEN = _histogram(
    "gen_ai_server_time_to_first_token_seconds",
    "From a call's arrival to the first piece of its answer, the wait for a slot included.",
    *_GEN_AI,
    buckets=_SLOW,
)
GEN_AI_PER_TOKEN = _histogram(
    "gen_ai_server_time_per_output_token_seconds", "Time for each token of an answer after the first.", *_GEN_AI
)
GEN_AI_TOKENS = _histogram(
    "gen_ai_client_token_usage",
    "Tokens of a call, input and output.",
    *_GEN_AI,
    "gen_ai_token_type",
    buckets=(1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144),
)
LLM_QUEUE = _histogram(
    "llmagentos_llm_queue_duration_seconds", "Wait of admitted calls for a slot of their model.", "model", buckets=_SLOW
)
LLM_RUNNING = _gauge("llmagentos_llm_running_calls", "Calls that have a slot of their model now.", "model")
LLM_WAITING = _gauge(
    "llmagentos_llm_waiting_calls", "Calls that wait for their model now, by reason.", "model", "reason"
)
LLM_SLOTS = _gauge("llmagentos_llm_slots", "Calls that may run at once on a model, by what was found so far.", "model")
LLM_BREAKER = _gauge("llmagentos_llm_breaker_open", "1 while no calls are sent to an engine.", "model", "engine")
LLM_FALLBACKS = _counter(
    "llmagentos_llm_fallbacks_total", "Calls that another model took, by what failed.", "model", "fallback", "failure"
)
LLM_PREEMPTIONS = _counter(
    "llmagentos_llm_preemptions_total", "Running calls that gave their slot to a more urgent one.", "model"
)
LLM_REQUEUED = _counter("llmagentos_llm_requeued_total", "Calls refused by a busy engine that waited again.", "model")
BUDGET_SPENT = _counter(
    "llmagentos_budget_spent_total", "What was counted against budgets, by resource; money in nano-units.", "resource"
)
BUDGET_ALERTS = _counter(
    "llmagentos_budget_alerts_total", "Thresholds of limits that were reached, by resource and hard or soft.",
    "resource", "kind",
)  # fmt: skip
BUDGET_REFUSALS = _counter(
    "llmagentos_budget_refusals_total", "Calls and runs that a hard limit did not allow, by resource.", "resource"
)
BUDGET_REPLAYS = _counter(
    "llmagentos_budget_replays_total", "Calls made again after a crash that found what they held or had taken."
)
BUDGET_WAITING = _gauge("llmagentos_budget_waiting_runs", "Runs that wait for room in a budget.")
BUDGET_COMMIT = _histogram("llmagentos_budget_commit_seconds", "Transactions that store what is held and spent.")
# --- agents -----------------------------------------------------------------------------------
RUNS = _counter("llmagentos_runs_ended_total", "Agent runs that ended, by agent and state.", "agent", "state")
RUN_SECONDS = _histogram(
    "llmagentos_run_duration_seconds",
    "From the first claim of a run to its end, by agent and state.",
    "agent",
    "state",
    buckets=_SLOW,
)
ANSWERS_REPLACED = _counter(
    "llmagentos_run_answers_replaced_total",
    "Answers whose words did not stand on the records and gave way to the records, by agent.",
    "agent",
)
RUNS_PAUSED = _counter("llmagentos_runs_paused_total", "Times that a run was paused.")
RUNS_ACTIVE = _gauge("llmagentos_runs_active", "Runs that this process is carrying on.")
TOOL_RETRIES = _counter("llmagentos_tool_call_retries_total", "Tool calls that were made again because they failed.")
APPROVALS = _counter(
    "llmagentos_approvals_total",
    "Tool calls that waited for a person, by answer (approved, denied, expired).",
    "answer",
)
APPROVALS_WAITING = _gauge("llmagentos_approvals_waiting", "Tool calls that wait for a person now.")
APPROVAL_NOTICES = _counter(
    "llmagentos_approval_notices_total",
    "Notices of waiting calls to the webhook, by outcome (ok, failed, given_up).",
    "outcome",
)
TOOL_SECONDS = _histogram("llmagentos_tool_call_duration_seconds", "Tool calls of agents by outcome.", "outcome")
# --- fleet ------------------------------------------------------------------------------------
NODES = _gauge("llmagentos_nodes", "Nodes by state (ready, away).", "state")
JOBS_ENDED = _counter("llmagentos_jobs_ended_total", "Jobs that ended, by state.", "state")
JOB_DURATION = _histogram(
    "llmagentos_job_duration_seconds", "Jobs from their submission to the end of the last node.", buckets=_SLOW
)
SCHEDULE_TIMES = _counter(
    "llmagentos_schedule_times_total", "Times that schedules were due, by what came of it.", "outcome"
)
JOBS_WAITING = _gauge("llmagentos_jobs_waiting", "Entries in the queues of all nodes, queued or running.")
TASK_RESULTS = _counter("llmagentos_task_results_total", "Results of playbook tasks by status.", "status")
# of a node agent's own process
NODE_JOBS = _counter("llmagentos_node_jobs_total", "Jobs that this node ended, by status.", "status")
NODE_JOB_SECONDS = _histogram(
    "llmagentos_node_job_duration_seconds", "Jobs on this node from claim to reported end.", buckets=_SLOW
)
NODE_RUNNERS = _counter(
    "llmagentos_node_runners_total", "Runners begun: forked of the warm process, or started anew.", "start"
)
NODE_EVENTS = _counter("llmagentos_node_events_sent_total", "Events of jobs that the server acknowledged.")
NODE_MODULES = _gauge("llmagentos_node_modules", "Modules that this node keeps, by state.", "state")
NODE_MODULE_RESTARTS = _counter("llmagentos_node_module_deaths_total", "Modules that ended without being told to.")
NODE_TOKENS = _counter("llmagentos_node_tokens_total", "Tokens that this node got for its key.")
NODE_CERTIFICATES = _counter("llmagentos_node_certificates_total", "Certificates that this node renewed.")
NODE_TELEMETRY_SENT = _counter("llmagentos_node_telemetry_sent_total", "Batches of samples and lines sent.")
NODE_TELEMETRY_DROPPED = _counter(
    "llmagentos_node_telemetry_dropped_total", "Batches given up: the spool or the disk was full, or they were refused."
)
NODE_HEARTBEATS = _counter(
    "llmagentos_node_heartbeats_total", "Heartbeats by outcome (ok or the error's code).", "outcome"
)
# --- observe ----------------------------------------------------------------------------------
TELEMETRY_SAMPLES = _counter("llmagentos_telemetry_samples_total", "Samples of nodes that were stored.")
TELEMETRY_LINES = _counter("llmagentos_telemetry_lines_total", "Lines of nodes' logs that were stored.")
