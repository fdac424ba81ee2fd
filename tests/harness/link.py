"""A long link inside a network namespace: what is sent to 10.9.0.2 comes back to 10.9.0.1 as if from there, later.

    unshare --net python3 link.py SECONDS COMMAND...

makes the link, runs the command and ends with its status. Addresses are swapped, so that no checksum changes; every packet
takes SECONDS, so a round trip takes twice that, and any number of them can be under way.
"""

import collections
import fcntl
import os
import struct
import subprocess
import sys
import threading
import time

TUNSETIFF, TUN, WITHOUT_HEADER = 0x400454CA, 0x0001, 0x1000
PACKET_BYTES = 65_000

link = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(link, TUNSETIFF, struct.pack("16sH", b"far", TUN | WITHOUT_HEADER))
for words in (
    "link set lo up",
    "addr add 10.9.0.1/24 dev far",
    f"link set far mtu {PACKET_BYTES} txqueuelen 10000 up",
):
    subprocess.check_call(["ip", *words.split()])

delay = float(sys.argv[1])
under_way = collections.deque()
sent = threading.Semaphore(0)


def take():
    while True:
        packet = os.read(link, PACKET_BYTES)
        if packet[0] >> 4 == 4:
            swapped = packet[:12] + packet[16:20] + packet[12:16] + packet[20:]
            under_way.append((time.monotonic() + delay, swapped))
            sent.release()


def give():
    while True:
        sent.acquire()
        due, packet = under_way.popleft()
        time.sleep(max(0, due - time.monotonic()))
        os.write(link, packet)


for end in (take, give):
    threading.Thread(target=end, daemon=True).start()
sys.exit(subprocess.call(sys.argv[2:]))
