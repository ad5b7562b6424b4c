"""The gates: before models are fetched, whether they fit; when they are loaded, where they are."""

from __future__ import annotations

from pyinfra import host, logger
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.declare.fleet import FleetHost
from fleet.gates import asked as gates
from fleet.gates.fit import judge
from fleet.kit.commands import Commands, fail, or_journal, when_answers
from fleet.kit.refuse import refusal
from fleet.ollama.servers import instances_of


@operation()
def judge_memory(me: FleetHost, *, final: bool) -> Commands:
    """Fail this host, and change nothing on it, when a declared model does not fit.

    Where the GPUs do not tell their memory yet, nothing is judged; with `final` that is a warning.
    Decided when the step is executed: the driver that tells may be of this very run.
    """
    try:
        budgets = gates.budgets(me, host.get_fact)
    except gates.UnknownMemoryError as error:
        text = f"{error}: whether the models fit was not judged"
        if final:
            host.log(text, log_func=logger.warning)
        else:
            host.noop(text)
        return
    verdict = judge(
        budgets, gates.candidates(me, host.get_fact), gates.offloaded(me, host.get_fact)
    )
    # Before the last judgement a bare host has no curl yet to ask a registry with.
    for note in verdict.notes if final else ():
        host.log(note)
    if verdict.refusals:
        text = "\n".join(f"{host.name}: {line}" for line in verdict.refusals)
        yield fail(text) if final else refusal(text)


@operation()
def restart_too_early(me: FleetHost) -> Commands:
    """Restart servers that looked for their GPUs before these were there, once a run.

    A fabric manager that was mended, or nodes that were made since: Ollama looks only when it
    starts. Whether it finds them then is judged by `judge_placement`.
    """
    for item in gates.too_early(me, host.get_fact):
        host.log(f"{item.unit} started before its GPUs were there; restarting it")
        yield or_journal(StringCommand("systemctl restart", QuoteString(item.unit)), item.unit)
        yield or_journal(when_answers(f"{item.url}/api/version", seconds=60), item.unit)


@operation()
def judge_placement(me: FleetHost) -> Commands:
    """Fail this host when a loaded model is not where it is declared to be, with the evidence."""
    wanting = gates.on_gpu(me, host.get_fact)
    for item in instances_of(me):
        if item not in wanting:
            host.log(f"{item.unit}: {gates.why_on_cpu(me, item)}")
    if texts := gates.misplaced(me, host.get_fact):
        yield fail("\n".join(f"{host.name}: {text}" for text in texts))
