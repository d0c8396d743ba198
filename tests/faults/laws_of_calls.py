"""What Cloud Scheduler, Cloud Tasks, and whoever creates something, are promised, whatever is killed."""


def judge(lines):
    """The broken promises of a history."""
    yield from scheduled_runs(lines)
    yield from tasks(lines)
    yield from resources(lines)


def scheduled_runs(lines):
    """A run that was promised comes, and it comes after it was asked for."""
    asked_at, last_run, promised = {}, {}, []
    for at, (word, *rest) in enumerate(lines):
        if word == "ask":
            asked_at[tuple(rest)] = at
        elif word == "asked":
            promised.append(tuple(rest))
        elif word == "ran":
            last_run[rest[0]] = at
    jobs = {job for job, _ in asked_at}
    for job in sorted(set(last_run) - jobs):
        yield f"unasked: job {job} ran, and nobody asked it to"
    for job, number in promised:
        if last_run.get(job, -1) < asked_at[job, number]:
            yield f"forgotten: run {number} of job {job} was promised and never came"


def tasks(lines):
    """A task that was accepted is done."""
    told = {word: {rest[0] for w, *rest in lines if w == word} for word in ("add", "added", "did")}
    for task in sorted(told["added"] - told["did"]):
        yield f"lost: task {task} was accepted and never done"
    for task in sorted(told["did"] - told["add"]):
        yield f"unasked: task {task} came, and nobody added it"


def resources(lines):
    """What was created is there, unless somebody asked for its end; what was deleted is not."""
    told = {word: {tuple(rest) for w, *rest in lines if w == word} for word in ("make", "made", "drop", "dropped", "there")}
    for kind, name in sorted(told["made"] - told["drop"] - told["there"]):
        yield f"lost: {kind} {name} was created and is not there"
    for kind, name in sorted(told["dropped"] & told["there"]):
        yield f"undead: {kind} {name} was deleted and is there"
    for kind, name in sorted(told["there"] - told["make"]):
        yield f"unasked: {kind} {name} is there, and nobody created it"
