"""Join two network interfaces and delay each frame: latency for machines whose kernel has no netem.

``ip netns exec rainbear-hub python delay.py IF_A IF_B MILLISECONDS`` as root; it says "ready", and runs until it is ended.
"""

import socket
import sys
import threading
import time
from collections import deque

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23


def raw(interface: str) -> socket.socket:
    """Open a socket on all frames of an interface. It keeps their offload headers, so large frames pass whole."""
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    link.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    link.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**26)
    link.bind((interface, 0))
    return link


def carry(source: socket.socket, target: socket.socket, seconds: float) -> None:
    """Forward each frame after its delay."""
    waiting, arrived = deque[tuple[float, bytes]](), threading.Semaphore(0)

    def send() -> None:
        while True:
            arrived.acquire()
            due, frame = waiting.popleft()
            time.sleep(max(due - time.monotonic(), 0))
            try:
                target.send(frame)
            except OSError:  # the other side is down, like an unplugged cable
                continue

    threading.Thread(target=send, daemon=True).start()
    while True:
        frame = source.recv(2**18)
        waiting.append((time.monotonic() + seconds, frame))
        arrived.release()


def main(first: str, second: str, milliseconds: str) -> None:
    """Join both interfaces in both directions."""
    a, b, seconds = raw(first), raw(second), float(milliseconds) / 1000
    threading.Thread(target=carry, args=(b, a, seconds), daemon=True).start()
    print("ready", flush=True)
    carry(a, b, seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
