"""Order: which record comes when, as pure functions of (seed, epoch, position). No files, no clock.

`permutation.py` holds the shuffle itself, `epoch.py` the plan of one pass over all bins for one lane.
"""

from splitpipe.order.epoch import Run as Run
from splitpipe.order.epoch import plan_epoch as plan_epoch
from splitpipe.order.permutation import permutation as permutation

__all__ = ("Run", "permutation", "plan_epoch")
