"""The names of all that a fleet keeps in NATS: streams, buckets, consumers, subjects. Pure.

comfypin.jobs.<class>.<priority>.<release>.<job>.<run>    a ticket: somebody may run this job (stream COMFYPIN_JOBS)
comfypin.wake.<class>.<release>     one of the workers that idle should look for tickets
comfypin.progress.<job>             what a job tells while it runs
comfypin.preview.<job>              a picture of what it makes
comfypin.watched                    somebody looks at previews
comfypin.cancel.<job>               whoever runs this job should stop
comfypin.dead                       which jobs were given up, asked of any server
"""

import re
from dataclasses import dataclass

from comfypin.queue.interface import PRIORITIES, Priority

ANY_CLASS = "any"
"""The class of jobs that any worker may run."""

JOBS_STREAM = "COMFYPIN_JOBS"
DEAD_STREAM = "COMFYPIN_DEAD"
JOB_SUBJECTS = "comfypin.jobs.>"
DEAD_SUBJECTS = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{JOBS_STREAM}.>"
WATCHED = "comfypin.watched"
DEAD_JOBS = "comfypin.dead"

RECORDS = "comfypin_jobs"
BODIES = "comfypin_bodies"
WORKERS = "comfypin_workers"
RELEASES = "comfypin_releases"
KEYS = "comfypin_keys"
LEASES = "comfypin_leases"
CONTROL = "comfypin_control"

RELEASE_LETTERS = 16
_CLASS = re.compile(r"[A-Za-z0-9-]{1,40}")


def is_class_name(class_text: str) -> bool:
    """Return whether a text may name a class of workers."""
    return _CLASS.fullmatch(class_text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """The jobs of one class, priority and release, which wait in one line.

    A work-queue stream refuses consumers that overlap (error 10100), so each lane has one durable consumer.
    """

    release: str
    gpu_class: str = ANY_CLASS
    priority: Priority = "normal"

    @property
    def consumer(self) -> str:
        """Return the name of its consumer."""
        return f"{self.gpu_class}_{self.priority}_{self.release}"

    @property
    def subjects(self) -> str:
        """Return what all its tickets match."""
        return f"comfypin.jobs.{self.gpu_class}.{self.priority}.{self.release}.>"

    @property
    def wake_subject(self) -> str:
        """Return where idle workers hear of a new ticket."""
        return wake_subject(self.gpu_class, self.release)

    def ticket_subject(self, job_id: str, run: int) -> str:
        """Return the subject of a ticket: its own, so that there is one a run, and it can be taken away by name."""
        return f"comfypin.jobs.{self.gpu_class}.{self.priority}.{self.release}.{job_id}.{run}"


def job_of_ticket(subject: str) -> tuple[str, int]:
    """Return the job and the run that a ticket is for."""
    *_, job_id, run = subject.split(".")
    return job_id, int(run)


def release_of_ticket(subject: str) -> str:
    """Return the release that a ticket is for."""
    return subject.split(".")[4]


def class_of_ticket(subject: str) -> str:
    """Return the class of workers that a ticket is for."""
    return subject.split(".")[2]


def lanes_of_worker(release: str, gpu_class: str) -> tuple[Lane, ...]:
    """Return the lanes that a worker of this class serves for a release, most urgent first."""
    classes = (ANY_CLASS,) if gpu_class == ANY_CLASS else (gpu_class, ANY_CLASS)
    return tuple(
        Lane(release=release, gpu_class=lane_class, priority=priority)
        for priority in PRIORITIES
        for lane_class in classes
    )


def wake_subject(gpu_class: str, release: str) -> str:
    """Return where idle workers of a class hear of a new ticket for a release."""
    return f"comfypin.wake.{gpu_class}.{release}"


def progress_subject(job_id: str) -> str:
    """Return where a job tells its progress."""
    return f"comfypin.progress.{job_id}"


def preview_subject(job_id: str) -> str:
    """Return where a job shows its previews."""
    return f"comfypin.preview.{job_id}"


def cancel_subject(job_id: str) -> str:
    """Return where whoever runs a job hears that it should stop."""
    return f"comfypin.cancel.{job_id}"
