"""Transport: how an object gets from one worker to the main process. Knows nothing of records, lanes or processes.

`frames.py` an object as a pickle and the buffers beside it · `slots.py` the shared memory that buffers travel in, and
the leases that keep it · `channel.py` the two pipes: messages one way, credit the other.
"""

from splitpipe.transport.channel import Control as Control
from splitpipe.transport.channel import Message as Message
from splitpipe.transport.channel import Receiver as Receiver
from splitpipe.transport.channel import Sender as Sender
from splitpipe.transport.channel import open_channel as open_channel

__all__ = ("Control", "Message", "Receiver", "Sender", "open_channel")
