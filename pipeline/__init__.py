"""The library behind the stages: data, models, learning, evaluation and reports."""

import os

# Threads that wait for each other sleep: by default they spin, and two runs on the same cores then take ten times as
# long. It must be set before torch loads OpenMP; alone, a run is as fast as before (benchmarks/neighbours.py).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
