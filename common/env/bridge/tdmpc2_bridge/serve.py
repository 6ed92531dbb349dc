"""The loop: one request, one reply, until the owner closes or is gone."""
import ctypes
import faulthandler
import os
import random
import select
import signal
import socket
import sys
import threading
import time
import traceback

from . import adapt, suites, wire


def follow_parent(parent):
    """The kernel ends this process with the thread that started it, whatever the environment does."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        pass
    if os.getppid() != parent:
        os._exit(0)


def broken_off():
    """The owner would have said goodbye: it is gone, or what came was no message to it."""
    try:
        os.write(2, b"the connection broke off: something that is no message was sent "
                    b"(does the environment write to file descriptor 3?)\n")
    except OSError:
        pass
    return 1


def watch(sock):
    """Leave when the socket's other end is gone, also while the environment is busy."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    while True:
        if poll.poll(1000):
            time.sleep(2)  # the loop below sees it too, and leaves in order
            os._exit(broken_off())


def guard_session():
    """What the environment starts in this session ends with this process, however this one ends.

    A process of its own waits for that: SIGKILL leaves no other time, and the owner may be gone too. It is nobody's
    child, so that an environment that waits for all of its children does not wait for this one.
    """
    leader, middle = os.getpid(), os.fork()
    if middle > 0:
        os.waitpid(middle, 0)
        return
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
        ended = os.pidfd_open(leader) if hasattr(os, "pidfd_open") else None
        if os.fork() > 0:
            os._exit(0)
        os.closerange(0, ended or 1 << 16)
        if ended is not None:
            os.closerange(ended + 1, 1 << 16)
            select.select([ended], [], [])
        while ended is None and os.path.exists("/proc/%d" % leader):
            time.sleep(0.1)
        os.killpg(0, signal.SIGKILL)
    finally:
        os._exit(1)


def one_sentence(error):
    """What an exception says, where it was raised, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    text = str(error).strip().replace("\n", " ") or "no message"
    place = " (%s line %d)" % (os.path.basename(frames[-1].filename), frames[-1].lineno) if frames else ""
    return "%s: %s%s" % (type(error).__name__, text[:400], place)


class Server:
    def __init__(self, sock):
        self.socket = wire.Socket(sock)
        self.env = None

    def open(self, request):
        random.seed(request.seed)
        picture = (request.width, request.height) if request.width and request.height else None
        plan = suites.make(request.task, request.seed, picture is not None)
        if "numpy" in sys.modules:  # what draws from the global streams: Meta-World's goals, as in the reference
            sys.modules["numpy"].random.seed(request.seed)
        self.env = adapt.Adapter(plan, request.seed, picture)
        spec = self.env.spec
        return wire.encode_reply(wire.OPEN, request.sequence, obs_dim=spec.obs_dim, action_dim=spec.action_dim,
                                 episode_length=spec.episode_length, action_repeat=spec.action_repeat,
                                 state_size=spec.state_size, name=spec.name[:400])

    def reset(self, request):
        begun = time.perf_counter_ns()
        obs = self.env.reset(request.seed if request.has_seed else None)
        return wire.encode_reply(wire.RESET, request.sequence, obs, env_ns=time.perf_counter_ns() - begun)

    def step(self, request):
        obs, reward, flags, env_ns = self.env.step(request.bulk)
        return wire.encode_reply(wire.STEP, request.sequence, obs, reward, flags, env_ns)

    def state_get(self, request):
        return wire.encode_reply(wire.STATE_GET, request.sequence, self.env.state_get())

    def state_set(self, request):
        return wire.encode_reply(wire.STATE_SET, request.sequence, self.env.state_set(request.bulk))

    def render(self, request):
        return wire.encode_reply(wire.RENDER, request.sequence, self.env.render(request.width, request.height))

    def answer(self, request):
        kinds = {wire.OPEN: self.open, wire.RESET: self.reset, wire.STEP: self.step,
                 wire.STATE_GET: self.state_get, wire.STATE_SET: self.state_set, wire.RENDER: self.render}
        try:
            if request.kind != wire.OPEN and self.env is None:
                raise adapt.Refused("a request before the environment was opened")
            return kinds[request.kind](request)
        except adapt.Setup as error:
            failure, text = wire.SETUP, str(error)
        except adapt.Refused as error:
            failure, text = wire.REFUSED, str(error)
        except Exception as error:  # noqa: BLE001  (whatever a user's code may raise)
            traceback.print_exc()
            failure, text = wire.LOST, one_sentence(error)
        return wire.encode_reply(wire.FAILED, request.sequence, failure=failure, text=text[:700])

    def run(self):
        code = 0
        try:
            self.socket.greet()
            while True:
                request = self.socket.receive()
                if request.kind == wire.CLOSE:
                    break
                self.socket.send(self.answer(request))
        except (wire.Closed, ConnectionError):
            code = 1
        except wire.Corrupt as error:
            print("bridge: the owner sent %s" % error, file=sys.stderr)
            return 2
        if self.env is not None:
            self.env.close()
        return broken_off() if code else 0


def main(argv):
    descriptor, parent = int(argv[1]), int(argv[2])
    follow_parent(parent)
    guard_session()
    faulthandler.enable()
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(True)
    os.set_inheritable(descriptor, False)
    threading.Thread(target=watch, args=(sock,), daemon=True).start()
    code = Server(sock).run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # whatever threads the environment left behind
