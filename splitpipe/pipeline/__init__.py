"""Pipeline: a generator function run in worker processes, its items consumed here, epoch after epoch.

`pipeline.py` MpQItr · `options.py` what may be said of one, checked · `ranks.py` which of several main processes this
is · `state.py` its place, to be saved and resumed · `stats.py` what it did, in figures and a verdict in words ·
`warning.py`
for lanes that all do the same · `bar.py` the figures as a progress bar.
"""

from splitpipe.pipeline.pipeline import MpQItr as MpQItr
from splitpipe.pipeline.ranks import find_rank as find_rank
from splitpipe.pipeline.stats import PipelineStats as PipelineStats
from splitpipe.pipeline.stats import WorkerStats as WorkerStats

__all__ = ("MpQItr", "PipelineStats", "WorkerStats", "find_rank")
