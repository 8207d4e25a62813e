"""Results on disk or behind a URL: whole or not there."""

from armillary.store.files import Place as Place
from armillary.store.files import StoreError as StoreError
from armillary.store.files import is_local as is_local
from armillary.store.files import place as place
from armillary.store.files import read_text as read_text
from armillary.store.files import write_text as write_text
from armillary.store.files import write_whole as write_whole
from armillary.store.runs import last_runs as last_runs
from armillary.store.runs import open_run as open_run
from armillary.store.runs import read_trajectories as read_trajectories
from armillary.store.runs import run_name as run_name
from armillary.store.runs import write_trajectories as write_trajectories
