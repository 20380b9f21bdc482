"""Order: which record comes when, as pure functions of (seed, epoch, position). No files, no clock.

`permutation.py` the shuffle itself · `epoch.py` the plan of one pass over all bins, cut into batches · `ranks.py` who
does which part of it · `sampling.py` drawing some of many.
"""

from splitpipe.order.epoch import Run as Run
from splitpipe.order.epoch import cut as cut
from splitpipe.order.epoch import plan_epoch as plan_epoch
from splitpipe.order.permutation import permutation as permutation
from splitpipe.order.ranks import lane_share as lane_share
from splitpipe.order.ranks import rank_count as rank_count
from splitpipe.order.ranks import wrapped as wrapped
from splitpipe.order.sampling import choices as choices
from splitpipe.order.sampling import sample as sample

__all__ = ("Run", "choices", "cut", "lane_share", "permutation", "plan_epoch", "rank_count", "sample", "wrapped")
