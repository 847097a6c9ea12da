"""A real HTTP proxy in front of a real server, which has faults on request."""

import http.client
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP = ("connection", "transfer-encoding", "content-length", "date", "server", "content-encoding")


class Proxy(ThreadingHTTPServer):
    """`fault(number, path)` returns what happens to a request:

    ""        it is passed on
    "error"   the answer is error 500, and the server gets nothing
    "lost"    the server gets it, and the answer is error 500
    "cut"     the server gets it, and the connection is closed without an answer
    "absent"  the answer is error 404, and the server gets nothing
    """

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, port, fault=lambda number, path: "", delay=0.0, check=lambda headers: None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.fault, self.delay, self.check = port, fault, delay, check
        self.number, self.counting = 0, threading.Lock()
        self.uri = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that has been killed is no error of the test."""


class Handler(BaseHTTPRequestHandler):
    def handle_one(self):
        proxy = self.server
        with proxy.counting:
            proxy.number += 1
            number = proxy.number
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(proxy.delay)
        if (refusal := proxy.check(self.headers)) is not None:
            return self.answer(401, refusal.encode())
        fault = proxy.fault(number, self.path)
        if fault == "error":
            return self.answer(500, b"out of order")
        if fault == "absent":
            return self.answer(404, b"there is no such page")
        status, headers, content = self.passed_on(body)
        if fault == "cut":
            self.close_connection = True
            return None
        return self.answer(500, b"out of order") if fault == "lost" else self.answer(status, content, headers)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    def passed_on(self, body):
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "accept-encoding")}
        upstream.request(self.command, self.path, body, {**kept, "Host": f"127.0.0.1:{self.server.target}"})
        response = upstream.getresponse()
        content = response.read()
        upstream.close()
        return response.status, response.getheaders(), content

    def answer(self, status, content, headers=()):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format, *args):
        """Say nothing."""


@contextmanager
def proxy(port, **faults):
    made = Proxy(port, **faults)
    threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield made
    finally:
        made.shutdown()
        made.server_close()
