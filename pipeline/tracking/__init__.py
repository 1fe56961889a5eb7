"""Delivery of journals and artifact folders to MLflow: one row per pipeline state, live while a stage runs.

Only `store.py` imports MLflow, and only when something has to be sent. Two entry points: `follow` sends a running
stage's points from a process of its own, `publish_row` completes and closes the row from the folders of all stages.
"""

from pipeline.tracking.publish import publish_row
from pipeline.tracking.spec import FollowSpec, RowSpec, store_uri

__all__ = ["FollowSpec", "RowSpec", "publish_row", "store_uri"]
