"""A Hydra launcher that runs the jobs of a sweep in Slurm: submitit's, with another way to see that a job is gone.

Hydra imports every plugin at each start, so submitit is imported late.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SlurmLauncher(Launcher):
    """Each batch of jobs is one array of tasks."""

    def __init__(self, **settings: Any) -> None:
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher as Submitit

        self.submitit = Submitit(**settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what every job needs."""
        self.submitit.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit the jobs, and wait for them. Raises what submitit raises when all have ended, if one was killed."""
        from pipeline.harness.slurm import watching_queue

        with watching_queue():
            return list(self.submitit.launch(job_overrides, initial_job_idx))
