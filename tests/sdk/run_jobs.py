#!/usr/bin/env python3
"""Jobs, executions, tasks and worker pools with the unmodified google-cloud-run client of PyPI, over REST and over gRPC, against a whole
platform, so that what is run does run.

    LAUF_BIN=target/debug/lauf tests/sdk/run_jobs.py
"""

import pathlib
import sys
import time
import traceback

from google.api_core import exceptions
from google.cloud import run_v2
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.protobuf import duration_pb2, field_mask_pb2

from clients import PARENT, WAIT, expect, fails, make

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "platform"))
import jobs  # noqa: E402
from platform_under_test import Platform, until  # noqa: E402
from pools import workers  # noqa: E402

Overrides = run_v2.RunJobRequest.Overrides
# What is an AlreadyExists, an Aborted, an InvalidArgument over gRPC is one of these, and over REST no more than that.
TAKEN, WRONG = exceptions.Conflict, exceptions.BadRequest
SUCCEEDED = run_v2.Condition.State.CONDITION_SUCCEEDED
FAILED = run_v2.Condition.State.CONDITION_FAILED


class Told:
    """A platform, clients of it over one transport, and names that no other transport uses."""

    def __init__(self, platform, transport):
        self.platform, self.transport = platform, transport
        address = f"127.0.0.1:{platform.port}"
        self.jobs, self.executions, self.tasks, self.pools, self.revisions = (
            make(kind, transport, address, platform.token)
            for kind in (run_v2.JobsClient, run_v2.ExecutionsClient, run_v2.TasksClient, run_v2.WorkerPoolsClient,
                         run_v2.RevisionsClient)
        )
        self.id, self.pool_id = f"etl-{transport}", f"puller-{transport}"
        self.job, self.pool = f"{PARENT}/jobs/{self.id}", f"{PARENT}/workerPools/{self.pool_id}"

    def run(self, *args, tasks=0):
        """Runs the job with other arguments; the operation."""
        overrides = Overrides(task_count=tasks, container_overrides=[Overrides.ContainerOverride(args=args)])
        return self.jobs.run_job(request=run_v2.RunJobRequest(name=self.job, overrides=overrides))


def wanted():
    """A job with something in every part of it."""
    return run_v2.Job(
        labels={"team": "a"},
        template=run_v2.ExecutionTemplate(
            labels={"team": "a"}, parallelism=2, task_count=3,
            template=run_v2.TaskTemplate(
                max_retries=1, timeout=duration_pb2.Duration(seconds=90),
                execution_environment=run_v2.ExecutionEnvironment.EXECUTION_ENVIRONMENT_GEN2,
                containers=[run_v2.Container(
                    image="work", args=["end", "1"], env=[run_v2.EnvVar(name="A", value="1")],
                    resources=run_v2.ResourceRequirements(limits={"cpu": "1", "memory": "128Mi"}),
                )],
            ),
        ),
    )


def create_job(told):
    """create a job, and get it: every field comes back"""
    made = told.jobs.create_job(parent=PARENT, job=wanted(), job_id=told.id)
    expect(made.metadata.name == told.job, made.metadata)
    expect(made.result(timeout=WAIT).terminal_condition.state == SUCCEEDED, made.result())
    got = told.jobs.get_job(name=told.job)
    expect(got.template == wanted().template and got.labels == {"team": "a"}, got)
    expect(got.execution_count == 0 and got.generation == 1 and got.uid and got.etag, got)
    fails(TAKEN, lambda: told.jobs.create_job(parent=PARENT, job=wanted(), job_id=told.id))


def wrong_jobs(told):
    """what is wrong is refused with the field's name, in the words of v2"""
    for field, change in (
        ("template.task_count", lambda t: setattr(t, "task_count", 10_001)),
        ("template.template.max_retries", lambda t: setattr(t.template, "max_retries", 11)),
        ("template.template.timeout", lambda t: setattr(t.template, "timeout", duration_pb2.Duration(seconds=604_801))),
        ("template.template.containers[0].env[0].name", lambda t: setattr(t.template.containers[0].env[0], "name", "CLOUD_RUN_JOB")),
    ):
        job = wanted()
        change(job.template)
        error = fails(WRONG, lambda: told.jobs.create_job(parent=PARENT, job=job, job_id="wrong"))
        # Over REST the client gives the details as they came, within its message.
        if told.transport == "grpc":
            expect([v.field for v in error.details[0].field_violations] == [field], error)
        expect(f"{field}: " in error.message, error)
    fails(exceptions.NotFound, lambda: told.jobs.get_job(name=f"{PARENT}/jobs/wrong"))


def run_job(told):
    """run it: the operation ends with the execution, and the tasks are there"""
    running = told.jobs.run_job(name=told.job)
    expect(running.metadata.job == told.id, running.metadata)
    done = running.result(timeout=WAIT)
    expect((done.succeeded_count, done.failed_count, done.task_count) == (3, 0, 3), done)
    expect(done.name == running.metadata.name and done.completion_time, done)
    tasks = list(told.tasks.list_tasks(parent=done.name))
    expect(sorted(task.index for task in tasks) == [0, 1, 2], tasks)
    task = told.tasks.get_task(name=tasks[0].name)
    expect(task.execution == done.name.rsplit("/", 1)[-1] and task.job == told.id, task)
    expect(task.last_attempt_result.exit_code == 0 and task.retried == 0 and task.completion_time, task)
    completed = next(c for c in task.conditions if c.type_ == "Completed")
    expect(completed.state == SUCCEEDED, task)

    def known():
        latest = told.jobs.get_job(name=told.job).latest_created_execution
        return latest.name == done.name.rsplit("/", 1)[-1] and latest.completion_time
    until("the job knows of it", WAIT, known)


def overrides(told):
    """other arguments, variables, tasks and time for one run"""
    overrides = Overrides(
        task_count=1, timeout=duration_pb2.Duration(seconds=7),
        container_overrides=[Overrides.ContainerOverride(args=["say", "other"], env=[run_v2.EnvVar(name="A", value="2")])],
    )
    done = told.jobs.run_job(request=run_v2.RunJobRequest(name=told.job, overrides=overrides)).result(timeout=WAIT)
    container = done.template.containers[0]
    expect(list(container.args) == ["say", "other"] and container.env[0].value == "2", done)
    expect(done.task_count == 1 and done.template.timeout.seconds == 7, done)
    expect(told.jobs.get_job(name=told.job).template == wanted().template, "the job changed")


def failing(told):
    """a run that fails: the operation says so, the tasks say how"""
    running = told.run("never", "7", tasks=2)
    error = fails(exceptions.GoogleAPICallError, lambda: running.result(timeout=WAIT))
    expect("exit code: 7" in error.message, error)
    execution = told.executions.get_execution(name=running.metadata.name)
    expect((execution.failed_count, execution.retried_count) == (2, 2), execution)
    completed = next(c for c in execution.conditions if c.type_ == "Completed")
    expect(completed.state == FAILED, execution)
    expect(completed.execution_reason == run_v2.Condition.ExecutionReason.NON_ZERO_EXIT_CODE, completed)
    for task in told.tasks.list_tasks(parent=execution.name):
        expect(task.last_attempt_result.exit_code == 7 and task.retried == 1, task)


def cancel(told):
    """cancel an execution that runs; one that has ended cannot be cancelled"""
    running = told.run("stay", tasks=1)
    name = running.metadata.name
    until("it runs", WAIT, lambda: told.executions.get_execution(name=name).running_count == 1)
    done = told.executions.cancel_execution(name=name).result(timeout=WAIT)
    expect(done.cancelled_count == 1, done)
    fails(exceptions.GoogleAPICallError, lambda: running.result(timeout=WAIT))
    fails(WRONG, lambda: told.executions.cancel_execution(name=name))


def lists(told):
    """lists in pages, of one job and of all; a deleted execution is gone with its tasks"""
    pages = told.executions.list_executions(request=run_v2.ListExecutionsRequest(parent=told.job, page_size=1))
    sizes = [len(page.executions) for page in pages.pages]
    expect(sizes == [1] * 4, sizes)
    names = {execution.name for execution in told.executions.list_executions(parent=told.job)}
    everywhere = {execution.name for execution in told.executions.list_executions(parent=f"{PARENT}/jobs/-")}
    expect(len(names) == 4 and names <= everywhere, everywhere)
    expect(told.job in {job.name for job in told.jobs.list_jobs(parent=PARENT)}, "not in the list")
    victim = sorted(names)[0]
    expect(list(told.tasks.list_tasks(parent=victim)), "tasks")
    told.executions.delete_execution(name=victim).result(timeout=WAIT)
    fails(exceptions.NotFound, lambda: told.executions.get_execution(name=victim))
    expect(not [t for t in told.tasks.list_tasks(parent=f"{told.job}/executions/-") if t.name.startswith(f"{victim}/")], "tasks")


def update_job(told):
    """change a job as it was read; an old etag is refused; a check changes nothing"""
    job = told.jobs.get_job(name=told.job)
    old = job.etag
    job.template.task_count = 5
    now = told.jobs.update_job(job=job).result(timeout=WAIT)
    expect(now.template.task_count == 5 and now.generation == 2 and now.execution_count == 4, now)
    job.etag = old
    fails(TAKEN, lambda: told.jobs.update_job(job=job))
    now.template.task_count = 9
    told.jobs.update_job(request=run_v2.UpdateJobRequest(job=now, validate_only=True))
    expect(told.jobs.get_job(name=told.job).template.task_count == 5, "a check stored something")


def policy(told):
    """who may run it"""
    binding = policy_pb2.Binding(role="roles/run.invoker", members=["user:ann@example.com"])
    for client, resource in ((told.jobs, told.job), (told.pools, told.pool)):
        client.set_iam_policy(request=iam_policy_pb2.SetIamPolicyRequest(
            resource=resource, policy=policy_pb2.Policy(bindings=[binding])))
        got = client.get_iam_policy(request=iam_policy_pb2.GetIamPolicyRequest(resource=resource))
        expect(list(got.bindings) == [binding], got)
        asked = iam_policy_pb2.TestIamPermissionsRequest(resource=resource, permissions=["run.jobs.run"])
        expect(list(client.test_iam_permissions(request=asked).permissions) == ["run.jobs.run"], "permissions")


def delete_job(told):
    """delete a job with an execution that runs"""
    running = told.run("stay", tasks=2)
    until("it runs", WAIT, lambda: told.executions.get_execution(name=running.metadata.name).running_count == 2)
    gone = told.jobs.delete_job(name=told.job).result(timeout=WAIT)
    expect(gone.name == told.job, gone)
    fails(exceptions.NotFound, lambda: told.jobs.get_job(name=told.job))
    fails(exceptions.NotFound, lambda: told.executions.get_execution(name=running.metadata.name))
    fails(exceptions.NotFound, lambda: told.jobs.run_job(name=told.job))


def worker_pool(count=2):
    """A worker pool with so many instances."""
    return run_v2.WorkerPool(
        description="pulls", labels={"team": "a"},
        scaling=run_v2.WorkerPoolScaling(manual_instance_count=count),
        template=run_v2.WorkerPoolRevisionTemplate(containers=[run_v2.Container(
            image="work", args=["stay", "one"],
            resources=run_v2.ResourceRequirements(limits={"cpu": "1", "memory": "128Mi"}),
        )]),
    )


def instances(told, *words):
    """How many processes of the pool's there are, by what they were told."""
    return len(workers(told.platform, *words))


def create_pool(told):
    """create a worker pool, get it, and see its instances"""
    made = told.pools.create_worker_pool(parent=PARENT, worker_pool=worker_pool(), worker_pool_id=told.pool_id)
    done = made.result(timeout=WAIT)
    expect(done.terminal_condition.state == SUCCEEDED and done.latest_ready_revision, done)
    got = told.pools.get_worker_pool(name=told.pool)
    sent = worker_pool()
    expect(got.description == sent.description and got.labels == sent.labels and got.scaling == sent.scaling, got)
    expect(got.template.containers == sent.template.containers, got)
    expect([(s.percent, s.revision) for s in got.instance_split_statuses]
           == [(100, got.latest_ready_revision.rsplit("/", 1)[-1])], got)
    until("two run", WAIT, lambda: instances(told, "stay", "one") == 2)
    expect(told.pool in {pool.name for pool in told.pools.list_worker_pools(parent=PARENT)}, "not in the list")
    fails(TAKEN, lambda: told.pools.create_worker_pool(
        parent=PARENT, worker_pool=worker_pool(), worker_pool_id=told.pool_id))
    error = fails(WRONG, lambda: told.pools.create_worker_pool(
        parent=PARENT, worker_pool=worker_pool(1001), worker_pool_id="wrong"))
    expect("1001" in error.message, error)


def update_pool(told):
    """change the number alone, then the template: another revision takes over"""
    mask = field_mask_pb2.FieldMask(paths=["scaling.manual_instance_count"])
    change = run_v2.WorkerPool(name=told.pool, scaling=run_v2.WorkerPoolScaling(manual_instance_count=3))
    now = told.pools.update_worker_pool(worker_pool=change, update_mask=mask).result(timeout=WAIT)
    expect(now.scaling.manual_instance_count == 3 and now.description == "pulls", now)
    until("three run", WAIT, lambda: instances(told, "stay", "one") == 3)
    first = now.latest_ready_revision
    now.template.containers[0].args = ["stay", "two"]
    now = told.pools.update_worker_pool(worker_pool=now).result(timeout=WAIT)
    expect(now.latest_ready_revision != first, now)
    until("three of the new one, none of the old one", WAIT,
          lambda: (instances(told, "stay", "one"), instances(told, "stay", "two")) == (0, 3))
    revisions = {revision.name for revision in told.revisions.list_revisions(parent=told.pool)}
    expect(revisions == {first, now.latest_ready_revision}, revisions)
    expect(told.revisions.get_revision(name=first).containers[0].args == ["stay", "one"], "the first revision")


def split_pool(told):
    """divide the instances between revisions; one with a share cannot be deleted, one without can"""
    old = next(r.name.rsplit("/", 1)[-1] for r in told.revisions.list_revisions(parent=told.pool)
               if r.containers[0].args == ["stay", "one"])
    pool = told.pools.get_worker_pool(name=told.pool)
    pool.scaling.manual_instance_count = 4
    kind = run_v2.InstanceSplitAllocationType
    pool.instance_splits = [
        run_v2.InstanceSplit(type_=kind.INSTANCE_SPLIT_ALLOCATION_TYPE_REVISION, revision=old, percent=50),
        run_v2.InstanceSplit(type_=kind.INSTANCE_SPLIT_ALLOCATION_TYPE_LATEST, percent=50),
    ]
    now = told.pools.update_worker_pool(worker_pool=pool).result(timeout=WAIT)
    expect([split.percent for split in now.instance_split_statuses] == [50, 50], now)
    until("two and two", WAIT, lambda: (instances(told, "stay", "one"), instances(told, "stay", "two")) == (2, 2))
    taken = f"{told.pool}/revisions/{old}"
    error = fails(WRONG, lambda: told.revisions.delete_revision(name=taken))
    expect("has a share of the pool's instances" in error.message, error)
    pool = told.pools.get_worker_pool(name=told.pool)
    pool.instance_splits = []
    told.pools.update_worker_pool(worker_pool=pool).result(timeout=WAIT)
    told.revisions.delete_revision(name=taken).result(timeout=WAIT)
    expect(old not in {r.name.rsplit("/", 1)[-1] for r in told.revisions.list_revisions(parent=told.pool)}, "still there")
    until("four of the other", WAIT, lambda: (instances(told, "stay", "one"), instances(told, "stay", "two")) == (0, 4))


def delete_pool(told):
    """delete a worker pool: none of it is left"""
    gone = told.pools.delete_worker_pool(name=told.pool).result(timeout=WAIT)
    expect(gone.name == told.pool, gone)
    fails(exceptions.NotFound, lambda: told.pools.get_worker_pool(name=told.pool))
    expect(instances(told, "stay") == 0, "instances")


# Each goes on from where the one before it ended.
STORIES = [create_job, wrong_jobs, run_job, overrides, failing, cancel, lists, update_job, create_pool, policy, delete_job, update_pool,
           split_pool, delete_pool]


def main():
    """Runs the stories over each transport; the last line is their sum."""
    passed = failed = 0
    with Platform() as platform:
        jobs.pack(platform)
        for transport in ("rest", "grpc"):
            told = Told(platform, transport)
            for story in STORIES:
                began = time.monotonic()
                try:
                    story(told)
                    passed += 1
                    word = "ok"
                except Exception:  # The next story must still be told.
                    traceback.print_exc(limit=6)
                    failed += 1
                    word = "FAIL"
                took = time.monotonic() - began
                print(f"{word} {transport} {story.__name__}: {story.__doc__} ({took:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
