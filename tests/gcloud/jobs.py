"""Jobs, executions, tasks and worker pools, command by command, with the unmodified gcloud."""

import time

from telling import Failed, expect

# A program as small as can be that ends: with the code that its argument says, after saying what it was told.
WORK = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
  const char *index = getenv("CLOUD_RUN_TASK_INDEX"), *a = getenv("A");
  printf("task %s of %s says %s, A=%s\n", index ? index : "-", getenv("CLOUD_RUN_TASK_COUNT"), argc > 1 ? argv[1] : "nothing", a ? a : "unset");
  fflush(stdout);
  if (argc > 1 && !strcmp(argv[1], "stay")) for (;;) pause();
  return argc > 1 ? atoi(argv[1]) : 0;
}
"""


def conditions(thing):
    """The conditions of a resource, by type."""
    return {c["type"]: c for c in thing["status"]["conditions"]}


def last_execution(gcloud, job):
    """The name of the newest execution of a job."""
    return gcloud.json(f"run jobs describe {job}")["status"]["latestCreatedExecution"]["name"]


def story(gcloud, image, folder):
    """A job's life."""
    gcloud.run("run jobs describe etl", fails="Cannot find job")
    gcloud.run(f"run jobs create etl --image={image} --tasks=20000", fails="taskCount.*10000")
    gcloud.run("run jobs describe etl", fails="Cannot find job")
    gcloud.run(f"run jobs create etl --image={image} --tasks=3 --max-retries=1 --task-timeout=2m --set-env-vars=A=1"
               " --memory=256Mi --cpu=1 --parallelism=2 --labels=team=blue")
    gcloud.run(f"run jobs create etl --image={image}", fails="already exists")
    job = gcloud.json("run jobs describe etl")
    expect("Ready", conditions(job)["Ready"]["status"], "True")
    spec = job["spec"]["template"]["spec"]
    expect("tasks", (spec["taskCount"], spec["parallelism"]), (3, 2))
    task = spec["template"]["spec"]
    expect("task", (task["maxRetries"], str(task["timeoutSeconds"])), (1, "120"))
    expect("executions", job["status"].get("executionCount", 0), 0)

    # Running it: to the start, to the end, without waiting, with other settings, and into a wall.
    gcloud.run("run jobs execute etl")
    text = gcloud.run("run jobs execute etl --wait --format=value(metadata.name)")
    name = text.strip().splitlines()[-1]
    done = gcloud.json(f"run jobs executions describe {name}")
    expect("Completed", conditions(done)["Completed"]["status"], "True")
    expect("succeeded", done["status"]["succeededCount"], 3)
    expect("label", done["metadata"]["labels"]["run.googleapis.com/job"], "etl")
    gcloud.run("run jobs execute etl --async")
    gcloud.run("run jobs execute etl --wait --tasks=1 --args=0 --update-env-vars=A=2 --task-timeout=30s")
    name = last_execution(gcloud, "etl")
    other = gcloud.json(f"run jobs executions describe {name}")
    expect("tasks of this run", other["spec"]["taskCount"], 1)
    gcloud.run("run jobs execute etl --wait --tasks=1 --args=7", fails="The execution failed")
    name = last_execution(gcloud, "etl")
    failed = gcloud.json(f"run jobs executions describe {name}")
    expect("Completed", conditions(failed)["Completed"]["status"], "False")
    expect("failed, retried", (failed["status"]["failedCount"], failed["status"]["retriedCount"]), (1, 1))
    tasks = gcloud.json(f"run jobs executions tasks list --execution={name}")
    expect("exit code", tasks[0]["status"]["lastAttemptResult"]["exitCode"], 7)
    expect("retried", tasks[0]["status"]["retried"], 1)
    gcloud.run(f"run jobs executions tasks list --execution={name}")
    gcloud.run(f"run jobs executions tasks list --execution={name} --failed")
    expect("none succeeded", gcloud.json(f"run jobs executions tasks list --execution={name} --succeeded"), [])
    task = tasks[0]["metadata"]["name"]
    text = gcloud.run(f"run jobs executions tasks describe {task}")
    if "Exit Code" not in text or "7" not in text:
        raise Failed(f"no exit code:\n{text}")
    gcloud.run("run jobs executions describe missing", fails="Cannot find execution")
    gcloud.run(f"run jobs executions describe {name}")

    names = {e["metadata"]["name"] for e in gcloud.json("run jobs executions list --job=etl")}
    expect("executions", len(names), 5)
    gcloud.run("run jobs executions list")
    gcloud.run("run jobs list")
    gcloud.run("run jobs list --region=us-central1")
    gcloud.run("run jobs describe etl")
    for _ in range(50):
        text = gcloud.run("run jobs logs read etl --limit=50")
        if "says 7, A=1" in text and "A=2" in text:
            break
        time.sleep(0.5)
    else:
        raise Failed(f"not in the log:\n{text}")
    if "says 7" not in gcloud.run(f"beta run jobs executions logs read {name}"):
        raise Failed("not in the log of the execution")
    # That command leaves out what the platform says.
    said = gcloud.json('logging read textPayload:"exit(7)"')
    expect("exits in the log", {(e["resource"]["type"], e["labels"]["run.googleapis.com/execution_name"]) for e in said},
           {("cloud_run_job", name)})

    # Cancelling and deleting.
    gcloud.run("run jobs execute etl --args=stay --async")
    name = last_execution(gcloud, "etl")
    gcloud.run(f"run jobs executions cancel {name}")
    for _ in range(100):
        cancelled = gcloud.json(f"run jobs executions describe {name}")
        if "completionTime" in cancelled["status"]:
            break
    expect("Completed", conditions(cancelled)["Completed"]["status"], "False")
    expect("cancelled", cancelled["status"]["cancelledCount"], 3)
    gcloud.run(f"run jobs executions delete {name}")
    gcloud.run(f"run jobs executions describe {name}", fails="Cannot find execution")

    # Changing it.
    gcloud.run("run jobs update etl --tasks=1 --update-env-vars=B=2 --clear-labels")
    job = gcloud.json("run jobs describe etl")
    expect("tasks", job["spec"]["template"]["spec"]["taskCount"], 1)
    env = job["spec"]["template"]["spec"]["template"]["spec"]["containers"][0]["env"]
    expect("environment", {e["name"]: e["value"] for e in env}, {"A": "1", "B": "2"})
    gcloud.run("run jobs update etl --max-retries=11", fails="maxRetries")
    gcloud.run(f"run jobs deploy etl --image={image} --tasks=2")
    gcloud.run(f"run jobs deploy other --image={image} --execute-now --wait")
    exported = gcloud.run("run jobs describe etl --format=export")
    file = folder / "job.yaml"
    file.write_text(exported.replace("taskCount: 2", "taskCount: 4"))
    gcloud.run(f"run jobs replace {file}")
    job = gcloud.json("run jobs describe etl")
    expect("replaced", job["spec"]["template"]["spec"]["taskCount"], 4)
    file.write_text(exported.replace("taskCount: 2", "taskCount: 20000"))
    gcloud.run(f"run jobs replace {file}", fails="taskCount")

    who = "--member=user:ann@example.com --role=roles/run.invoker"
    gcloud.run(f"run jobs add-iam-policy-binding etl {who}")
    policy = gcloud.json("run jobs get-iam-policy etl")
    expect("members", policy["bindings"][0]["members"], ["user:ann@example.com"])
    gcloud.run(f"run jobs remove-iam-policy-binding etl {who}")

    gcloud.run("run jobs delete etl")
    gcloud.run("run jobs describe etl", fails="Cannot find job")
    gcloud.run("run jobs delete etl", fails="could not be found|Cannot find|not found")
    gcloud.run("run jobs execute etl", fails="etl")
    gcloud.run("run jobs delete other")


POOL = """\
apiVersion: run.googleapis.com/v1
kind: WorkerPool
metadata:
  name: puller
  annotations:
    run.googleapis.com/manualInstanceCount: '2'
spec:
  template:
    spec:
      containers:
      - image: IMAGE
        args: [stay]
"""


def pools(gcloud, image, folder):
    """What gcloud does with worker pools: from YAML over REST, with flags over gRPC."""
    file = folder / "pool.yaml"
    gcloud.run("beta run worker-pools describe puller", fails="Cannot find WorkerPool|puller")
    file.write_text(POOL.replace("IMAGE", image))
    gcloud.run(f"beta run worker-pools replace {file}")
    pool = gcloud.json("beta run worker-pools describe puller")
    expect("Ready", conditions(pool)["Ready"]["status"], "True")
    gcloud.run("beta run worker-pools describe puller")
    gcloud.run("beta run worker-pools list")
    file.write_text(POOL.replace("IMAGE", image).replace("'2'", "'1'").replace("[stay]", "[stay, more]"))
    gcloud.run(f"beta run worker-pools replace {file}")
    revisions = gcloud.json("beta run worker-pools revisions list --worker-pool=puller")
    expect("revisions", len(revisions), 2)
    names = [r["metadata"]["name"] for r in gcloud.json("run revisions list")]
    expect("workers among the services' revisions", [name for name in names if name.startswith("puller-")], [])
    file.write_text(POOL.replace("IMAGE", image).replace("'2'", "'2000'"))
    gcloud.run(f"beta run worker-pools replace {file}", fails="manualInstanceCount")

    # With flags.
    gcloud.run(f"beta run worker-pools deploy other --image={image} --args=stay --scaling=3 --revision-suffix=one")
    gcloud.run("beta run worker-pools update other --update-env-vars=A=1 --scaling=4 --no-promote --revision-suffix=two")
    pool = gcloud.json("beta run worker-pools describe other")
    expect("instances", pool["metadata"]["annotations"]["run.googleapis.com/manualInstanceCount"], "4")
    expect("not promoted", splits(pool), {"other-one": 100})
    gcloud.run("beta run worker-pools update-instance-split other --to-revisions=other-one=25,other-two=75")
    expect("divided", splits(gcloud.json("beta run worker-pools describe other")), {"other-one": 25, "other-two": 75})
    gcloud.run("beta run worker-pools update-instance-split other --to-latest")
    gcloud.run("beta run worker-pools revisions describe other-one")
    gcloud.run("beta run worker-pools revisions delete other-one --worker-pool=other")
    revisions = gcloud.json("beta run worker-pools revisions list --worker-pool=other")
    expect("what is left", [r["metadata"]["name"] for r in revisions], ["other-two"])
    text = gcloud.run("alpha run worker-pools logs read other --limit=50")
    if "says stay, A=1" not in text:
        raise Failed(f"not in the log:\n{text}")
    gcloud.run("beta run worker-pools delete other")
    gcloud.run("beta run worker-pools describe other", fails="other")


def splits(pool):
    """The shares of the instances, by revision."""
    return {split["revisionName"]: split["percent"] for split in pool["status"]["instanceSplits"]}
