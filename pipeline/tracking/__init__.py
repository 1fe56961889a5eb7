"""Delivery of journals and artifact folders to MLflow: one row per pipeline state, updated live while a stage runs.

Only `store.py` imports MLflow, and only when there is something to send. There are two entry points: `follow` sends the
points of a running stage from a separate process; `publish_row` completes and closes the row from the folders of all
stages. `serve_ui` shows the table in a browser.
"""

from pipeline.tracking.publish import publish_row
from pipeline.tracking.spec import FollowSpec, RowSpec, store_uri
from pipeline.tracking.ui import serve_ui

__all__ = ["FollowSpec", "RowSpec", "publish_row", "serve_ui", "store_uri"]
