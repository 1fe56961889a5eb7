"""`python -m stages > dvc.yaml`: write the pipeline as its stages declare it. A test compares the two."""

from pipeline.harness.dag import render
from stages.registry import ALL

if __name__ == "__main__":
    print(render(ALL), end="")
