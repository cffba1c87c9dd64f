"""Stands for a decoder that hangs on one file and dies on another: a light import."""

import os
import signal
import time

from vidadapt.data.frame_index import Counted, Job, count_file


def count(job: Job) -> Counted:
    """Hang on b.webm, die on sub/c.avi, and decode anything else."""
    if job.stamp.path == "b.webm":
        time.sleep(1000)
    if job.stamp.path == "sub/c.avi":
        os.kill(os.getpid(), signal.SIGSEGV)
    return count_file(job)
