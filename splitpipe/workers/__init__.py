"""Workers: the processes that run the user's generator. Knows nothing of records.

`job.py` what is to be run, and getting it to a process · `lanes.py` the generators of some lanes in turn · `child.py`
what a worker process does · `process.py` start, watch, stop one process · `failures.py` an exception on its way from
one process to another · `team.py` all workers of a pipeline · `inline.py` the same without any process.
"""

from splitpipe.workers.inline import InlineTeam as InlineTeam
from splitpipe.workers.job import Job as Job
from splitpipe.workers.team import Team as Team

__all__ = ("InlineTeam", "Job", "Team")
