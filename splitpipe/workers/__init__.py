"""Workers: the processes that run the user's generator. Knows nothing of records.

`job.py` what is to be run, and getting it to a process · `places.py` how far each lane has come · `lanes.py` the
generators of some lanes in turn · `randomness.py` the global random generators of a lane · `child.py` what a worker
process does · `process.py` start, watch, stop one process · `member.py` a process and its channel · `failures.py` an
exception on its way from one process to another · `resources.py` what memory and cores there are · `trace.py` a
timeline · `team.py` all workers of a pipeline · `threads.py`, `inline.py` the same with threads, and with nothing at
all.
"""

from splitpipe.workers.inline import InlineTeam as InlineTeam
from splitpipe.workers.job import Job as Job
from splitpipe.workers.places import Places as Places
from splitpipe.workers.team import Team as Team
from splitpipe.workers.team import TeamOptions as TeamOptions
from splitpipe.workers.threads import ThreadTeam as ThreadTeam

__all__ = ("InlineTeam", "Job", "Places", "Team", "TeamOptions", "ThreadTeam")
