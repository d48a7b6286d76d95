"""`transformers serve`, monitored: python transformers_serve.py CHECKPOINT PORT RECORDS.jsonl."""

import signal
import sys
import threading

from prometheus_client import make_asgi_app
from transformers.cli.serve import Serve

import vea_sdk as vea
from vea_sdk.monitor.sinks import JsonLinesSink, PrometheusSink

checkpoint, port, records = sys.argv[1:]
serve = Serve(checkpoint, host="127.0.0.1", port=int(port), non_blocking=True)
[loaded] = serve._model_manager.loaded_models.values()

monitor = vea.monitor(loaded.model, sample_rate=1.0, sinks=[PrometheusSink(), JsonLinesSink(records)])
serve.server.config.app.mount("/metrics", make_asgi_app())

stopped = threading.Event()
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stopped.set())
stopped.wait()
serve.kill_server()
monitor.close()
