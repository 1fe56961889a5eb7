"""Delivery of journals and artifact folders to MLflow: one row per pipeline state, updated live while a stage runs.

Only `store.py` imports MLflow, and only when there is something to send. There are three entry points: `follow` sends
the points of a running stage from a separate process, and ends the row of one that stops; `publish_row` completes and
closes the row from the folders of all stages; `open_rows` finds and ends rows that a kill left open. `serve_ui` shows
the table in a browser.
"""

from pipeline.tracking.publish import publish_row
from pipeline.tracking.spec import Dataset, FollowSpec, RowSpec, store_uri
from pipeline.tracking.ui import serve_ui

__all__ = ["Dataset", "FollowSpec", "RowSpec", "publish_row", "serve_ui", "store_uri"]
