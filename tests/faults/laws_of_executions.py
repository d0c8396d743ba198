"""What executions of jobs are promised, whatever is killed but their own keeper."""

import collections


class Execution:
    """What was seen of one execution."""

    def __init__(self, name, count):
        self.name, self.count = name, count
        self.ends = []
        # By task: how often it had been retried when the API first called it succeeded.
        self.succeeded = {}
        self.unsaid = []
        # By task and attempt: the processes that ran it.
        self.processes = collections.defaultdict(set)


def judge(lines):
    """The broken promises of a history."""
    executions = {}
    for word, *rest in lines:
        if word == "execution":
            name, count = rest
            executions.setdefault(name, Execution(name, int(count)))
        elif word == "state":
            name, task, state, retried = rest
            follow(executions[name], int(task), state, int(retried))
        elif word == "ended":
            name, *counts = rest
            executions[name].ends.append(tuple(int(count) for count in counts))
        elif word == "begin":
            name, task, attempt, nonce = rest
            executions[name].processes[int(task), int(attempt)].add(nonce)
    for execution in executions.values():
        yield from ends(execution)
        yield from attempts(execution)


def follow(execution, task, state, retried):
    """What the API says of a task."""
    if state == "Succeeded":
        execution.succeeded.setdefault(task, retried)
    if task in execution.succeeded and (state, retried) != ("Succeeded", execution.succeeded[task]):
        execution.unsaid.append((task, state, retried))


def ends(execution):
    """It ends once, with every task succeeded, and what was said once stays said."""
    name, good = execution.name, (execution.count, 0, 0)
    if not execution.ends:
        yield f"unfinished: execution {name} never ended"
    for end in sorted(set(execution.ends) - {good}):
        yield f"miscounted: execution {name} ended with {end}, not with {good}"
    for task, state, retried in execution.unsaid:
        yield f"unsaid: task {task} of {name} had succeeded, and was then {state} and retried {retried} times"


def attempts(execution):
    """Every task runs, each attempt once, and none after the one that succeeded."""
    name = execution.name
    ran = {task for task, _ in execution.processes}
    for task in sorted(set(range(execution.count)) - ran):
        yield f"not run: task {task} of {name} never ran"
    for (task, attempt), nonces in sorted(execution.processes.items()):
        if len(nonces) > 1:
            yield f"ran twice: attempt {attempt} of task {task} of {name} ran in {len(nonces)} processes"
        if attempt > execution.succeeded.get(task, attempt):
            yield f"ran again: attempt {attempt} of task {task} of {name} began though an earlier one had succeeded"
