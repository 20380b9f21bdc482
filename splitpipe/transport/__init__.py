"""Transport: how an object gets from one worker to the main process. Knows nothing of records, lanes or processes.

`frames.py` an object as a pickle and the buffers beside it · `arena.py` the shared memory of a worker, in blocks ·
`building.py` arrays made in it · `page.py` the cells that both sides look at · `messages.py` what is said, byte by
byte · `pack.py` small messages in shared memory · `sender.py`, `receiver.py` the two ends · `channel.py` both, made
together.
"""

from splitpipe.transport.channel import open_channel as open_channel
from splitpipe.transport.messages import Control as Control
from splitpipe.transport.messages import Kind as Kind
from splitpipe.transport.messages import Message as Message
from splitpipe.transport.receiver import Receiver as Receiver
from splitpipe.transport.sender import Sender as Sender

__all__ = ("Control", "Kind", "Message", "Receiver", "Sender", "open_channel")
