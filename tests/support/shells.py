"""Both shells for one test: what runs a coroutine, and what makes a stream of a socket."""

from mqmail.base import waiter
from mqmail.net.blocking import over_socket
from mqmail.net.daemon import new_loop
from mqmail.net.stream import Deadlines, Stream


class Blocking:
    """Streams that wait by themselves."""

    def stream(self, sock):
        return over_socket(sock)

    def run(self, coroutine):
        return waiter.run(coroutine)

    def close(self):
        pass


class Looping:
    """Streams of an event loop, which runs while a coroutine waits."""

    def __init__(self):
        self.loop = new_loop()
        self.deadlines = Deadlines(self.loop)

    def stream(self, sock):
        sock.setblocking(False)
        return Stream(self.loop, sock, self.deadlines)

    def run(self, coroutine):
        ended = []

        def finished(result, error):
            ended.append((result, error))
            if self.loop.is_running():
                self.loop.stop()

        running = waiter.Running(coroutine, finished)
        if not ended:
            limit = self.loop.call_later(30, self.loop.stop)
            self.loop.run_forever()
            limit.cancel()
        running.cancel()
        ((result, error),) = ended
        if error is not None:
            raise error
        return result

    def close(self):
        self.loop.close()
