"""Order: which record comes when, as pure functions of (seed, epoch, position). No files, no clock.

`permutation.py` the shuffle itself · `epoch.py` the plan of one pass over all bins, and its shares and batches ·
`sampling.py` drawing some of many.
"""

from splitpipe.order.epoch import Run as Run
from splitpipe.order.epoch import cut as cut
from splitpipe.order.epoch import plan_epoch as plan_epoch
from splitpipe.order.epoch import share as share
from splitpipe.order.permutation import permutation as permutation
from splitpipe.order.sampling import choices as choices
from splitpipe.order.sampling import sample as sample

__all__ = ("Run", "choices", "cut", "permutation", "plan_epoch", "sample", "share")
